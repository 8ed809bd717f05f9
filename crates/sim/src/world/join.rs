//! How machines come into a cloud: by founding one, or through a door that a ticket names.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::{Signer, SigningKey};
use kernel::world::{Input, Token};
use rand::RngExt;
use wire::call::{Problem, ProblemCode};
use wire::fact::NodeFacts;
use wire::id::CloudId;
use wire::peer::{JoinAnswer, JoinRequest, Signature, Statement, StatementBody, Ticket};

use super::happen::What;
use super::machine::{Admission, address};
use super::{Join, JoinOutcome, MachineId, Moment, World};

/// How long a joiner waits for one door.
const DOOR: Duration = Duration::from_secs(5);

/// A machine on its way into a cloud.
#[derive(Debug)]
pub(super) struct Joining {
    who: MachineId,
    ticket: Option<Ticket>,
    /// Doors that are yet to be tried.
    doors: VecDeque<MachineId>,
    /// The one that is being tried, its life, and what it answers to.
    door: Option<(MachineId, u64, Token)>,
    attempt: u32,
    outcome: JoinOutcome,
}

impl World {
    /// The machine founds a cloud and is its first member.
    pub fn found(&mut self, machine: MachineId) -> CloudId {
        let key = SigningKey::from_bytes(&self.random.random());
        let statement = self.admission(&key, machine);
        self.admit(machine, &key, Arc::new([statement]), Arc::new([]));
        self.start(machine);
        CloudId(key.verifying_key().to_bytes())
    }

    /// Everybody belongs to one cloud, knows that of all others and where they are, and starts. To
    /// let a thousand in through doors takes long to simulate.
    pub fn assemble(&mut self) {
        let key = SigningKey::from_bytes(&self.random.random());
        let machines: Vec<MachineId> = self.machines().collect();
        let statements: Arc<[Statement]> = machines
            .iter()
            .map(|it| self.admission(&key, *it))
            .collect();
        let hearsay = |it: &MachineId| self.at(*it).hearsay(address(*it));
        let facts: Arc<[NodeFacts]> = machines.iter().map(hearsay).collect();
        for machine in machines {
            self.admit(machine, &key, statements.clone(), facts.clone());
            self.start(machine);
        }
    }

    fn admission(&self, key: &SigningKey, machine: MachineId) -> Statement {
        let cloud = key.verifying_key().to_bytes();
        let body = StatementBody::Admission {
            cloud: CloudId(cloud),
            node: self.at(machine).node,
            ticket: None,
            at: self.wall(),
        };
        let signature = match body.signed_bytes() {
            Ok(bytes) => Signature(key.sign(&bytes).to_bytes()),
            Err(_) => Signature([0; 64]),
        };
        Statement {
            body,
            signer: cloud,
            signature,
        }
    }

    fn admit(
        &mut self,
        machine: MachineId,
        key: &SigningKey,
        statements: Arc<[Statement]>,
        facts: Arc<[NodeFacts]>,
    ) {
        let it = self.at_mut(machine);
        it.admission = Some(Admission {
            cloud: CloudId(key.verifying_key().to_bytes()),
            name: it.hardware.name.clone(),
            labels: it.hardware.labels.clone(),
            statements,
            facts,
        });
    }

    /// The machine asks to be admitted, at the doors that the ticket names, one after the other.
    pub fn join(&mut self, who: MachineId, ticket: &str) -> Join {
        let join = Join(self.next_number());
        let (ticket, outcome) = match Ticket::from_text(ticket) {
            Ok(ticket) => (Some(ticket), JoinOutcome::Open),
            Err(error) => (None, JoinOutcome::NoTicket(error.to_string())),
        };
        let nodes = ticket.iter().flat_map(|it| &it.body.doors);
        let doors = nodes
            .filter_map(|door| self.machine_of(door.node))
            .collect();
        let joining = Joining {
            who,
            ticket,
            doors,
            door: None,
            attempt: 0,
            outcome,
        };
        self.joins.insert(join, joining);
        self.next_door(join);
        join
    }

    /// What became of an attempt to join.
    #[must_use]
    pub fn join_outcome(&self, join: Join) -> &JoinOutcome {
        self.joins
            .get(&join)
            .map_or(&JoinOutcome::Unreachable, |it| &it.outcome)
    }

    /// Joins and lets time pass until it is known what became of it.
    pub fn join_and_wait(&mut self, who: MachineId, ticket: &str) -> JoinOutcome {
        let join = self.join(who, ticket);
        let most = DOOR * 8;
        self.pass_until(most, |world| *world.join_outcome(join) != JoinOutcome::Open);
        self.join_outcome(join).clone()
    }

    fn next_door(&mut self, join: Join) {
        let Some(joining) = self.joins.get_mut(&join) else {
            return;
        };
        if joining.outcome != JoinOutcome::Open {
            return;
        }
        joining.attempt += 1;
        joining.door = None;
        let (attempt, who) = (joining.attempt, joining.who);
        let (Some(door), Some(ticket)) = (joining.doors.pop_front(), joining.ticket.clone()) else {
            joining.outcome = JoinOutcome::Unreachable;
            return;
        };
        let name = self.at(who).hardware.name.clone();
        let request = Box::new(JoinRequest { ticket, name });
        let delay = self.network.delay(who, door, &mut self.random);
        let arrives = What::JoinArrives {
            join,
            attempt,
            door,
            request,
        };
        self.queue.put(self.now + delay, arrives);
        self.queue
            .put(self.now + DOOR, What::JoinSilence { join, attempt });
    }

    pub(super) fn join_silence(&mut self, join: Join, attempt: u32) {
        if self
            .joins
            .get(&join)
            .is_some_and(|it| it.attempt == attempt)
        {
            self.next_door(join);
        }
    }

    pub(super) fn join_arrives(
        &mut self,
        join: Join,
        attempt: u32,
        door: MachineId,
        request: Box<JoinRequest>,
    ) {
        let token = self.next_token();
        let life = self.at(door).life;
        let Some(joining) = self.joins.get_mut(&join) else {
            return;
        };
        if joining.attempt != attempt || !self.network.is_open(joining.who, door) {
            return;
        }
        joining.door = Some((door, life, token));
        let node = self.machines[joining.who.0].node;
        let input = Input::Join {
            token,
            node,
            request,
        };
        self.feed(door, input);
    }

    pub(super) fn answer_join(&mut self, door: MachineId, token: Token, answer: Box<JoinAnswer>) {
        let life = self.at(door).life;
        let here = Some((door, life, token));
        let found = self.joins.iter().find(|(_, it)| it.door == here);
        if let Some((join, who, attempt)) = found.map(|(join, it)| (*join, it.who, it.attempt)) {
            let delay = self.network.delay(door, who, &mut self.random);
            if self.network.is_open(door, who) {
                let answered = What::JoinAnswered {
                    join,
                    attempt,
                    answer,
                };
                self.queue.put(self.now + delay, answered);
            }
        }
        self.is_doomed(door, Moment::AfterSaying);
    }

    pub(super) fn join_answered(&mut self, join: Join, attempt: u32, answer: JoinAnswer) {
        let Some(joining) = self.joins.get_mut(&join) else {
            return;
        };
        if joining.attempt != attempt || joining.outcome != JoinOutcome::Open {
            return;
        }
        match answer {
            JoinAnswer::Refused(problem) if problem.code == ProblemCode::Busy => {
                self.next_door(join);
            }
            JoinAnswer::Refused(problem) => joining.outcome = JoinOutcome::Refused(problem),
            JoinAnswer::Admitted {
                name,
                labels,
                statements,
                facts,
            } => {
                joining.outcome = JoinOutcome::Admitted(name.clone());
                let (who, cloud) = (joining.who, joining.ticket.as_ref().map(|it| it.body.cloud));
                let Some(cloud) = cloud else { return };
                let it = self.at_mut(who);
                let own: BTreeMap<String, String> = it.hardware.labels.clone();
                it.admission = Some(Admission {
                    cloud,
                    name,
                    labels: own.into_iter().chain(labels).collect(),
                    statements: statements.into(),
                    facts: facts.into(),
                });
                self.start(who);
            }
        }
    }

    /// Refuses an attempt that will never be answered.
    pub fn give_up_join(&mut self, join: Join) {
        if let Some(joining) = self.joins.get_mut(&join)
            && joining.outcome == JoinOutcome::Open
        {
            let problem = Problem::new(ProblemCode::TimedOut, "the joiner went away");
            joining.outcome = JoinOutcome::Refused(problem);
        }
    }
}

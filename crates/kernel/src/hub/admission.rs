//! Who may come and who must go: tickets, joins, removals. Whatever is signed here is signed by the
//! world, which alone has the key; [`SignPurpose`] remembers what for.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use rand::RngExt;
use wire::call::{Invitation, Invite, NodeState, NodeSummary, Problem, ProblemCode, Response};
use wire::id::{NodeId, TicketId, UnixMillis};
use wire::peer::{
    Door, JoinAnswer, JoinRequest, News, Signature, Statement, StatementBody,
    TICKET_CHARACTERS_MAX, Ticket, TicketBody,
};

use super::{Kernel, Origin};
use crate::alarm::Alarm;
use crate::limits::{TICKET_TTL_MAX, TICKET_USES_MAX};
use crate::world::{Output, Token};

/// Members that a ticket names, beside its issuer.
const DOORS_MAX: usize = 3;
/// Labels that one ticket gives.
const TICKET_LABELS_MAX: usize = 8;
/// Joins that are being answered at one time.
const SIGNING_MAX: usize = 256;

/// What a signature is for.
#[derive(Debug)]
pub(crate) enum SignPurpose {
    /// A ticket, for whoever asked for it.
    Ticket { origin: Origin, body: TicketBody },
    /// The admission of a machine that waits behind `door`.
    Admission {
        door: Token,
        body: StatementBody,
        request: Box<JoinRequest>,
    },
    /// The removal of a node that was this.
    Removal {
        origin: Origin,
        body: StatementBody,
        summary: Box<NodeSummary>,
    },
}

impl Kernel {
    fn sign(&mut self, bytes: Result<Vec<u8>, wire::DecodeError>, purpose: SignPurpose) {
        match bytes {
            Ok(bytes) => {
                let token = self.next_token();
                self.signing.insert(token, purpose);
                self.outbox.act(Output::Sign { token, bytes });
            }
            Err(error) => self.alarm(Alarm::SignEncode, error.to_string()),
        }
    }

    pub(super) fn handle_signed(&mut self, token: Token, signature: Signature) {
        match self.signing.remove(&token) {
            None => {}
            Some(SignPurpose::Ticket { origin, body }) => {
                let (uses, expires) = (body.uses, body.not_after);
                let ticket = Ticket { body, signature }.to_text();
                let result = ticket
                    .map(|ticket| {
                        Response::Invite(Invitation {
                            ticket,
                            uses,
                            expires,
                        })
                    })
                    .map_err(|error| Problem::new(ProblemCode::Internal, error.to_string()));
                self.reply(origin, result);
            }
            Some(SignPurpose::Admission {
                door,
                body,
                request,
            }) => {
                self.admit(door, body, *request, signature);
            }
            Some(SignPurpose::Removal {
                origin,
                body,
                summary,
            }) => {
                let statement = Statement {
                    body,
                    signer: self.me.0,
                    signature,
                };
                self.say_statement(statement);
                let result = if self.auth.is_member(summary.node) {
                    let detail = alloc::format!("{} was not removed", summary.name);
                    Err(Problem::new(ProblemCode::Busy, detail)
                        .remedy("this node keeps no more removals: try it on another one"))
                } else {
                    Ok(Response::NodeRemove(*summary))
                };
                self.reply(origin, result);
            }
        }
    }

    fn say_statement(&mut self, statement: Statement) {
        if self.learn_statement(&statement) {
            self.spread(
                &News {
                    statements: [statement].into(),
                    facts: Vec::new(),
                },
                None,
            );
        }
    }

    /// `cloud/invite`.
    pub(crate) fn invite(&mut self, origin: Origin, invite: Invite) {
        let ttl_max_s = TICKET_TTL_MAX.as_secs();
        if invite.uses == 0 || invite.uses > TICKET_USES_MAX {
            let detail = alloc::format!("a ticket is good for 1 to {TICKET_USES_MAX} machines");
            return self.reply(origin, Err(Problem::new(ProblemCode::Invalid, detail)));
        }
        if invite.ttl_s == 0 || invite.ttl_s > ttl_max_s {
            let detail = alloc::format!("a ticket lives 1 to {ttl_max_s} seconds");
            return self.reply(origin, Err(Problem::new(ProblemCode::Invalid, detail)));
        }
        if let Err(problem) = check_labels(&invite.labels) {
            return self.reply(origin, Err(problem));
        }
        let mut doors: Vec<Door> = Vec::new();
        let others = self.reachable().into_iter().filter(|node| *node != self.me);
        for node in core::iter::once(self.me).chain(others).take(1 + DOORS_MAX) {
            if let Some(facts) = self.measurement.get(node) {
                doors.push(Door {
                    node,
                    addresses: facts.addresses.clone(),
                });
            }
        }
        let mut body = TicketBody {
            cloud: self.config.cloud,
            id: TicketId(self.rng.random()),
            issuer: self.me,
            uses: invite.uses,
            not_after: UnixMillis(self.wall().0.saturating_add(invite.ttl_s * 1000)),
            labels: invite.labels,
            doors,
        };
        shorten(&mut body);
        self.sign(body.signed_bytes(), SignPurpose::Ticket { origin, body });
    }

    pub(super) fn handle_join(&mut self, door: Token, node: NodeId, request: JoinRequest) {
        if self.outbox.is_stuck() || self.signing.len() >= SIGNING_MAX {
            let problem = Problem::new(ProblemCode::Busy, "the node cannot admit anybody now")
                .remedy("try again in a moment");
            return self.refuse(door, problem);
        }
        if let Err(problem) = self.auth.check_ticket(&request.ticket, node, self.wall()) {
            return self.refuse(door, problem);
        }
        if self.auth.is_member(node) {
            return self.welcome(door, node, &request);
        }
        let body = StatementBody::Admission {
            cloud: self.config.cloud,
            node,
            ticket: Some(request.ticket.body.id),
            at: self.wall(),
        };
        let request = Box::new(request);
        self.sign(
            body.signed_bytes(),
            SignPurpose::Admission {
                door,
                body,
                request,
            },
        );
    }

    fn admit(
        &mut self,
        door: Token,
        body: StatementBody,
        request: JoinRequest,
        signature: Signature,
    ) {
        // The ticket may have been used up while the signature was made.
        let node = body.subject();
        if let Err(problem) = self.auth.check_ticket(&request.ticket, node, self.wall()) {
            return self.refuse(door, problem);
        }
        self.say_statement(Statement {
            body,
            signer: self.me.0,
            signature,
        });
        self.welcome(door, node, &request);
    }

    fn welcome(&mut self, door: Token, node: NodeId, request: &JoinRequest) {
        let answer = JoinAnswer::Admitted {
            name: self.free_name(&request.name, node),
            labels: request.ticket.body.labels.clone(),
            statements: self.auth.statements().cloned().collect(),
            facts: self.measurement.iter().cloned().collect(),
        };
        self.outbox.say(Output::AnswerJoin {
            token: door,
            answer: Box::new(answer),
        });
    }

    /// `wanted`, or `wanted-2` and so on when another node has that name.
    fn free_name(&self, wanted: &str, node: NodeId) -> String {
        let fallback = alloc::format!("node-{}", node.short());
        let base = if wire::spec::check_name(wanted).is_ok() {
            wanted
        } else {
            &fallback
        };
        let is_taken = |name: &str| {
            self.measurement
                .iter()
                .any(|it| it.node != node && it.name == name)
        };
        let numbered = (2..100).map(|number| alloc::format!("{base}-{number}"));
        core::iter::once(base.to_string())
            .chain(numbered)
            .find(|name| !is_taken(name) && wire::spec::check_name(name).is_ok())
            .unwrap_or_else(|| fallback.clone())
    }

    fn refuse(&mut self, token: Token, problem: Problem) {
        let answer = Box::new(JoinAnswer::Refused(problem));
        self.outbox.say(Output::AnswerJoin { token, answer });
    }

    /// `node/remove`, once it is clear that it may be.
    pub(crate) fn remove_node(&mut self, origin: Origin, mut summary: NodeSummary) {
        let (cloud, node, at) = (self.config.cloud, summary.node, self.wall());
        summary.state = NodeState::Gone;
        let keeps = self.auth.admitted_with(node);
        let body = StatementBody::Removal {
            cloud,
            node,
            keeps,
            at,
        };
        let bytes = body.signed_bytes();
        let summary = Box::new(summary);
        self.sign(
            bytes,
            SignPurpose::Removal {
                origin,
                body,
                summary,
            },
        );
    }

    /// This node was removed: it ends what it runs and takes part in nothing any more.
    pub(super) fn removed_here(&mut self) {
        self.alarm(
            Alarm::NodeRemoved,
            "this node was removed from the cloud; its objects are being stopped".to_string(),
        );
        let objects: Vec<_> = self.objects.iter().map(|it| it.facts.object).collect();
        for object in objects {
            // Every one of them is in the table, which is all that can go wrong.
            self.objects.stop(object, None, true).ok();
        }
        // What they wait for has begun, and others have the record of it: this node cannot say that
        // nothing was done.
        let detail = "this node was removed from the cloud meanwhile; others may go on with it";
        let problem = Problem::new(ProblemCode::Unreachable, detail);
        let problem = problem.remedy("ask another node what became of it: welkin ps -a");
        for waiter in core::mem::take(&mut self.waiters) {
            self.reply_now(waiter.origin, Err(problem.clone()));
        }
    }
}

/// Leaves out addresses and doors until the line that people hand around can be read again: first
/// the last addresses, which are the least likely to be reached, then the last doors.
fn shorten(body: &mut TicketBody) {
    let fits = |body: &TicketBody| {
        let signature = Signature([0; 64]);
        let body = body.clone();
        let text = Ticket { body, signature }.to_text();
        text.is_ok_and(|text| text.len() <= TICKET_CHARACTERS_MAX)
    };
    while !fits(body) {
        let longest = body.doors.iter_mut().max_by_key(|it| it.addresses.len());
        match longest {
            Some(door) if door.addresses.len() > 1 => drop(door.addresses.pop()),
            Some(_) | None => {
                if body.doors.pop().is_none() {
                    return;
                }
            }
        }
    }
}

/// Labels that a ticket may give: few, and short enough for one line.
fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), Problem> {
    let invalid = |detail: String| Err(Problem::new(ProblemCode::Invalid, detail));
    if labels.len() > TICKET_LABELS_MAX {
        return invalid(alloc::format!(
            "a ticket gives at most {TICKET_LABELS_MAX} labels"
        ));
    }
    for (key, value) in labels {
        if let Err(error) = wire::spec::check_name(key) {
            return invalid(alloc::format!("label `{key}`: {error}"));
        }
        if value.len() > wire::spec::NAME_CHARACTERS_MAX {
            return invalid(alloc::format!("the value of label {key} is too long"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four doors with sixteen IPv6 addresses each made a line that no machine could read.
    #[test]
    fn a_ticket_of_doors_with_many_addresses_can_be_read_again() {
        let address = |number: usize| {
            alloc::format!("[2001:0db8:1111:2222:3333:4444:5555:{number:04x}]:65535")
        };
        let door = |number: u8| Door {
            node: NodeId([number; 32]),
            addresses: (0..wire::fact::ADDRESSES_MAX).map(address).collect(),
        };
        let label = "a".repeat(wire::spec::NAME_CHARACTERS_MAX - 1);
        let labels = (0..TICKET_LABELS_MAX)
            .map(|number| (alloc::format!("{label}{number}"), label.clone()))
            .collect();
        let mut body = TicketBody {
            cloud: wire::id::CloudId([1; 32]),
            id: TicketId([2; 16]),
            issuer: NodeId([0; 32]),
            uses: TICKET_USES_MAX,
            not_after: UnixMillis(u64::MAX),
            labels,
            doors: (0..4).map(door).collect(),
        };
        shorten(&mut body);
        let ticket = Ticket {
            body,
            signature: Signature([255; 64]),
        };
        let read = Ticket::from_text(&ticket.to_text().unwrap());
        assert_eq!(read.as_ref(), Ok(&ticket));
        let doors = &ticket.body.doors;
        assert_eq!(doors[0].node, NodeId([0; 32]));
        assert!(doors.iter().all(|door| !door.addresses.is_empty()));
        assert_eq!(doors[0].addresses[0], address(0));
    }
}

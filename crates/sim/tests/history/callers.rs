//! Callers that change and read one app at the same time, each on any node, and what they hear.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt;
use rand::seq::IndexedRandom;
use sim::latency::Matrix;
use sim::network::Weather;
use sim::world::{self, Hardware, JoinOutcome, MachineId, Outcome, World};
use wire::call::{
    Apply, Expected, Inspect, Invite, Problem, ProblemCode, Remove, Request, Response, Scale,
    StartApp, StopApp,
};
use wire::id::Version;
use wire::spec::{AppSpec, OnPartition, Placement, Program, Resources, Restart, Stop};

use crate::checker::Call;
use crate::register::{Answer, Op, Wish};

const SECOND: Duration = Duration::from_secs(1);
/// Longer than any of these calls may take.
const PATIENCE: Duration = Duration::from_secs(70);
const APP: &str = "web";
/// Calls at the end of every story, when everything is well again.
pub(crate) const LAST_WORDS: usize = 2;

/// What goes wrong while calls are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing: words are lost, late and doubled at most.
    None,
    /// Daemons are killed and begin again.
    Daemon,
    /// Machines lose their power, one at a time, and get it back.
    Power,
}

/// What is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Story {
    pub(crate) seed: u64,
    pub(crate) machines: usize,
    pub(crate) callers: usize,
    pub(crate) calls: usize,
    pub(crate) fault: Fault,
}

/// A caller, who waits for one call at a time.
#[derive(Debug, Default)]
struct Caller {
    open: Option<(world::Call, usize)>,
    /// The version that it heard last.
    version: Option<Version>,
}

#[derive(Debug)]
struct Telling {
    world: World,
    callers: Vec<Caller>,
    calls: Vec<Call>,
    /// Calls of which it is known that they did nothing.
    void: Vec<usize>,
    /// How much has happened.
    events: usize,
}

/// Makes the calls of a story; what was asked and heard.
pub(crate) fn tell(story: Story) -> Vec<Call> {
    let mut telling = Telling {
        world: cloud(story.seed, story.machines),
        callers: Vec::new(),
        calls: Vec::new(),
        void: Vec::new(),
        events: 0,
    };
    telling.callers.resize_with(story.callers, Caller::default);
    if telling.world.random().random() {
        telling.world.weather(Weather::ROUGH);
    }
    while telling.calls.len() < story.calls {
        telling.ask();
        let pause = telling.world.random().random_range(0..400);
        telling.hear(Duration::from_millis(pause));
        telling.go_wrong(story.fault);
    }
    telling.end()
}

impl Telling {
    /// Whoever waits for nothing asks for something.
    fn ask(&mut self) {
        let idle: Vec<usize> = (0..self.callers.len())
            .filter(|it| self.callers[*it].open.is_none())
            .collect();
        let world = &mut self.world;
        let up: Vec<MachineId> = world.machines().filter(|it| world.is_up(*it)).collect();
        let (Some(caller), Some(at)) = (
            idle.choose(world.random()).copied(),
            up.choose(world.random()).copied(),
        ) else {
            return;
        };
        let place = self.calls.len();
        let op = some_op(world, place, self.callers[caller].version);
        let call = world.call(at, request(op));
        self.callers[caller].open = Some((call, place));
        self.note(op);
    }

    fn note(&mut self, op: Op) {
        self.events += 1;
        self.calls.push(Call {
            op,
            asked: self.events,
            answer: None,
        });
    }

    /// Lets time pass; answers are noted in the order in which they come.
    fn hear(&mut self, most: Duration) {
        let end = self.world.now() + most;
        loop {
            let open: Vec<world::Call> = self
                .callers
                .iter()
                .filter_map(|it| Some(it.open?.0))
                .collect();
            let left = end.since(self.world.now());
            let is_over = |world: &World, call| *world.outcome(call) != Outcome::Open;
            let is_any_over = |world: &World| open.iter().any(|it| is_over(world, *it));
            if !self.world.pass_until(left, is_any_over) {
                return;
            }
            for number in 0..self.callers.len() {
                if let Some((call, place)) = self.callers[number].open
                    && is_over(&self.world, call)
                {
                    self.callers[number].open = None;
                    self.events += 1;
                    self.answered(number, place, call);
                }
            }
        }
    }

    fn answered(&mut self, number: usize, place: usize, call: world::Call) {
        let op = self.calls[place].op;
        let Outcome::Answered(result) = self.world.outcome(call) else {
            return;
        };
        match heard(op, result) {
            Heard::Answer(answer) => {
                if let Answer::Written(Some(version)) | Answer::Found(_, version) = answer {
                    self.callers[number].version = Some(version);
                }
                self.calls[place].answer = Some((answer, self.events));
            }
            Heard::Nothing => self.void.push(place),
            Heard::Perhaps => {}
        }
    }

    fn go_wrong(&mut self, fault: Fault) {
        let world = &mut self.world;
        if world.random().random_range(0..6) > 0 {
            return;
        }
        let machines: Vec<MachineId> = world.machines().collect();
        let off = machines.iter().copied().find(|it| !world.is_up(*it));
        let one = machines.choose(world.random()).copied();
        match (fault, off, one) {
            (Fault::None, _, _) | (_, None, None) => {}
            (Fault::Power | Fault::Daemon, Some(off), _) => world.start(off),
            (Fault::Power, None, Some(one)) => world.crash(one),
            (Fault::Daemon, None, Some(one)) => world.kill_daemon(one),
        }
    }

    /// Everything is well again, and two nodes say what the app is to be at last.
    fn end(mut self) -> Vec<Call> {
        let machines: Vec<MachineId> = self.world.machines().collect();
        self.world.weather(Weather::FAIR);
        for machine in &machines {
            self.world.start(*machine);
        }
        self.hear(PATIENCE);
        for machine in machines.iter().rev().take(LAST_WORDS) {
            let caller = self.callers.len();
            let call = self.world.call(*machine, request(Op::Inspect));
            self.callers.push(Caller {
                open: Some((call, self.calls.len())),
                version: None,
            });
            self.note(Op::Inspect);
            self.hear(PATIENCE);
            assert_eq!(self.callers[caller].open, None, "the node does not answer");
        }
        let is_void = |place: &usize| {
            let call = &self.calls[*place];
            self.void.contains(place) || (call.op == Op::Inspect && call.answer.is_none())
        };
        let places = (0..self.calls.len()).filter(|it| !is_void(it));
        places.map(|it| self.calls[it].clone()).collect()
    }
}

fn cloud(seed: u64, count: usize) -> World {
    let mut world = World::new(seed, Matrix::cities());
    let places = world.matrix().places();
    for number in 0..count {
        let mut hardware = Hardware::ordinary(&format!("n{number}"));
        hardware.place = world.random().random_range(0..places);
        world.add(hardware);
    }
    world.found(MachineId(0));
    world.pass(SECOND);
    let invite = Invite {
        uses: 100,
        ttl_s: 3600,
        labels: BTreeMap::new(),
    };
    let Ok(Response::Invite(invitation)) = world.ask(MachineId(0), invite, SECOND) else {
        panic!("no ticket");
    };
    for number in 1..count {
        let outcome = world.join_and_wait(MachineId(number), &invitation.ticket);
        assert!(matches!(outcome, JoinOutcome::Admitted(_)), "{outcome:?}");
    }
    world.pass(SECOND * 5);
    world
}

fn some_op(world: &mut World, place: usize, version: Option<Version>) -> Op {
    let dice = world.random().random_range(0..20);
    let replicas = world.random().random_range(0..3);
    let expected = match (world.random().random_range(0..6), version) {
        (0, _) => Expected::Absent,
        (1..5, Some(version)) => Expected::Version(version),
        _ => Expected::Anything,
    };
    let tag = u32::try_from(place).expect("few calls are made");
    match dice {
        0..8 => Op::Apply {
            tag,
            replicas,
            expected,
        },
        8 | 9 => Op::Scale(replicas),
        10 => Op::Stop,
        11 => Op::Start,
        12 => Op::Remove,
        _ => Op::Inspect,
    }
}

fn request(op: Op) -> Request {
    let target = APP.to_string();
    match op {
        Op::Apply {
            tag,
            replicas,
            expected,
        } => Apply {
            spec: Box::new(spec(tag, replicas)),
            expected,
            roll_back: false,
        }
        .into(),
        Op::Scale(replicas) => Scale { target, replicas }.into(),
        Op::Stop => StopApp {
            target,
            grace_ms: None,
        }
        .into(),
        Op::Start => StartApp { target }.into(),
        Op::Remove => Remove {
            target,
            force: true,
        }
        .into(),
        Op::Inspect => Inspect { target }.into(),
    }
}

/// An app that can be told from others of its name by `tag`.
fn spec(tag: u32, replicas: u32) -> AppSpec {
    AppSpec {
        name: APP.to_string(),
        replicas,
        program: Program {
            arguments: vec!["serve".to_string(), tag.to_string()],
            ..Program::default()
        },
        ports: BTreeMap::new(),
        resources: Resources::default(),
        restart: Restart::Always,
        placement: Placement::default(),
        stop: Stop {
            grace_ms: 500,
            ..Stop::default()
        },
        remove_when_done: false,
        on_partition: OnPartition::Available,
        health: None,
        after: Default::default(),
        schedule: None,
        deadline_ms: None,
    }
}

/// What an answer says of its call.
enum Heard {
    /// This.
    Answer(Answer),
    /// It did nothing, and says nothing of the app.
    Nothing,
    /// It may have had its effect, or may yet.
    Perhaps,
}

fn heard(op: Op, result: &Result<Response, Problem>) -> Heard {
    let problem = match result {
        Ok(Response::Inspect(it)) => {
            let tag = it.spec.program.arguments.get(1);
            let tag = tag.and_then(|text| text.parse().ok());
            let wish = Wish {
                tag: tag.expect("every spec has a tag"),
                replicas: it.spec.replicas,
                stopped: it.stopped,
            };
            return Heard::Answer(Answer::Found(wish, it.version));
        }
        Ok(Response::Apply(it)) => return Heard::Answer(Answer::Written(Some(it.version))),
        Ok(_) => return Heard::Answer(Answer::Written(None)),
        Err(problem) => problem,
    };
    let is_about_expected = problem.detail.starts_with("somebody else");
    if problem.code == ProblemCode::NotFound {
        Heard::Answer(Answer::Absent)
    } else if problem.code == ProblemCode::Conflict && is_about_expected {
        Heard::Answer(Answer::Refused)
    } else if matches!(problem.code, ProblemCode::Conflict | ProblemCode::Busy) {
        Heard::Nothing
    } else {
        assert_ne!(problem.code, ProblemCode::Invalid, "{op:?}: {problem:?}");
        Heard::Perhaps
    }
}

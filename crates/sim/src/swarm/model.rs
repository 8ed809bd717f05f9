//! What people asked for and were told, and so what each app may be.
//!
//! An app is a set of wishes: all that it may be by what its callers know. An acknowledged call in
//! calm leaves one; a call that was not answered, or was answered while machines came and went,
//! adds one, because a later word may have been lost on its way to somebody. While nodes do not see
//! each other, somebody may even have changed an app as it was before.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kernel::instant::Instant;
use rand::RngExt;
use wire::call::{ProblemCode, Remove, Request, Run, Scale, StartApp, StopApp};
use wire::spec::{AppSpec, Program, Resources, Restart};

use crate::invariants::survey::Wish;
use crate::world::{Call, MachineId, Outcome, World};

/// Names of apps: few, so that calls meet.
const APPS: usize = 5;
/// How long something that nobody answered may still be on its way.
const ECHO: Duration = Duration::from_secs(35);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Run { replicas: u32, lasting: bool },
    Scale(u32),
    Stop,
    Start,
    Remove,
}

#[derive(Debug)]
struct App {
    wishes: BTreeSet<Wish>,
    /// All that it ever was: what a node may believe that could not be reached.
    past: BTreeSet<Wish>,
    /// The call that is open, when it was made, and whether that was in calm.
    open: Option<(Call, Deed, bool)>,
    /// What was not answered, and until when it may still be done.
    echoes: Vec<(Instant, Deed)>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Model {
    apps: BTreeMap<String, App>,
    pub(super) acknowledged: u64,
    pub(super) refused: u64,
}

impl Model {
    pub(super) fn new() -> Self {
        let app = |number: usize| {
            let app = App {
                wishes: BTreeSet::from([Wish::Absent]),
                past: BTreeSet::from([Wish::Absent]),
                open: None,
                echoes: Vec::new(),
            };
            (format!("app{number}"), app)
        };
        Self {
            apps: (0..APPS).map(app).collect(),
            acknowledged: 0,
            refused: 0,
        }
    }

    pub(super) fn expected(&self) -> BTreeMap<String, BTreeSet<Wish>> {
        let wishes = |(name, app): (&String, &App)| (name.clone(), app.wishes.clone());
        self.apps.iter().map(wishes).collect()
    }

    /// Nothing is asked that is not answered.
    pub(super) fn is_idle(&self) -> bool {
        self.apps.values().all(|app| app.open.is_none())
    }

    /// Asks for something, of an app of which nothing is being asked.
    pub(super) fn ask(&mut self, world: &mut World, at: MachineId, is_calm: bool) {
        let number = world.random().random_range(0..APPS);
        let name = format!("app{number}");
        let Some(app) = self.apps.get_mut(&name).filter(|it| it.open.is_none()) else {
            return;
        };
        let may_be_absent = app.wishes.contains(&Wish::Absent);
        let dice = world.random().random_range(0..10);
        let replicas = world.random().random_range(0..4);
        let deed = match dice {
            _ if may_be_absent && (app.wishes.len() == 1 || dice < 4) => Deed::Run {
                replicas: replicas.max(1),
                lasting: dice != 9,
            },
            0..5 => Deed::Scale(replicas),
            5 | 6 => Deed::Stop,
            7 | 8 => Deed::Start,
            _ => Deed::Remove,
        };
        let request = request(world, &name, deed);
        let call = world.call(at, request);
        app.open = Some((call, deed, is_calm));
    }

    /// Takes in answers that came.
    pub(super) fn collect(&mut self, world: &World, is_calm: bool, is_sighted: bool) {
        let now = world.now();
        for app in self.apps.values_mut() {
            let Some((call, deed, began_calm)) = app.open else {
                continue;
            };
            let outcome = world.outcome(call);
            if *outcome == Outcome::Open {
                continue;
            }
            app.open = None;
            app.echoes.retain(|(until, _)| *until > now);
            let certain = is_calm && began_calm && app.echoes.is_empty();
            match Told::by(outcome) {
                Told::Done => {
                    self.acknowledged += 1;
                    app.done(deed, certain, is_sighted);
                }
                Told::Refused => self.refused += 1,
                Told::Nothing => {
                    self.refused += 1;
                    app.echoes.push((now + ECHO, deed));
                    app.done(deed, false, is_sighted);
                    if matches!(deed, Deed::Run { .. }) {
                        app.wishes.insert(Wish::Absent);
                    }
                }
            }
        }
    }
}

/// What a caller knows after an answer.
enum Told {
    /// It is done.
    Done,
    /// It was not done.
    Refused,
    /// It was done, or not, or is being done.
    Nothing,
}

impl Told {
    fn by(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Open | Outcome::Broken => Self::Nothing,
            Outcome::Answered(result) => match &**result {
                Ok(_) => Self::Done,
                Err(problem) => match problem.code {
                    ProblemCode::Invalid
                    | ProblemCode::NotFound
                    | ProblemCode::Ambiguous
                    | ProblemCode::Conflict
                    | ProblemCode::Busy
                    | ProblemCode::Forbidden
                    | ProblemCode::BadTicket => Self::Refused,
                    ProblemCode::NoFit
                    | ProblemCode::Unreachable
                    | ProblemCode::TimedOut
                    | ProblemCode::NotStarted { .. }
                    | ProblemCode::Internal => Self::Nothing,
                },
            },
        }
    }
}

impl App {
    fn done(&mut self, deed: Deed, certain: bool, is_sighted: bool) {
        let before = if is_sighted { &self.wishes } else { &self.past };
        let mut after: BTreeSet<Wish> = before.iter().map(|wish| apply(*wish, deed)).collect();
        for (_, echo) in &self.echoes {
            let late: Vec<Wish> = after.iter().map(|wish| apply(*wish, *echo)).collect();
            after.extend(late);
        }
        self.past.extend(&after);
        if certain {
            self.wishes = after;
        } else {
            self.wishes.extend(after);
        }
    }
}

fn apply(wish: Wish, deed: Deed) -> Wish {
    match (deed, wish) {
        (Deed::Run { replicas, lasting }, Wish::Absent) => Wish::Present {
            replicas,
            stopped: false,
            lasting,
        },
        (Deed::Remove, _) => Wish::Absent,
        (
            Deed::Scale(replicas),
            Wish::Present {
                stopped, lasting, ..
            },
        ) => Wish::Present {
            replicas,
            stopped,
            lasting,
        },
        (
            Deed::Stop | Deed::Start,
            Wish::Present {
                replicas, lasting, ..
            },
        ) => Wish::Present {
            replicas,
            stopped: deed == Deed::Stop,
            lasting,
        },
        (_, wish) => wish,
    }
}

fn request(world: &mut World, name: &str, deed: Deed) -> Request {
    let target = name.to_string();
    match deed {
        Deed::Run { replicas, lasting } => {
            let words: &[&str] = match (lasting, world.random().random_range(0..6)) {
                (false, _) => &["work", "4"],
                (true, 0) => &["crash", "900"],
                (true, 1) => &["work", "5"],
                (true, _) => &["serve"],
            };
            let spec = AppSpec {
                name: target,
                replicas,
                program: Program {
                    arguments: words.iter().map(|word| (*word).to_string()).collect(),
                    ..Program::default()
                },
                ports: BTreeMap::default(),
                resources: Resources {
                    cpu_millis: world.random().random_range(0..3) * 100,
                    memory_bytes: 64 << 20,
                    processes: 16,
                },
                restart: if lasting {
                    Restart::Always
                } else {
                    Restart::No
                },
                placement: wire::spec::Placement {
                    spread: world.random().random(),
                    ..Default::default()
                },
                stop: wire::spec::Stop {
                    grace_ms: 2000,
                    ..Default::default()
                },
                remove_when_done: false,
            };
            Request::Run(Run {
                spec,
                attach: false,
            })
        }
        Deed::Scale(replicas) => Request::Scale(Scale { target, replicas }),
        Deed::Stop => Request::StopApp(StopApp {
            target,
            grace_ms: None,
        }),
        Deed::Start => Request::StartApp(StartApp { target }),
        Deed::Remove => Request::Remove(Remove {
            target,
            force: true,
        }),
    }
}

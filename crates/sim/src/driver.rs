//! The driver of one machine: made-up programs with a life that their arguments tell.
//!
//! | arguments | life |
//! | --- | --- |
//! | `serve` | runs until it is asked to end, then returns 0 |
//! | `work SECONDS [CODE]` | runs so long, then returns CODE, 0 when absent |
//! | `crash MILLISECONDS` | runs so long, then signal 11 ends it |
//! | `hungry SECONDS` | runs so long, then the memory limit ends it |
//! | `sick FROM [UNTIL]` | serves, but its health check fails from FROM to UNTIL seconds after its start |
//! | `deaf` | runs, and does not listen when it is asked to end |
//! | anything else | cannot be started: 127 |
//!
//! Programs outlive the daemon, as shims make them do. They do not outlive the machine.

use std::collections::BTreeMap;
use std::time::Duration;

use kernel::instant::Instant;
use rand::{Rng, RngExt};
use wire::driver::{DriverReport, Launch, Tenure};
use wire::fact::{Exit, ExitReason, Usage};
use wire::id::{ObjectId, UnixMillis};

const SIGNAL_SEGMENTATION: u8 = 11;
const SIGNAL_KILL: u8 = 9;
const SIGNAL_TERMINATE: u8 = 15;

/// The programs of one machine.
#[derive(Debug, Default)]
pub(crate) struct Driver {
    objects: BTreeMap<ObjectId, Program>,
    last_run: u64,
}

/// One object's program.
#[derive(Debug)]
pub(crate) struct Program {
    /// What it was started with.
    pub(crate) launch: Launch,
    /// Tells this run from earlier ones of the same object.
    run: u64,
    /// What was last said of it.
    report: Option<DriverReport>,
    since: Instant,
    /// Until when it may run, if it may not for ever.
    tenure: Option<Tenure>,
    /// It was asked to end.
    asked: bool,
}

impl Program {
    /// Its program runs or is being started.
    pub(crate) fn lives(&self) -> bool {
        !matches!(self.report, Some(DriverReport::Exited(_)))
    }

    /// Its program can do something: it lives and is not frozen.
    pub(crate) fn acts(&self, now: Instant) -> bool {
        let may_act = |tenure: Tenure| now.as_micros() < tenure.freeze_at_us;
        self.lives() && self.tenure.is_none_or(may_act)
    }
}

/// What happens to a program by itself.
#[derive(Debug, Clone)]
pub(crate) enum Turn {
    /// It has started.
    Runs,
    /// It has ended.
    Ends(ExitReason),
    /// It is killed, unless it may run longer by then.
    Lapses,
}

/// What happens to which run, and when.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) after: Duration,
    pub(crate) object: ObjectId,
    pub(crate) run: u64,
    pub(crate) turn: Turn,
}

impl Driver {
    /// All objects that were not discarded.
    pub(crate) fn objects(&self) -> impl Iterator<Item = (&ObjectId, &Program)> {
        self.objects.iter()
    }

    /// Starts a program.
    pub(crate) fn launch(
        &mut self,
        now: Instant,
        launch: Launch,
        random: &mut impl Rng,
    ) -> Vec<Plan> {
        self.last_run += 1;
        let (object, run) = (launch.object, self.last_run);
        let begins = Duration::from_micros(random.random_range(3_000..30_000));
        let plan = |after: Duration, turn| Plan {
            after,
            object,
            run,
            turn,
        };
        let mut plans = Vec::new();
        match life(&launch.program.arguments) {
            Life::Runs => plans.push(plan(begins, Turn::Runs)),
            Life::EndsAfter(after, reason) => {
                plans.push(plan(begins, Turn::Runs));
                plans.push(plan(begins + after, Turn::Ends(reason)));
            }
            Life::Never(message) => {
                let reason = ExitReason::NotStarted { code: 127, message };
                plans.push(plan(begins, Turn::Ends(reason)));
            }
        }
        let tenure = launch.tenure;
        if let Some(tenure) = tenure {
            let left_us = tenure.kill_at_us.saturating_sub(now.as_micros());
            plans.push(plan(Duration::from_micros(left_us), Turn::Lapses));
        }
        let program = Program {
            launch,
            run,
            report: None,
            since: now,
            tenure,
            asked: false,
        };
        self.objects.insert(object, program);
        plans
    }

    /// A program may run so long.
    pub(crate) fn tenure(
        &mut self,
        now: Instant,
        object: ObjectId,
        tenure: Tenure,
    ) -> Option<Plan> {
        let program = self.objects.get_mut(&object).filter(|it| it.lives())?;
        program.tenure = Some(tenure);
        let left_us = tenure.kill_at_us.saturating_sub(now.as_micros());
        Some(Plan {
            after: Duration::from_micros(left_us),
            object,
            run: program.run,
            turn: Turn::Lapses,
        })
    }

    /// The time of a plan has come; what is to be told, if it still holds.
    pub(crate) fn turn(
        &mut self,
        now: Instant,
        wall: UnixMillis,
        plan: &Plan,
    ) -> Option<DriverReport> {
        let program = self.objects.get_mut(&plan.object)?;
        if program.run != plan.run || !program.lives() {
            return None;
        }
        let report = match &plan.turn {
            Turn::Runs => DriverReport::Running {
                pid: u32::try_from(1000 + plan.run).unwrap_or(u32::MAX),
                started: wall,
                protections_off: Vec::new(),
            },
            Turn::Ends(reason) => DriverReport::Exited(Exit {
                reason: reason.clone(),
                at: wall,
                asked: program.asked,
            }),
            Turn::Lapses => {
                let tenure = program.tenure;
                if tenure.is_none_or(|tenure| now.as_micros() < tenure.kill_at_us) {
                    return None;
                }
                let reason = ExitReason::Lapsed;
                let asked = program.asked;
                DriverReport::Exited(Exit {
                    reason,
                    at: wall,
                    asked,
                })
            }
        };
        program.report = Some(report.clone());
        Some(report)
    }

    /// Asks a program to end.
    pub(crate) fn stop(
        &mut self,
        object: ObjectId,
        grace_ms: u32,
        random: &mut impl Rng,
    ) -> Option<Plan> {
        let program = self.objects.get_mut(&object).filter(|it| it.lives())?;
        program.asked = true;
        let grace = Duration::from_millis(grace_ms.into());
        let polite = Duration::from_micros(random.random_range(1_000..50_000));
        let is_deaf = matches!(&program.launch.program.arguments[..], [one] if one == "deaf");
        let (after, reason) = if is_deaf || grace < polite {
            (grace, ExitReason::Signal(SIGNAL_KILL))
        } else {
            (polite, ExitReason::Code(0))
        };
        let turn = Turn::Ends(reason);
        let run = program.run;
        Some(Plan {
            after,
            object,
            run,
            turn,
        })
    }

    /// Sends a signal.
    pub(crate) fn signal(&mut self, object: ObjectId, signal: u8) -> Option<Plan> {
        let program = self.objects.get(&object).filter(|it| it.lives())?;
        let is_deaf = matches!(&program.launch.program.arguments[..], [one] if one == "deaf");
        let ends = signal == SIGNAL_KILL || (signal == SIGNAL_TERMINATE && !is_deaf);
        let turn = Turn::Ends(ExitReason::Signal(signal));
        let (after, run) = (Duration::from_millis(1), program.run);
        ends.then_some(Plan {
            after,
            object,
            run,
            turn,
        })
    }

    /// One probe of an object: why it fails, if it does.
    pub(crate) fn probe(&self, now: Instant, object: ObjectId) -> Result<(), String> {
        let program = self.objects.get(&object).filter(|it| it.acts(now));
        let program = program.ok_or("it does not run")?;
        let words = &program.launch.program.arguments;
        let second = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
        let sick = second(1).unwrap_or(0)..second(2).unwrap_or(u64::MAX);
        let ran = now.since(program.since).as_secs();
        if words.first().is_some_and(|word| word == "sick") && sick.contains(&ran) {
            return Err("it feels sick".to_string());
        }
        Ok(())
    }

    /// Forgets an object.
    pub(crate) fn discard(&mut self, object: ObjectId) {
        self.objects.remove(&object);
    }

    /// The machine lost its power: what had ended is on its disk, all else is gone.
    pub(crate) fn crash(&mut self) {
        self.objects.retain(|_, program| !program.lives());
    }

    /// What a new daemon finds.
    pub(crate) fn survivors(&self) -> Vec<(ObjectId, Option<DriverReport>)> {
        self.objects
            .iter()
            .map(|(object, program)| (*object, program.report.clone()))
            .collect()
    }

    /// What objects use: made up, but the same each time.
    pub(crate) fn measure(&self, now: Instant, objects: &[ObjectId]) -> Vec<(ObjectId, Usage)> {
        let usage = |object: &ObjectId| {
            let program = self.objects.get(object).filter(|it| it.lives())?;
            let ran_us = u64::try_from(now.since(program.since).as_micros()).unwrap_or(u64::MAX);
            let usage = Usage {
                cpu_us: ran_us / 10,
                memory_bytes: 16 << 20,
                processes: 1,
            };
            Some((*object, usage))
        };
        objects.iter().filter_map(usage).collect()
    }
}

enum Life {
    Runs,
    EndsAfter(Duration, ExitReason),
    Never(String),
}

fn life(arguments: &[String]) -> Life {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u32>().unwrap_or(1);
    let seconds = |text: &str| Duration::from_secs(number(text).into());
    match words[..] {
        ["serve" | "deaf" | "sick", ..] => Life::Runs,
        ["work", after] => Life::EndsAfter(seconds(after), ExitReason::Code(0)),
        ["work", after, code] => {
            let code = u8::try_from(number(code)).unwrap_or(1);
            Life::EndsAfter(seconds(after), ExitReason::Code(code))
        }
        ["crash", after] => Life::EndsAfter(
            Duration::from_millis(number(after).into()),
            ExitReason::Signal(SIGNAL_SEGMENTATION),
        ),
        ["hungry", after] => Life::EndsAfter(seconds(after), ExitReason::OutOfMemory),
        [program, ..] => Life::Never(format!("{program}: not found")),
        [] => Life::Never("nothing to run".to_string()),
    }
}

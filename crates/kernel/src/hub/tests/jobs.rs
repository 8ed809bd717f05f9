//! Apps with a schedule, on the node that supervises them.

use wire::call::{Inspect, Inspection, StartApp};
use wire::job::{Run as JobRun, Schedule};

use super::*;

const MINUTE_MS: u64 = 60_000;

fn every_minute(name: &str) -> AppSpec {
    let mut spec = spec(name);
    spec.schedule = Some(Schedule::Every {
        interval_ms: MINUTE_MS,
    });
    spec
}

fn every_second(name: &str) -> AppSpec {
    let mut spec = spec(name);
    spec.schedule = Some(Schedule::Every { interval_ms: 1_000 });
    spec
}

impl Bench {
    fn runs(&self, name: &str) -> &[JobRun] {
        let record = self.kernel.directory.get(AppId::of_name(name));
        record.map_or(&[], |record| &record.job.runs)
    }

    /// The program of each object that was started has ended, after it ran for a while.
    fn end_programs(&mut self, code: u8) {
        let wall = UnixMillis(self.wall());
        for object in self.launched() {
            let started = DriverReport::Running {
                pid: 1,
                started: wall,
                protections_off: Vec::new(),
            };
            let exited = DriverReport::Exited(Exit {
                reason: ExitReason::Code(code),
                at: wall,
                asked: false,
            });
            for report in [started, exited] {
                self.happen(Input::Driver { object, report });
            }
        }
    }

    /// Which objects were started since the last time.
    fn launched(&mut self) -> Vec<ObjectId> {
        let launch = |it: &Output| match it {
            Output::Launch(launch) => Some(launch.object),
            _ => None,
        };
        let objects = self.outputs.iter().filter_map(launch).collect();
        self.outputs.clear();
        objects
    }

    fn inspect(&mut self, name: &str) -> Inspection {
        let call = self.call(Inspect {
            target: name.into(),
        });
        match self.reply(call) {
            Some(Ok(Response::Inspect(inspection))) => inspection,
            other => panic!("{other:?}"),
        }
    }

    fn succeed(&mut self, request: impl Into<Request>) -> Response {
        let call = self.call(request);
        self.reply(call).expect("at once").expect("it is done")
    }

    fn make(&mut self, spec: AppSpec) {
        let attach = false;
        self.succeed(Run { spec, attach });
    }

    /// What the wall clock shows that nobody has set.
    fn wall(&self) -> u64 {
        WALL + self.now.as_micros() / 1000
    }

    /// The wall clock is set.
    fn set_wall(&mut self, wall_ms: u64) {
        self.happen(Input::Wall(UnixMillis(wall_ms)));
    }
}

#[test]
fn a_run_begins_when_it_is_due_and_is_remembered() {
    let mut bench = Bench::new(&[]);
    let made = bench.wall();
    let run = Run {
        spec: every_minute("backup"),
        attach: false,
    };
    let Response::Run(started) = bench.succeed(run) else {
        panic!("another answer");
    };
    assert_eq!(started.next, Some(UnixMillis(made + MINUTE_MS)));
    assert_eq!(bench.launched(), []);
    bench.pass(59);
    assert_eq!(bench.launched(), [], "it is not due yet");
    bench.pass(1);
    assert_eq!(
        bench
            .outputs
            .iter()
            .filter(|it| matches!(it, Output::Launch(_)))
            .count(),
        1
    );
    bench.end_programs(3);
    let told = bench.inspect("backup");
    assert_eq!(told.next, Some(UnixMillis(made + 2 * MINUTE_MS)));
    let [one] = &told.runs[..] else {
        panic!("{:?}", told.runs);
    };
    assert_eq!((one.number, one.due), (1, UnixMillis(made + MINUTE_MS)));
    let attempt = one.attempt.as_ref().expect("it had an object");
    let exit = attempt.exit.as_ref().expect("it has ended");
    assert_eq!(exit.reason, ExitReason::Code(3));
    for number in 2..=12 {
        bench.pass(60);
        assert_eq!(
            bench.runs("backup").last().map(|it| it.number),
            Some(number)
        );
        bench.end_programs(0);
    }
    assert_eq!(bench.runs("backup").len(), 8);
    let objects = bench.inspect("backup").objects.len();
    assert_eq!(objects, 1, "what former runs left is removed");
}

#[test]
fn what_is_due_while_the_former_run_goes_on_is_skipped_and_counted() {
    let mut bench = Bench::new(&[]);
    bench.make(every_minute("backup"));
    bench.pass(60);
    let running = bench.launched();
    bench.pass(150);
    assert_eq!(bench.launched(), [], "one at a time");
    let [one] = bench.runs("backup") else {
        panic!("{:?}", bench.runs("backup"));
    };
    assert_eq!(one.skipped, 2);
    bench.outputs.push(Output::Launch(Box::new(
        bench
            .kernel
            .objects
            .launch_order(running[0], &[])
            .expect("it runs"),
    )));
    bench.end_programs(0);
    assert_eq!(
        bench.runs("backup").len(),
        1,
        "what was skipped is not made up for"
    );
    bench.pass(30);
    assert_eq!(bench.runs("backup").len(), 2);
}

/// The daemon of the only node was away for an hour: sixty runs at once would be no help.
#[test]
fn after_an_outage_there_is_one_run() {
    let mut bench = Bench::new(&[]);
    bench.make(every_minute("backup"));
    let made = bench.wall();
    let mut bench = bench.restart(|config| config.wall.0 = made + 60 * MINUTE_MS + 20_000);
    let [one] = bench.runs("backup") else {
        panic!("{:?}", bench.runs("backup"));
    };
    assert_eq!(
        one.due,
        UnixMillis(made + MINUTE_MS),
        "the first that was missed"
    );
    assert_eq!(bench.launched().len(), 1);
    bench.pass(39);
    assert_eq!(bench.launched(), []);
    bench.pass(1);
    assert_eq!(
        bench.runs("backup")[0].skipped,
        1,
        "the next is due at its own time"
    );
}

#[test]
fn a_run_survives_the_daemon_that_had_not_placed_it_and_begins_once() {
    let mut bench = Bench::new(&[]);
    bench.make(every_minute("backup"));
    bench.pass(60);
    let started = bench.launched();
    let before = bench.runs("backup").to_vec();
    let mut bench = bench.restart(|config| {
        config.wall.0 += 63_000;
        config.survivors = started.iter().map(|it| (*it, None)).collect();
    });
    assert_eq!(bench.launched(), [], "it runs already");
    let numbers = |runs: &[JobRun]| runs.iter().map(|it| it.number).collect::<Vec<_>>();
    assert_eq!(numbers(bench.runs("backup")), numbers(&before));
}

#[test]
fn a_clock_that_is_set_back_repeats_nothing() {
    let mut bench = Bench::new(&[]);
    bench.make(every_minute("backup"));
    bench.pass(60);
    bench.end_programs(0);
    let wall = bench.wall();
    bench.set_wall(wall - 30_000);
    bench.pass(30);
    bench.end_programs(0);
    assert_eq!(bench.runs("backup").len(), 1, "that minute has had its run");
    bench.pass(60);
    assert_eq!(bench.runs("backup").len(), 2);
    // By a day: it had been wrong, and what is due is due again.
    bench.end_programs(0);
    bench.set_wall(wall - 1440 * MINUTE_MS);
    for number in 3..=5 {
        bench.pass(60);
        assert_eq!(bench.runs("backup").len(), number);
        bench.end_programs(0);
    }
    // And one that was never set begins nothing, whatever year it shows.
    bench.set_wall(1000);
    bench.pass(3600);
    assert_eq!(bench.runs("backup").len(), 5);
}

#[test]
fn a_clock_that_is_set_ahead_makes_due_what_lies_between() {
    let mut bench = Bench::new(&[]);
    bench.make(every_minute("backup"));
    let wall = bench.wall();
    bench.set_wall(wall + 60 * MINUTE_MS);
    bench.pass(1);
    assert_eq!(bench.launched().len(), 1, "at once, and once");
}

#[test]
fn a_stopped_app_is_paused_and_start_on_an_idle_one_runs_it_now() {
    let mut bench = Bench::new(&[]);
    let target = || "backup".into();
    bench.make(every_minute("backup"));
    bench.succeed(StopApp {
        target: target(),
        grace_ms: None,
    });
    bench.pass(300);
    assert_eq!(bench.inspect("backup").next, None);
    assert_eq!(bench.runs("backup"), []);
    let resumed = bench.wall();
    bench.succeed(StartApp { target: target() });
    assert_eq!(
        bench.runs("backup"),
        [],
        "what was due meanwhile is not made up for"
    );
    assert_eq!(
        bench.inspect("backup").next,
        Some(UnixMillis(resumed + MINUTE_MS))
    );
    bench.launched();
    let call = bench.call(StartApp { target: target() });
    assert_eq!(bench.runs("backup").len(), 1);
    bench.end_programs(0);
    assert!(matches!(bench.reply(call), Some(Ok(_))));
    let next = bench.inspect("backup").next;
    assert_eq!(
        next,
        Some(UnixMillis(resumed + MINUTE_MS)),
        "its times stay"
    );
}

#[test]
fn an_app_that_runs_once_is_done_then() {
    let mut bench = Bench::new(&[]);
    let wall = bench.wall();
    let mut once = spec("once");
    once.schedule = Some(Schedule::At {
        at: UnixMillis(wall + 5_000),
    });
    once.remove_when_done = true;
    bench.succeed(Run {
        spec: once.clone(),
        attach: false,
    });
    bench.pass(5);
    bench.end_programs(0);
    assert_eq!(bench.inspect("once").next, None);
    bench.pass(30);
    let record = bench.kernel.directory.get(AppId::of_name("once"));
    assert_eq!(
        record.map(|it| it.wanted.spec.clone()),
        Some(None),
        "it has removed itself"
    );
    once.name = "late".into();
    bench.pass(60);
    let call = bench.call(Run {
        spec: once,
        attach: false,
    });
    let refused = bench.reply(call).expect("at once").expect_err("refused");
    assert!(refused.detail.contains("was 90 s ago"), "{refused:?}");
}

#[test]
fn what_a_schedule_cannot_be_is_refused_with_what_to_do() {
    let mut bench = Bench::new(&[]);
    let mut refusal = |edit: &dyn Fn(&mut AppSpec)| {
        let mut spec = every_minute("backup");
        edit(&mut spec);
        let call = bench.call(Run {
            spec,
            attach: false,
        });
        let refused = bench.reply(call).expect("at once").expect_err("refused");
        assert_eq!(refused.code, ProblemCode::Invalid);
        alloc::format!("{refused}")
    };
    assert!(refusal(&|it| it.replicas = 2).contains("leave --replicas out"));
    assert!(refusal(&|it| it.restart = Restart::Always).contains("on-failure"));
    assert!(refusal(&|it| it.remove_when_done = true).contains("leave --rm out"));
    let cron = |expression: &str| {
        Some(Schedule::Cron {
            expression: expression.into(),
        })
    };
    assert!(refusal(&|it| it.schedule = cron("0 0 31 2 *")).contains("never due"));
    assert!(refusal(&|it| it.schedule = cron("0 3 * *")).contains("30 3 * * mon-fri"));
    // And what is settled when an app is made stays.
    bench.make(every_minute("backup"));
    let call = bench.call(Scale {
        target: "backup".into(),
        replicas: 3,
    });
    assert!(bench.reply(call).expect("at once").is_err());
    let call = bench.call(Apply {
        spec: Box::new(spec("backup")),
        expected: Expected::Anything,
        roll_back: true,
    });
    let refused = bench.reply(call).expect("at once").expect_err("refused");
    assert!(refused.detail.contains("settled"), "{refused:?}");
}

#[test]
fn another_schedule_is_gone_by_from_now_on() {
    let mut bench = Bench::new(&[]);
    bench.make(every_minute("backup"));
    bench.pass(60);
    bench.end_programs(0);
    bench.pass(50);
    let mut hasty = every_minute("backup");
    hasty.schedule = Some(Schedule::Every { interval_ms: 7_000 });
    let wall = bench.wall();
    bench.succeed(Apply {
        spec: Box::new(hasty),
        expected: Expected::Anything,
        roll_back: true,
    });
    assert_eq!(bench.launched(), [], "nothing that was due before");
    assert_eq!(bench.inspect("backup").next, Some(UnixMillis(wall + 7_000)));
}

/// Two nodes held themselves for the supervisor; a run that one of them had begun was begun again by
/// the other, whose record was newer.
#[test]
fn a_newer_record_without_a_run_does_not_undo_it() {
    let mut bench = Bench::new(&[2]);
    let name = bench.app_of(1);
    bench.call(Run {
        spec: every_second(&name),
        attach: false,
    });
    bench.pass(2);
    let app = AppId::of_name(&name);
    let mut other = bench.kernel.directory.get(app).expect("it is here").clone();
    bench.answers(2);
    bench.pass(1);
    assert_eq!(bench.runs(&name).len(), 1);
    other.version = Version {
        millis: bench.wall() + 1,
        counter: 0,
        node: 2,
    };
    let answer = bench.ask(2, store(other));
    let Some(Ok(Answer::Record(Some(record)))) = answer else {
        panic!("{answer:?}");
    };
    assert_eq!(record.job.runs.len(), 1, "the other is told of the run");
    assert_eq!(bench.runs(&name).len(), 1);
}

/// A run is begun where others know of it, or they would begin it again.
#[test]
fn a_run_is_placed_once_another_guardian_has_it() {
    let mut bench = Bench::new(&[2]);
    let name = bench.app_of(1);
    bench.call(Run {
        spec: every_second(&name),
        attach: false,
    });
    bench.pass(2);
    bench.outputs.clear();
    bench.answers(2);
    bench.pass(1);
    let is_store = |ask: &Ask| matches!(ask, Ask::StoreRecord(it) if !it.job.runs.is_empty());
    let question = bench.messages(2).into_iter().find_map(|it| match it {
        Message::Ask { question, ask } if is_store(&ask) => Some(question),
        _ => None,
    });
    let question = question.expect("the other is told of the run");
    assert_eq!(bench.launched(), [], "and it does not begin yet");
    let answer = Box::new(Ok(Answer::Done));
    bench.tell(2, &Message::Answer { question, answer });
    assert_eq!(bench.launched().len(), 1, "now it does");
}

/// A program of an app with this deadline and restart policy, that has started.
fn with_deadline(restart: Restart) -> (Bench, ObjectId) {
    let mut bench = Bench::new(&[]);
    let mut slow = spec("slow");
    (slow.deadline_ms, slow.restart) = (Some(30_000), restart);
    bench.call(Run {
        spec: slow,
        attach: true,
    });
    let object = bench.launched()[0];
    bench.start_program(object);
    (bench, object)
}

impl Bench {
    fn start_program(&mut self, object: ObjectId) {
        let report = DriverReport::Running {
            pid: 1,
            started: UnixMillis(self.wall()),
            protections_off: Vec::new(),
        };
        self.happen(Input::Driver { object, report });
    }

    fn stops(&mut self) -> usize {
        let is_stop = |it: &&Output| matches!(it, Output::Stop { .. });
        let count = self.outputs.iter().filter(is_stop).count();
        self.outputs.clear();
        count
    }

    fn facts(&mut self, object: ObjectId) -> ObjectFacts {
        self.kernel
            .objects
            .get(object)
            .expect("it is here")
            .facts
            .clone()
    }

    fn asked_exit(&mut self, object: ObjectId, reason: ExitReason) {
        let report = DriverReport::Exited(Exit {
            reason,
            at: UnixMillis(self.wall()),
            asked: true,
        });
        self.happen(Input::Driver { object, report });
    }
}

#[test]
fn a_program_that_runs_too_long_is_ended_and_has_failed() {
    let (mut bench, object) = with_deadline(Restart::No);
    bench.pass(29);
    assert_eq!(bench.stops(), 0);
    bench.pass(1);
    assert_eq!(bench.stops(), 1);
    bench.asked_exit(object, ExitReason::Code(0));
    let facts = bench.facts(object);
    assert_eq!(facts.phase, Phase::Ended);
    let exit = facts.last_exit.expect("it has ended");
    assert_eq!((exit.reason, exit.asked), (ExitReason::Overdue, false));
    bench.pass(60);
    assert_eq!(bench.stops(), 0);
}

/// Each try is longer than what takes back the back-off, so the retries had no end.
#[test]
fn a_deadline_counts_as_a_failure_each_time() {
    let retries_max = Some(1);
    let (mut bench, object) = with_deadline(Restart::OnFailure { retries_max });
    bench.pass(30);
    bench.asked_exit(object, ExitReason::Signal(15));
    assert_eq!(bench.facts(object).phase, Phase::Waiting);
    bench.pass(1);
    bench.start_program(object);
    bench.stops();
    bench.pass(30);
    assert_eq!(bench.stops(), 1, "the second try has as long");
    bench.asked_exit(object, ExitReason::Signal(15));
    assert_eq!(bench.facts(object).phase, Phase::Ended);
}

#[test]
fn a_program_that_ends_in_time_or_is_stopped_is_not_overdue() {
    let (mut bench, object) = with_deadline(Restart::No);
    bench.pass(20);
    bench.asked_exit(object, ExitReason::Code(0));
    bench.pass(60);
    assert_eq!(bench.stops(), 0);
    let (mut bench, object) = with_deadline(Restart::No);
    bench.call(StopApp {
        target: "slow".into(),
        grace_ms: Some(60_000),
    });
    assert_eq!(bench.stops(), 1);
    bench.pass(31);
    assert_eq!(bench.stops(), 0, "it was asked to end already");
    bench.asked_exit(object, ExitReason::Code(0));
    let exit = bench.facts(object).last_exit.expect("it has ended");
    assert_eq!(exit.reason, ExitReason::Code(0));
}

/// A daemon that was restarted again and again let a program run for ever.
#[test]
fn a_deadline_counts_from_the_start_whoever_saw_it() {
    let (mut bench, object) = with_deadline(Restart::No);
    bench.pass(20);
    let started = bench.facts(object).started.expect("it runs");
    let wall = bench.wall();
    let report = DriverReport::Running {
        pid: 1,
        started,
        protections_off: Vec::new(),
    };
    let mut bench = bench.restart(|config| {
        config.wall.0 = wall;
        config.survivors = vec![(object, Some(report))];
    });
    bench.pass(9);
    assert_eq!(bench.stops(), 0);
    bench.pass(1);
    assert_eq!(bench.stops(), 1);
}

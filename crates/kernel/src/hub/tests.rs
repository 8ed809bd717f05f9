//! One kernel, and peers that are only what they say.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test looks for one thing among all that is said"
)]

use alloc::string::String;
use alloc::vec;
use core::time::Duration;

use ed25519_dalek::{Signer, SigningKey};
use wire::call::{
    AppList, Apply, Change, Expected, NodeDown, NodeDrain, NodeRemove, Remove, Run, Scale, StopApp,
};
use wire::driver::DriverReport;
use wire::fact::{Exit, ExitReason, ObjectFacts, Phase, Platform};
use wire::id::CloudId;
use wire::peer::{News, ObjectFilter, ObjectReport, Placement, Signature, StatementBody, Wanted};
use wire::spec::{AppSpec, Program, REPLICAS_MAX, Resources, Restart};
use wire::tenancy::{Ballot, SeatAsk, Tenancy, Title};

mod disk;
mod jobs;
mod records;
mod twice;
mod upgrade;

use super::*;
use crate::directory::Joined;
use crate::limits::{RECORDS_MAX, SURPLUS_MAX, TOMBSTONES_MAX};
use crate::world::{CallId, Ending};

const WALL: u64 = 1_800_000_000_000;
const YEAR: u64 = 365 * 86_400_000;

fn key(letter: u8) -> SigningKey {
    SigningKey::from_bytes(&[letter; 32])
}

fn node(letter: u8) -> NodeId {
    NodeId(key(letter).verifying_key().to_bytes())
}

fn cloud() -> CloudId {
    CloudId(node(0).0)
}

/// The cloud key admits `who`.
fn admit(who: u8) -> Statement {
    let body = StatementBody::Admission {
        cloud: cloud(),
        node: node(who),
        ticket: None,
        at: UnixMillis(1),
    };
    let bytes = body.signed_bytes().expect("encodes");
    Statement {
        body,
        signer: cloud().0,
        signature: Signature(key(0).sign(&bytes).to_bytes()),
    }
}

fn config(letter: u8) -> Config {
    Config {
        node: node(letter),
        cloud: cloud(),
        name: "ada".into(),
        labels: BTreeMap::new(),
        program_version: String::new(),
        platform: Platform {
            os: "linux".into(),
            arch: "x86_64".into(),
            kernel: String::new(),
        },
        addresses: Vec::new(),
        cpu_millis: 4000,
        memory_bytes: 1 << 30,
        hidden_directories: Vec::new(),
        wall: UnixMillis(WALL),
        seed: [7; 32],
        statements: Vec::new(),
        facts: Vec::new(),
        stored: Vec::new(),
        survivors: Vec::new(),
    }
}

/// Node 1 under test, and what it did.
struct Bench {
    kernel: Kernel,
    now: Instant,
    disk_is_full: bool,
    rows: BTreeMap<(Table, Vec<u8>), Vec<u8>>,
    outputs: Vec<Output>,
    questions: u64,
}

impl Bench {
    /// Of a cloud with these peers, all of them up.
    fn new(peers: &[u8]) -> Self {
        let mut config = config(1);
        config.statements = core::iter::once(1)
            .chain(peers.iter().copied())
            .map(admit)
            .collect();
        let mut bench = Self::start(config);
        for peer in peers {
            bench.answers(*peer);
        }
        bench.pass(2);
        // They have agreed on that long ago.
        bench.kernel.shifted.clear();
        bench
    }

    fn start(config: Config) -> Self {
        let now = Instant::from_micros(1);
        let mut bench = Self {
            kernel: Kernel::new(now, config),
            now,
            disk_is_full: false,
            rows: BTreeMap::new(),
            outputs: Vec::new(),
            questions: 0,
        };
        bench.carry();
        bench
    }

    /// A new life on the same disk.
    fn restart(self, edit: impl FnOnce(&mut Config)) -> Self {
        let mut config = config(1);
        let row = |((table, key), value)| (table, key, value);
        config.stored = self.rows.into_iter().map(row).collect();
        edit(&mut config);
        Self::start(config)
    }

    /// The peer announces itself.
    fn answers(&mut self, peer: u8) {
        let (from, bytes) = (node(peer), vec![0x16, 0, 0, 0]);
        self.happen(Input::Datagram { from, bytes });
    }

    fn happen(&mut self, input: Input) {
        self.kernel.handle(self.now, input);
        self.carry();
    }

    fn tell(&mut self, from: u8, message: &Message) {
        let (from, bytes) = (node(from), wire::encode(message).expect("encodes"));
        self.happen(Input::Message { from, bytes });
    }

    /// What the node answers to a peer, if it does at once.
    fn ask(&mut self, from: u8, ask: Ask) -> Option<Result<Answer, Problem>> {
        self.questions += 1;
        let (question, ask) = (self.questions, Box::new(ask));
        self.outputs.clear();
        self.tell(from, &Message::Ask { question, ask });
        self.messages(from).into_iter().find_map(|it| match it {
            Message::Answer {
                question: of,
                answer,
            } if of == question => Some(*answer),
            _ => None,
        })
    }

    fn call(&mut self, request: impl Into<Request>) -> CallId {
        self.questions += 1;
        let (call, request) = (CallId(self.questions), Box::new(request.into()));
        self.happen(Input::Call { call, request });
        call
    }

    fn reply(&self, of: CallId) -> Option<Result<Response, Problem>> {
        self.outputs.iter().find_map(|it| match it {
            Output::Reply { call, result } if *call == of => Some(*result.clone()),
            _ => None,
        })
    }

    fn messages(&self, peer: u8) -> Vec<Message> {
        let said = self.outputs.iter().filter_map(|it| match it {
            Output::Message { to, bytes } if *to == node(peer) => {
                Some(wire::decode(bytes, MESSAGE_BYTES_MAX).expect("decodes"))
            }
            _ => None,
        });
        said.collect()
    }

    fn pass(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        while self.kernel.poll_timeout().is_some_and(|at| at <= end) {
            self.now = self.kernel.poll_timeout().expect("just seen").max(self.now);
            self.kernel.handle_timeout(self.now);
            self.carry();
        }
        self.now = end;
    }

    fn carry(&mut self) {
        while let Some(output) = self.kernel.poll_output() {
            match &output {
                Output::Persist { batch, .. } if self.disk_is_full => {
                    let (batch, reason) = (*batch, "full".into());
                    let input = Input::PersistFailed { batch, reason };
                    self.kernel.handle(self.now, input);
                }
                Output::Persist { batch, writes } => {
                    for write in writes.clone() {
                        let key = (write.table, write.key);
                        match write.value {
                            Some(value) => self.rows.insert(key, value),
                            None => self.rows.remove(&key),
                        };
                    }
                    let batch = *batch;
                    self.kernel.handle(self.now, Input::Persisted { batch });
                }
                _ => {}
            }
            self.outputs.push(output);
        }
    }

    fn alarms(&self) -> Vec<Alarm> {
        let alarm = |it: &Output| match it {
            Output::Alarm { alarm, .. } => Some(*alarm),
            _ => None,
        };
        self.outputs.iter().filter_map(alarm).collect()
    }

    /// An app whose first guardian, of this node and `others`, is the one that is given.
    fn app_of(&self, supervisor: u8) -> String {
        let names = (0..1000).map(|number| alloc::format!("web-{number}"));
        let mut fitting = names
            .filter(|name| self.kernel.supervisor_of(AppId::of_name(name)) == node(supervisor));
        fitting.next().expect("one of a thousand")
    }
}

fn version(millis: u64) -> Version {
    Version {
        millis,
        counter: 0,
        node: 2,
    }
}

fn spec(name: &str) -> AppSpec {
    AppSpec {
        name: name.into(),
        replicas: 1,
        program: Program {
            arguments: vec!["true".into()],
            ..Program::default()
        },
        ports: BTreeMap::new(),
        resources: Resources {
            cpu_millis: 100,
            memory_bytes: 1 << 20,
            processes: 1,
        },
        restart: Restart::No,
        placement: wire::spec::Placement::default(),
        stop: wire::spec::Stop::default(),
        remove_when_done: false,
        on_partition: wire::spec::OnPartition::Available,
        health: None,
        after: Default::default(),
        schedule: None,
        deadline_ms: None,
    }
}

fn record(spec: AppSpec, millis: u64) -> AppRecord {
    let version = version(millis);
    AppRecord {
        app: AppId::of_name(&spec.name),
        version,
        wanted: Wanted::new(spec, version, UnixMillis(millis)),
        objects: Vec::new(),
        objects_born: Version::default(),
        decisions: Vec::new(),
        settled: version,
        begun: Version::default(),
        job: Default::default(),
    }
}

fn object(number: u16, app: &str, host: u8) -> ObjectFacts {
    let mut object = ObjectId([0; 16]);
    [object.0[0], object.0[1]] = number.to_be_bytes();
    ObjectFacts {
        object,
        app: AppId::of_name(app),
        app_name: app.into(),
        index: 0,
        node: node(host),
        epoch: 1,
        revision: 1,
        phase: Phase::Running,
        restarts: 0,
        created: UnixMillis(WALL),
        started: None,
        last_exit: None,
        pid: None,
        protections_off: vec![],
        halted: false,
        revised: Version::default(),
        restart: Restart::No,
        health: None,
        run: 0,
    }
}

fn store(record: AppRecord) -> Ask {
    Ask::StoreRecord(Box::new(record))
}

fn refused(answer: Option<Result<Answer, Problem>>) -> Option<ProblemCode> {
    answer?.err().map(|problem| problem.code)
}

/// A record with four thousand million replicas took all memory at the next plan.
#[test]
fn a_record_that_no_node_could_have_written_is_refused() {
    let mut bench = Bench::new(&[2]);
    let name = bench.app_of(1);
    let mut wide = spec(&name);
    wide.replicas = REPLICAS_MAX + 1;
    let answer = bench.ask(2, store(record(wide.clone(), WALL)));
    assert_eq!(refused(answer), Some(ProblemCode::Invalid));
    let mut renamed = record(spec(&name), WALL);
    renamed.app = AppId::of_name("other");
    let answer = bench.ask(2, store(renamed));
    assert_eq!(refused(answer), Some(ProblemCode::Invalid));
    assert_eq!(bench.alarms(), [Alarm::RecordUnfit]);
    assert_eq!(bench.kernel.directory.iter().count(), 0);
    let answer = bench.ask(2, store(record(spec(&name), WALL)));
    assert_eq!(answer, Some(Ok(Answer::Done)));
}

fn launch(bench: &mut Bench, lease: u64, spec: AppSpec, millis: u64) -> Option<ProblemCode> {
    let reserve = Ask::Reserve {
        lease,
        app: AppId::of_name(&spec.name),
        resources: spec.resources,
        ports: Vec::new(),
    };
    assert!(matches!(bench.ask(2, reserve), Some(Ok(_))));
    let object = Placement {
        object: ObjectId([u8::try_from(lease).expect("few"); 16]),
        index: 0,
        epoch: 1,
        wanted: record(spec, millis).wanted,
        title: None,
        run: 0,
    };
    let object = Box::new(object);
    refused(bench.ask(2, Ask::Launch { lease, object }))
}

#[test]
fn a_host_starts_nothing_that_no_node_could_have_wished() {
    let mut bench = Bench::new(&[2]);
    let mut wide = spec("web");
    wide.replicas = u32::MAX;
    let invalid = Some(ProblemCode::Invalid);
    assert_eq!(launch(&mut bench, 1, wide, WALL), invalid);
    assert_eq!(launch(&mut bench, 2, spec("web"), WALL + 2 * YEAR), invalid);
    assert_eq!(launch(&mut bench, 3, spec("web"), WALL), None);
}

/// Only `StoreRecord` looked at it: a version from next century that came by another way was the
/// clock of this node from then on, and all others refused what it wrote.
#[test]
fn nothing_that_a_peer_says_sets_the_clock_years_ahead() {
    let mut bench = Bench::new(&[2]);
    let future = record(spec("web"), WALL + 2 * YEAR);
    assert_eq!(bench.kernel.take_record(future.clone()), Joined::Refused);
    bench.kernel.fetched(future.app, Some(future));
    bench.kernel.observe(version(u64::MAX));
    assert!(bench.kernel.tick().millis < WALL + 60_000);
    bench.carry();
    assert_eq!(bench.alarms().last(), Some(&Alarm::RecordFuture));
}

/// A machine whose clock was wrong kept writing as of years ahead after it had been set right.
#[test]
fn a_wall_clock_that_is_set_back_by_years_begins_the_versions_anew() {
    let mut bench = Bench::new(&[2]);
    let name = bench.app_of(1);
    bench.happen(Input::Wall(UnixMillis(WALL + 5 * YEAR)));
    let future = record(spec(&name), WALL + 5 * YEAR);
    let app = future.app;
    assert_eq!(bench.ask(2, store(future)), Some(Ok(Answer::Done)));
    bench.kernel.tick();
    let kept = |bench: &Bench| bench.kernel.directory.get(app).expect("kept").clone();
    let check = |bench: &mut Bench| {
        let record = kept(bench);
        assert!(record.wanted.version.millis < WALL + YEAR, "{record:?}");
        assert!(record.version.millis < WALL + YEAR);
        assert_ne!(record.version, record.wanted.version);
        assert!(bench.kernel.tick() > record.version);
    };
    // Before a clock was ever set, it proves nothing.
    let row = (Table::Records, app.0.to_vec());
    let stored = bench.rows.get(&row).cloned();
    bench.happen(Input::Wall(UnixMillis(5)));
    assert!(kept(&bench).version.millis >= WALL + 5 * YEAR);
    bench.happen(Input::Wall(UnixMillis(WALL)));
    check(&mut bench);
    assert_ne!(bench.rows.get(&row), stored.as_ref(), "it is on the disk");
    bench.rows.insert(row, stored.expect("it was written"));
    let mut bench = bench.restart(|_| {});
    check(&mut bench);
}

#[test]
fn a_full_counter_does_not_repeat_a_version() {
    let mut bench = Bench::new(&[]);
    let full = Version {
        millis: WALL + 60_000,
        counter: u32::MAX,
        node: 2,
    };
    bench.kernel.observe(full);
    let (one, other) = (bench.kernel.tick(), bench.kernel.tick());
    assert!((full.millis, full.counter) < (one.millis, one.counter));
    assert!(one < other);
}

/// A daemon killed before an object was written down gave its port away before it had ended.
#[test]
fn a_node_takes_nothing_while_what_it_does_not_know_still_ends() {
    let stranger = object(7, "web", 1).object;
    let bench = Bench::new(&[2]);
    let mut bench = bench.restart(|config| config.survivors = vec![(stranger, None)]);
    assert!(bench.outputs.contains(&Output::Stop {
        object: stranger,
        grace_ms: 0
    }));
    bench.pass(2);
    bench.answers(2);
    let reserve = |lease| Ask::Reserve {
        lease,
        app: AppId::of_name("other"),
        resources: spec("other").resources,
        ports: vec![8000],
    };
    let answer = bench.ask(2, reserve(1));
    assert_eq!(refused(answer), Some(ProblemCode::Busy));
    bench.happen(Input::Driver {
        object: stranger,
        report: DriverReport::Exited(Exit {
            reason: ExitReason::Signal(9),
            at: UnixMillis(WALL),
            asked: false,
        }),
    });
    assert!(matches!(bench.ask(2, reserve(2)), Some(Ok(_))));
}

/// Node 1 with a running object of an app with this policy, which node 2 asked it to take.
fn host(restart: Restart) -> (Bench, ObjectId) {
    let mut bench = Bench::new(&[2]);
    let mut web = spec("web");
    web.restart = restart;
    assert_eq!(launch(&mut bench, 1, web, WALL), None);
    let launched = bench.outputs.iter().find_map(|it| match it {
        Output::Launch(launch) => Some(launch.object),
        _ => None,
    });
    let object = launched.expect("a node takes what fits");
    let report = DriverReport::Running {
        pid: 7,
        started: UnixMillis(WALL),
        protections_off: vec![],
    };
    bench.happen(Input::Driver { object, report });
    (bench, object)
}

fn stop(object: ObjectId) -> Ask {
    Ask::StopObject {
        object,
        grace_ms: None,
        remove: false,
    }
}

/// An object that was removed while it ended with its node ran again in the next life of the node,
/// and was taken for one that was being ended for good: nobody ended it ever after.
#[test]
fn what_was_removed_while_it_ended_with_its_node_does_not_run_again() {
    let (mut bench, object) = host(Restart::Always);
    bench.call(NodeDown {});
    bench.pass(21);
    assert!(bench.kernel.objects.iter().any(|it| it.suspended));
    let stop = Ask::StopObject {
        object,
        grace_ms: None,
        remove: true,
    };
    assert!(matches!(bench.ask(2, stop), Some(Ok(_))));
    let exit = Exit {
        reason: ExitReason::Code(0),
        at: UnixMillis(WALL),
        asked: false,
    };
    let survivor = (object, Some(DriverReport::Exited(exit)));
    let mut bench = bench.restart(|config| config.survivors = vec![survivor]);
    bench.pass(1);
    let runs = |it: &Output| matches!(it, Output::Launch(_));
    assert!(!bench.outputs.iter().any(runs));
    assert!(bench.kernel.objects.get(object).is_none());
}

/// A full disk kept a node from writing down that it ended its objects: those that are started again
/// only when they fail were taken for done.
#[test]
fn what_was_asked_to_end_in_a_former_life_has_not_ended_by_itself() {
    for asked in [true, false] {
        let (bench, object) = host(Restart::OnFailure { retries_max: None });
        let exit = Exit {
            reason: ExitReason::Code(0),
            at: UnixMillis(WALL),
            asked,
        };
        let survivor = (object, Some(DriverReport::Exited(exit)));
        let mut bench = bench.restart(|config| config.survivors = vec![survivor]);
        bench.pass(1);
        let runs = |it: &Output| matches!(it, Output::Launch(_));
        assert_eq!(bench.outputs.iter().any(runs), asked);
    }
}

/// A node whose power went after it had ended a program, and before it had written that down, took
/// that for an end of the program's own.
#[test]
fn a_program_is_asked_to_end_once_it_is_durable_why() {
    let (mut bench, object) = host(Restart::Always);
    assert!(matches!(bench.ask(2, stop(object)), Some(Ok(_))));
    let at = |what: fn(&Output) -> bool| bench.outputs.iter().position(what);
    let written = at(|it| matches!(it, Output::Persist { .. }));
    let asked = at(|it| matches!(it, Output::Stop { .. }));
    assert!(written.is_some() && written < asked);
}

/// A node that was killed while an app was being stopped forgot for whom it ended the object, and
/// `start` did not start it again.
#[test]
fn who_asked_an_object_to_end_is_remembered_over_a_crash() {
    let (mut bench, object) = host(Restart::No);
    assert!(matches!(bench.ask(2, stop(object)), Some(Ok(_))));
    let exit = Exit {
        reason: ExitReason::Code(0),
        at: UnixMillis(WALL),
        asked: true,
    };
    let survivor = (object, Some(DriverReport::Exited(exit)));
    let bench = bench.restart(|config| config.survivors = vec![survivor]);
    let hosted = bench.kernel.objects.get(object).expect("it is kept");
    assert!(hosted.facts.halted, "it is started again with its app");
}

/// A node that had slept through the night did in the morning what it had been asked in the evening,
/// by callers who had been told that it did not answer.
#[test]
fn a_node_that_wakes_does_not_do_what_it_was_asked_before() {
    let mut bench = Bench::new(&[2]);
    let target = bench.app_of(1);
    bench.ask(2, store(record(spec(&target), WALL)));
    bench.now = bench.now + Duration::from_secs(20);
    let call = Ask::Call(Request::StopApp(StopApp {
        target: target.clone(),
        grace_ms: None,
    }));
    assert_eq!(refused(bench.ask(2, call)), Some(ProblemCode::Busy));
    let kept = bench.kernel.directory.get(AppId::of_name(&target));
    assert!(kept.is_some_and(|it| !it.wanted.stopped));
}

/// That an object of an older app of the name was gone was not written down: a guardian brought it
/// back, and nobody could be asked to forget it again.
#[test]
fn that_an_object_of_an_older_app_is_gone_is_written_down() {
    let mut bench = Bench::new(&[2]);
    let name = bench.app_of(1);
    let facts = object(7, &name, 2);
    let gone = facts.object;
    let mut record = record(spec(&name), WALL);
    record.objects = vec![facts.clone()];
    record.objects_born = record.wanted.born;
    let app = record.app;
    bench.ask(2, store(record));
    let report = ObjectReport {
        facts,
        born: version(WALL - 1),
        removed: true,
    };
    bench.tell(2, &Message::Reports(vec![report]));
    let row = bench.rows.get(&(Table::Records, app.0.to_vec()));
    let kept: AppRecord = wire::disk::unseal(row.expect("kept")).expect("sealed");
    assert!(!kept.objects.iter().any(|it| it.object == gone));
}

/// A word that an answer takes longer came back from a broken link, was sent again half a minute
/// later, and put off the end of a question whose answer had been lost.
#[test]
fn that_an_answer_takes_longer_is_not_said_again_later() {
    let mut bench = Bench::new(&[2]);
    let target = bench.app_of(1);
    let mut kept = record(spec(&target), WALL);
    kept.objects = vec![object(7, &target, 2)];
    bench.ask(2, store(kept));
    let remove = Ask::Call(Request::Remove(Remove {
        target,
        force: true,
    }));
    let answer = bench.ask(2, remove);
    assert!(matches!(answer, Some(Ok(Answer::Later { .. }))));
    let message = Message::Answer {
        question: bench.questions,
        answer: Box::new(answer.expect("just seen")),
    };
    bench.outputs.clear();
    let (to, bytes) = (node(2), wire::encode(&message).expect("encodes"));
    bench.happen(Input::Undelivered { to, bytes });
    bench.pass(4);
    assert!(!bench.messages(2).contains(&message));
}

/// Two nodes that did not see each other each ran an app of one name. The caller of the one that lost
/// heard that it ran, with the objects of the other.
#[test]
fn a_run_whose_name_became_another_apps_says_so_and_leaves_that_alone() {
    let mut bench = Bench::new(&[2]);
    let name = bench.app_of(1);
    let app = AppId::of_name(&name);
    let mut old = record(spec(&name), WALL - 1);
    old.wanted.spec = None;
    bench.ask(2, store(old));
    let call = bench.call(Run {
        spec: spec(&name),
        attach: false,
    });
    assert_eq!(bench.reply(call), None, "the program does not run yet");
    let mut other = record(spec(&name), WALL + 60_000);
    other.objects = vec![object(7, &name, 2)];
    other.objects_born = other.wanted.born;
    bench.ask(2, store(other));
    let code = bench.reply(call).and_then(|it| it.err()).map(|it| it.code);
    assert_eq!(code, Some(ProblemCode::Conflict));
    let kept = bench.kernel.directory.get(app);
    assert!(kept.is_some_and(|it| it.wanted.spec.is_some()));
}

/// A caller whose node was removed meanwhile heard that it had been forbidden what others did.
#[test]
fn a_call_that_a_removed_node_had_begun_is_not_called_forbidden() {
    let mut bench = Bench::new(&[2]);
    let target = bench.app_of(1);
    bench.ask(2, store(record(spec(&target), WALL)));
    let call = bench.call(Scale {
        target,
        replicas: 2,
    });
    assert_eq!(bench.reply(call), None, "no program runs yet");
    let body = StatementBody::Removal {
        cloud: cloud(),
        node: node(1),
        keeps: vec![],
        at: UnixMillis(WALL),
    };
    let bytes = body.signed_bytes().expect("encodes");
    let removal = Statement {
        body,
        signer: node(2).0,
        signature: Signature(key(2).sign(&bytes).to_bytes()),
    };
    let news = News {
        statements: vec![removal],
        facts: vec![],
    };
    bench.tell(2, &Message::Rumors(news));
    let code = bench.reply(call).and_then(|it| it.err()).map(|it| it.code);
    assert_eq!(code, Some(ProblemCode::Unreachable));
}

/// A drained node that was stopped took objects again once it was back.
#[test]
fn a_drained_node_is_drained_after_it_was_stopped_and_started() {
    let mut bench = Bench::new(&[]);
    bench.call(NodeDrain {
        node: String::new(),
        force: false,
    });
    bench.call(NodeDown {});
    assert!(bench.outputs.contains(&Output::Halt));
    let bench = bench.restart(|_| {});
    let availability = bench.kernel.measurement.availability(node(1));
    assert_eq!(availability, Availability::Draining);
}

/// A host could report objects without end into the record of an app.
/// Of two who had seen the same app, the second one's change was made of what the first had replaced.
#[test]
fn two_who_change_an_app_at_once_do_not_undo_each_other() {
    let mut bench = Bench::new(&[]);
    let mut apply = |memory_bytes: u64, expected: Expected| {
        let mut spec = spec("web");
        spec.resources.memory_bytes = memory_bytes;
        let apply = Apply {
            spec: spec.into(),
            expected,
            roll_back: true,
        };
        let call = bench.call(apply);
        match bench.reply(call).expect("it is answered") {
            Ok(Response::Apply(applied)) => Ok((applied.change, applied.version)),
            Ok(other) => panic!("{other:?}"),
            Err(problem) => Err(problem.code),
        }
    };
    let (change, first) = apply(1 << 20, Expected::Absent).expect("it is new");
    assert_eq!(change, Change::Created);
    let again = apply(1 << 20, Expected::Absent);
    assert_eq!(again, Err(ProblemCode::Conflict));
    let same = apply(1 << 20, Expected::Anything);
    assert_eq!(same, Ok((Change::Unchanged, first)));
    let (change, second) = apply(2 << 20, Expected::Version(first)).expect("it was so");
    assert_eq!(change, Change::Changed);
    assert!(second > first);
    let late = apply(3 << 20, Expected::Version(first));
    assert_eq!(late, Err(ProblemCode::Conflict));
    let third = apply(3 << 20, Expected::Version(second));
    assert_eq!(third.map(|(change, _)| change), Ok(Change::Changed));
}

#[test]
fn a_record_holds_only_so_many_objects() {
    let mut bench = Bench::new(&[2]);
    let name = bench.app_of(1);
    let record = record(spec(&name), WALL);
    let (app, born) = (record.app, record.wanted.born);
    bench.ask(2, store(record));
    let most = SURPLUS_MAX + 2;
    let report = |number| ObjectReport {
        facts: object(number, &name, 2),
        born,
        removed: false,
    };
    let reports = (0..u16::try_from(most + 50).expect("fits")).map(report);
    bench.tell(2, &Message::Reports(reports.collect()));
    let held = bench.kernel.directory.get(app).expect("kept").objects.len();
    assert_eq!(held, most);
}

/// Measurements that the world had not answered were remembered without end.
#[test]
fn only_so_many_measurements_go_on_at_one_time() {
    let mut bench = Bench::new(&[2]);
    assert_eq!(launch(&mut bench, 1, spec("web"), WALL), None);
    let usage = || Ask::Usage {
        filter: ObjectFilter::Every,
    };
    let mut answer = None;
    let mut measured = 0;
    while answer.is_none() && measured < 1000 {
        measured += 1;
        answer = bench.ask(2, usage());
    }
    assert_eq!(refused(answer), Some(ProblemCode::Busy));
}

/// What was reported where stayed for every app that ever had an object here.
#[test]
fn nothing_is_remembered_of_apps_without_objects() {
    let mut bench = Bench::new(&[2]);
    let name = bench.app_of(2);
    assert_eq!(launch(&mut bench, 1, spec(&name), WALL), None);
    assert_eq!(bench.kernel.reported_to.len(), 1);
    let object = ObjectId([1; 16]);
    let stop = Ask::StopObject {
        object,
        grace_ms: None,
        remove: true,
    };
    bench.ask(2, stop);
    let exit = Exit {
        reason: ExitReason::Code(0),
        at: UnixMillis(WALL),
        asked: false,
    };
    let report = DriverReport::Exited(exit);
    bench.happen(Input::Driver { object, report });
    bench.pass(11);
    assert_eq!(bench.kernel.reported_to.len(), 0);
}

/// Tombstones of a month filled the directory, and every `run` was refused.
#[test]
fn apps_that_come_and_go_leave_room_for_others() {
    let mut bench = Bench::new(&[]);
    for number in 0..u32::try_from(RECORDS_MAX).expect("fits") {
        let mut gone = record(
            spec(&alloc::format!("gone-{number}")),
            WALL + u64::from(number),
        );
        gone.wanted.spec = None;
        assert_eq!(bench.kernel.take_record(gone), Joined::Changed);
    }
    let run = || Run {
        spec: spec("web"),
        attach: true,
    };
    let call = bench.call(run());
    assert!(matches!(bench.reply(call), Some(Err(problem)) if problem.code == ProblemCode::Busy));
    bench.pass(11);
    assert_eq!(bench.kernel.directory.iter().count(), TOMBSTONES_MAX);
    let call = bench.call(run());
    assert!(matches!(bench.reply(call), Some(Ok(Response::Run(_)))));
    let last = alloc::format!("gone-{}", RECORDS_MAX - 1);
    assert!(bench.kernel.directory.get(AppId::of_name(&last)).is_some());
}

/// A member that had said nothing when this node was stopped could not reach it ever after, and
/// could not be removed either.
#[test]
fn a_member_that_has_said_nothing_is_admitted_to_and_can_be_removed() {
    let mut bench = Bench::new(&[2]).restart(|_| {});
    let peer = Output::Peer {
        node: node(2),
        addresses: Vec::new(),
        relays: Vec::new(),
    };
    assert!(bench.outputs.contains(&peer));
    let call = bench.call(NodeRemove {
        node: node(2).to_string(),
        force: true,
    });
    let signing = bench.outputs.iter().find_map(|it| match it {
        Output::Sign { token, bytes } => Some((*token, key(1).sign(bytes).to_bytes())),
        _ => None,
    });
    let (token, signature) = signing.expect("a removal is signed");
    let signature = Signature(signature);
    bench.happen(Input::Signed { token, signature });
    assert!(matches!(
        bench.reply(call),
        Some(Ok(Response::NodeRemove(_)))
    ));
    assert!(!bench.kernel.auth.is_member(node(2)));
}

/// The caller was told that the node was removed, whatever became of the statement.
#[test]
fn a_removal_that_was_not_taken_is_no_success() {
    let mut bench = Bench::new(&[2]);
    let call = bench.call(NodeRemove {
        node: node(2).to_string(),
        force: true,
    });
    let token = bench.outputs.iter().find_map(|it| match it {
        Output::Sign { token, .. } => Some(*token),
        _ => None,
    });
    let (token, signature) = (token.expect("a removal is signed"), Signature([7; 64]));
    bench.happen(Input::Signed { token, signature });
    assert!(matches!(bench.reply(call), Some(Err(_))));
    assert!(bench.kernel.auth.is_member(node(2)));
}

/// A disk that says that all boot numbers are reserved ended every life at its beginning.
#[test]
fn a_node_starts_though_its_boot_numbers_are_used_up() {
    let bench = Bench::new(&[2]);
    let row = (Table::Node, b"node".to_vec());
    let stored = bench.rows.get(&row).expect("written");
    let mut state: NodeState = wire::disk::unseal(stored).expect("sealed");
    state.boot_reserved = u32::MAX;
    let mut bench = bench.restart(|config| {
        let row = wire::disk::seal(&state).expect("seals");
        config.stored.retain(|(table, _, _)| *table != Table::Node);
        config.stored.push((Table::Node, b"node".to_vec(), row));
    });
    let call = bench.call(AppList {
        all: true,
        target: None,
    });
    bench.pass(3);
    assert!(matches!(bench.reply(call), Some(Ok(_))));
}

/// An update that was undone on one side of a cut was a newer wish than a removal on the other, and
/// the removed app came back.
#[test]
fn an_undone_change_is_older_than_whatever_is_wished_meanwhile() {
    let bench = Bench::new(&[]);
    let undone = bench.kernel.just_above(version(WALL));
    assert!(version(WALL) < undone && undone < version(WALL + 1));
    let full = Version {
        counter: u32::MAX,
        ..version(WALL)
    };
    assert!(bench.kernel.just_above(full) > full);
}

/// Whoever had others vote on an app died before it had written that down. The next supervisor knew
/// it from its own seat and found everything in order, and the others never heard of it: who had
/// stood in kept the record for ever.
#[test]
fn that_others_vote_is_written_down_by_whoever_finds_it_out() {
    let mut bench = Bench::new(&[2, 3]);
    let mut spec = spec(&bench.app_of(1));
    spec.on_partition = wire::spec::OnPartition::Once { takeover_ms: 6000 };
    let vote = |of: u8, number: u64| Seat {
        node: node(of),
        number,
    };
    let tenancy = |generation, seats: &[Seat]| Tenancy {
        seats: seats.to_vec(),
        generation,
        term_ms: 4000,
        ..Tenancy::default()
    };
    let mut record = record(spec, WALL);
    let (app, born) = (record.app, record.wanted.born);
    record.wanted.tenancy = Some(tenancy(0, &[vote(1, 1), vote(2, 2)]));
    // Whoever places something finds it out on the way.
    record.wanted.stopped = true;
    bench.ask(2, store(record));
    let Some(Ok(Answer::SeatTaken(seat))) = bench.ask(2, Ask::TakeSeat { app, born }) else {
        panic!("no seat");
    };
    let chosen = Title {
        ballot: Ballot::default(),
        tenancy: tenancy(1, &[vote(1, seat), vote(2, 3), vote(3, 4)]),
    };
    let ask = Box::new(SeatAsk::Learn(chosen.clone()));
    bench.ask(2, Ask::Seat { seat, ask });
    bench.pass(11);
    let wanted = &bench.kernel.directory.get(app).expect("kept").wanted;
    assert_eq!(wanted.tenancy, Some(chosen.tenancy));
}

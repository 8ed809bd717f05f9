//! What the swarm has found, each as short as it can be told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sim::invariants::faults;
use sim::invariants::survey::{self, Kind, Survey, Wish};
use sim::latency::Matrix;
use sim::world::{Hardware, JoinOutcome, MachineId, Moment, Outcome, World};
use wire::call::{
    Apply, Expected, Inspect, Inspection, Invite, NodeDrain, NodeLabel, NodeList, NodeRemove,
    Problem, Remove, Response, Run, Scale, StartApp, StopApp, Wait,
};
use wire::fact::ObjectFacts;
use wire::spec::{AppSpec, Placement, Program, Resources, Restart, Stop};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// A cloud in one room, and the ticket for it.
fn cloud(count: usize) -> (World, String) {
    let mut world = World::new(1, Matrix::room());
    for number in 0..count {
        world.add(Hardware::ordinary(&format!("n{number}")));
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
    world.pass(SECOND * 3);
    (world, invitation.ticket)
}

fn spec(name: &str, program: &[&str], restart: Restart) -> AppSpec {
    AppSpec {
        name: name.to_string(),
        replicas: 1,
        program: Program {
            arguments: program.iter().map(|word| (*word).to_string()).collect(),
            ..Program::default()
        },
        ports: BTreeMap::new(),
        resources: Resources::default(),
        restart,
        placement: Placement::default(),
        stop: Stop {
            grace_ms: 2000,
            ..Stop::default()
        },
        remove_when_done: false,
        on_partition: wire::spec::OnPartition::Available,
        health: None,
        after: Default::default(),
        schedule: None,
        deadline_ms: None,
    }
}

/// A program that runs once, so that a second run is seen.
fn job(name: &str, number: u32) -> AppSpec {
    let mut job = spec(name, &["work", "300"], Restart::No);
    let tag = (
        sim::invariants::one_run::JOB.to_string(),
        number.to_string(),
    );
    job.program.environment.extend([tag]);
    job
}

fn run(world: &mut World, at: MachineId, spec: AppSpec) -> Result<Response, Option<Problem>> {
    let run = Run {
        spec,
        attach: false,
    };
    world.ask(at, run, SECOND * 60)
}

fn inspect(world: &mut World, at: MachineId, name: &str) -> Inspection {
    let target = name.to_string();
    match world.ask(at, Inspect { target }, SECOND * 60) {
        Ok(Response::Inspect(inspection)) => inspection,
        other => panic!("{other:?}"),
    }
}

/// Who runs something of an app.
fn hosts(world: &World, name: &str) -> Vec<MachineId> {
    let runs = |machine: &MachineId| {
        world
            .programs(*machine)
            .any(|(_, launch)| launch.app_name == name)
    };
    world.machines().filter(runs).collect()
}

fn named(world: &World, name: &str) -> MachineId {
    let found = world.machines().find(|it| world.name(*it) == name);
    found.expect("a guardian is a machine")
}

fn target(name: &str) -> String {
    name.to_string()
}

#[test]
fn a_wait_is_answered_although_the_supervisor_was_restarted() {
    let (mut world, _) = cloud(3);
    let (first, second) = (MachineId(0), MachineId(1));
    run(&mut world, first, spec("job", &["work", "20"], Restart::No)).unwrap();
    let supervisor = inspect(&mut world, first, "job").guardians[0].clone();
    let supervisor = named(&world, &supervisor);
    let origin = if supervisor == first { second } else { first };
    let wait = Wait {
        target: target("job"),
    };
    let call = world.call(origin, wait);
    world.pass(SECOND);
    world.kill_daemon(supervisor);
    world.pass(MILLISECOND * 100);
    world.start(supervisor);
    world.pass(SECOND * 120);
    assert_ne!(*world.outcome(call), Outcome::Open);
}

#[test]
fn a_supervisor_that_was_away_does_not_keep_the_waits_of_those_who_gave_up() {
    let (mut world, _) = cloud(3);
    let (first, second) = (MachineId(0), MachineId(1));
    run(&mut world, first, spec("web", &["serve"], Restart::Always)).unwrap();
    let supervisor = inspect(&mut world, first, "web").guardians[0].clone();
    let supervisor = named(&world, &supervisor);
    let origin = if supervisor == first { second } else { first };
    world.freeze(supervisor);
    let wait = Wait {
        target: target("web"),
    };
    let call = world.call(origin, wait);
    world.pass(SECOND * 20);
    world.abandon(call);
    world.thaw(supervisor);
    world.pass(SECOND * 120);
    let left = world.unfinished(supervisor);
    assert!(!left.contains(&"calls that wait"), "{left:?}");
}

#[test]
fn what_is_started_while_it_stops_runs_again() {
    let (mut world, _) = cloud(1);
    let at = MachineId(0);
    let restart = Restart::OnFailure { retries_max: None };
    run(&mut world, at, spec("web", &["deaf"], restart)).unwrap();
    let stop = StopApp {
        target: target("web"),
        grace_ms: None,
    };
    world.call(at, stop);
    world.pass(MILLISECOND * 500);
    let start = StartApp {
        target: target("web"),
    };
    world.ask(at, start, SECOND * 60).ok();
    world.pass(SECOND * 10);
    assert!(!inspect(&mut world, at, "web").stopped);
    assert_eq!(hosts(&world, "web"), [at]);
}

#[test]
fn the_only_object_of_an_app_that_always_runs_is_started_again_when_it_is_stopped() {
    let (mut world, _) = cloud(1);
    let at = MachineId(0);
    run(&mut world, at, spec("web", &["serve"], Restart::Always)).unwrap();
    let stop = StopApp {
        target: target("web/0"),
        grace_ms: None,
    };
    world.ask(at, stop, SECOND * 60).unwrap();
    world.pass(SECOND * 10);
    assert!(!inspect(&mut world, at, "web").stopped);
    assert_eq!(hosts(&world, "web"), [at]);
}

#[test]
fn an_app_that_was_scaled_back_to_what_fits_has_no_trouble() {
    let (mut world, _) = cloud(1);
    let at = MachineId(0);
    let mut large = spec("web", &["serve"], Restart::Always);
    large.resources.cpu_millis = 3000;
    run(&mut world, at, large).unwrap();
    let scale = |replicas| Scale {
        target: target("web"),
        replicas,
    };
    world.ask(at, scale(2), SECOND * 60).unwrap_err();
    let answer = world.ask(at, scale(1), SECOND * 60);
    assert!(answer.is_ok(), "{answer:?}");
    world.pass(SECOND * 20);
    assert_eq!(inspect(&mut world, at, "web").trouble, None);
}

#[test]
fn a_record_has_no_living_objects_on_nodes_that_were_removed() {
    let (mut world, _) = cloud(4);
    let mut web = spec("web", &["serve"], Restart::No);
    web.replicas = 4;
    web.placement.spread = true;
    run(&mut world, MachineId(0), web).unwrap();
    let lost = hosts(&world, "web").last().copied().unwrap();
    let at = world.machines().find(|it| *it != lost).unwrap();
    world.crash(lost);
    world.pass(SECOND * 20);
    let node = world.node(lost);
    let remove = NodeRemove {
        node: node.to_string(),
        force: true,
    };
    world.ask(at, remove, SECOND * 60).unwrap();
    world.pass(SECOND * 30);
    let objects = inspect(&mut world, at, "web").objects;
    let lives = |it: &ObjectFacts| it.node == node && it.phase.is_alive();
    assert!(!objects.iter().any(lives), "{objects:?}");
}

#[test]
fn a_host_that_starts_again_starts_nothing_that_runs_elsewhere() {
    let (mut world, _) = cloud(7);
    let at = MachineId(0);
    let mut many = job("job", 1);
    many.replicas = 7;
    many.placement.spread = true;
    run(&mut world, at, many).unwrap();
    world.pass(SECOND * 30);
    let guardians = inspect(&mut world, at, "job").guardians;
    let mut others = hosts(&world, "job").into_iter();
    let host = others.find(|it| !guardians.iter().any(|name| name == world.name(*it)));
    let host = host.expect("four hosts are no guardians");
    let before = world.counts().launches;
    world.crash(host);
    world.pass(SECOND);
    world.start(host);
    world.pass(SECOND * 20);
    assert_eq!(world.counts().launches, before);
}

#[test]
fn a_machine_that_heard_late_of_its_admission_is_linked_by_nodes_that_started_since() {
    let (mut world, ticket) = cloud(2);
    let late = world.add(Hardware::ordinary("late"));
    let members = [MachineId(0), MachineId(1)];
    for member in members {
        world.cut(member, late);
    }
    world.join(late, &ticket);
    world.pass(SECOND * 10);
    assert!(!world.is_admitted(late));
    for member in members {
        world.kill_daemon(member);
        world.start(member);
    }
    world.mend();
    world.pass(SECOND * 10);
    let outcome = world.join_and_wait(late, &ticket);
    assert!(matches!(outcome, JoinOutcome::Admitted(_)), "{outcome:?}");
    world.pass(SECOND * 60);
    for machine in world.machines() {
        let Ok(Response::NodeList(list)) = world.ask(machine, NodeList {}, SECOND) else {
            panic!("no list");
        };
        let up = list.nodes.iter().filter(|it| it.state.is_up()).count();
        assert_eq!(up, 3, "as {} sees it", world.name(machine));
    }
}

/// A slot without a place was looked for again after up to fifteen seconds, however early there was
/// room for it.
#[test]
fn a_slot_gets_its_place_as_soon_as_there_is_room_for_it() {
    for host in [MachineId(0), MachineId(1)] {
        let (mut world, _) = cloud(2);
        let large = |world: &World, name: &str| {
            let mut large = spec(name, &["serve"], Restart::Always);
            large.resources.cpu_millis = 3000;
            large.placement.host = Some(world.name(host).to_string());
            large
        };
        let first = large(&world, "first");
        run(&mut world, MachineId(0), first).unwrap();
        let mut second = large(&world, "second");
        second.replicas = 0;
        run(&mut world, MachineId(0), second).unwrap();
        let scale = Scale {
            target: target("second"),
            replicas: 1,
        };
        world.ask(MachineId(0), scale, SECOND * 60).unwrap_err();
        // By then it is looked for every fifteen seconds, the next time in ten.
        world.pass(SECOND * 50);
        let remove = Remove {
            target: target("first"),
            force: true,
        };
        world.ask(MachineId(0), remove, SECOND * 60).unwrap();
        world.pass(SECOND * 2);
        assert_eq!(hosts(&world, "second"), [host]);
    }
}

/// The node of a newer object drained while the older one, in the only room left, was ending. The
/// older one was to make room, which it did already, and so a place was looked for again in the same
/// step: for ever.
#[test]
fn what_drains_while_the_older_one_ends_waits_for_its_room() {
    let (mut world, _) = cloud(2);
    let at = MachineId(0);
    let mut older = spec("web", &["deaf"], Restart::Always);
    older.resources.cpu_millis = 3000;
    older.stop.grace_ms = 10_000;
    run(&mut world, at, older.clone()).expect("there is room");
    let first = hosts(&world, "web")[0];
    let mut newer = older;
    newer.resources.memory_bytes = 64 << 20;
    let apply = Apply {
        spec: newer.into(),
        expected: Expected::Anything,
        roll_back: false,
    };
    world.ask(at, apply, SECOND * 60).expect("there is room");
    let has_come = world.pass_until(SECOND * 5, |world| hosts(world, "web").len() == 2);
    assert!(has_come);
    world.pass(SECOND * 5);
    let other = world.machines().find(|it| *it != first).expect("two");
    let drain = NodeDrain {
        node: world.name(other).to_string(),
        force: false,
    };
    world.ask(at, drain, SECOND * 60).expect("it drains");
    assert_eq!(hosts(&world, "web").len(), 2, "it does not listen");
    let is_wrong = world.pass_until(SECOND * 30, |world| !world.violations().is_empty());
    assert!(!is_wrong, "{:?}", world.violations());
    assert_eq!(hosts(&world, "web"), [first]);
}

/// An update was undone half way, and what was undone could not run again either: its node has another
/// label by now. The app says so, and the simulator took that for a complaint without a reason.
#[test]
fn an_undone_update_that_cannot_go_back_is_a_trouble() {
    let (mut world, _) = cloud(1);
    let at = MachineId(0);
    let mut web = spec("web", &["serve"], Restart::Always);
    (web.replicas, web.resources.cpu_millis) = (2, 1500);
    let constraint = "label.tier!=front".parse().expect("it is one");
    web.placement.constraints.push(constraint);
    run(&mut world, at, web.clone()).expect("there is room");
    web.program.arguments.push("newer".to_string());
    let apply = Apply {
        spec: web.clone().into(),
        expected: Expected::Anything,
        roll_back: true,
    };
    world.ask(at, apply, SECOND * 60).expect("it begins");
    world.pass(SECOND * 2);
    let label = NodeLabel {
        node: world.name(at).to_string(),
        set: BTreeMap::from([("tier".to_string(), "front".to_string())]),
        remove: Vec::new(),
    };
    world.ask(at, label, SECOND).expect("it is up");
    world.pass(SECOND * 30);
    let inspection = inspect(&mut world, at, "web");
    assert!(inspection.undone.is_some());
    let trouble = inspection.trouble.expect("one of them is the newer one");
    assert!(trouble.contains("label.tier!=front"), "{trouble}");
    let nodes = BTreeSet::from([world.node(at)]);
    let wish = Wish::Present {
        replicas: 2,
        stopped: false,
        kind: Kind::Always,
    };
    let expected = survey::Expected {
        up: nodes.clone(),
        members: nodes,
        apps: BTreeMap::from([("web".to_string(), BTreeSet::from([wish]))]),
        has_removed: false,
        is_steady: true,
    };
    let survey = Survey::take(&mut world, expected);
    assert_eq!(faults(&survey), [] as [&str; 0]);
}

#[test]
fn an_app_whose_port_was_taken_while_it_was_stopped_starts_elsewhere() {
    port_is_taken_while_stopped(Restart::Always);
}

/// Only what always runs did.
#[test]
fn so_does_one_that_is_started_again_when_it_fails() {
    port_is_taken_while_stopped(Restart::OnFailure { retries_max: None });
}

fn port_is_taken_while_stopped(restart: Restart) {
    let (mut world, _) = cloud(2);
    let at = MachineId(0);
    let http = ("http".to_string(), 8000);
    let mut first = spec("first", &["serve"], restart);
    first.ports.extend([http.clone()]);
    run(&mut world, at, first).expect("there is room");
    let host = hosts(&world, "first")[0];
    let stop = StopApp {
        target: target("first"),
        grace_ms: None,
    };
    world.ask(at, stop, SECOND * 60).expect("it stops");
    let mut second = spec("second", &["serve"], Restart::Always);
    second.ports.extend([http]);
    second.placement.host = Some(world.name(host).to_string());
    run(&mut world, at, second).expect("the port is free");
    let start = StartApp {
        target: target("first"),
    };
    world.ask(at, start, SECOND * 60).ok();
    world.pass(SECOND * 60);
    assert_eq!(hosts(&world, "first").len(), 1);
}

/// A host says once that an object is gone, and had said so to a supervisor that died of it. Until
/// the next one knew, it waited for that object to end: half a minute.
#[test]
fn what_a_host_told_only_a_supervisor_that_was_lost_is_asked_for_at_once() {
    let (mut world, _) = cloud(3);
    let host = MachineId(1);
    let mut pinned = spec("web", &["deaf"], Restart::Always);
    pinned.placement.host = Some(world.name(host).to_string());
    let supervisor = loop {
        run(&mut world, host, pinned.clone()).unwrap();
        let name = inspect(&mut world, host, &pinned.name).guardians[0].clone();
        match named(&world, &name) {
            own if own == host => pinned.name.push('b'),
            other => break other,
        }
    };
    let name = pinned.name;
    let scale = |replicas| Scale {
        target: target(&name),
        replicas,
    };
    world.call(host, scale(0));
    world.pass(MILLISECOND * 500);
    world.call(host, scale(1));
    world.pass(MILLISECOND * 500);
    assert_eq!(hosts(&world, &name), [host], "it does not listen");
    world.doom(supervisor, Moment::BeforeDurable, 1);
    let is_gone = world.pass_until(SECOND * 2, |world| hosts(world, &name).is_empty());
    assert!(is_gone);
    let is_lost = world.pass_until(MILLISECOND * 100, |world| !world.is_up(supervisor));
    assert!(is_lost, "it writes down what it was told");
    world.pass(SECOND * 10);
    assert_eq!(hosts(&world, &name), [host]);
}

#[test]
fn a_run_that_was_abandoned_at_once_is_undone() {
    for machine in 0..3 {
        let (mut world, _) = cloud(3);
        let abandoned = Run {
            spec: spec("web", &["serve"], Restart::Always),
            attach: false,
        };
        let call = world.call(MachineId(machine), abandoned);
        world.abandon(call);
        world.pass(SECOND * 10);
        assert_eq!(hosts(&world, "web"), []);
        let remove = Remove {
            target: target("web"),
            force: true,
        };
        let answer = world.ask(MachineId(0), remove, SECOND * 60);
        assert!(answer.is_err(), "there is no such app: {answer:?}");
    }
}

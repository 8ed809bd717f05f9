use alloc::borrow::ToOwned;

use super::*;
use wire::fact::{Exit, ExitReason};
use wire::health::{Check, Health, HealthState};
use wire::id::{ObjectId, UnixMillis};
use wire::peer::Wanted;
use wire::spec::{OnPartition, Placement, Program, Resources, Stop};

const HERE: NodeId = NodeId([1; 32]);
const AWAY: NodeId = NodeId([2; 32]);

fn version(millis: u64) -> Version {
    Version {
        millis,
        ..Version::default()
    }
}

fn names(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn spec(name: &str, after: &[&str]) -> AppSpec {
    AppSpec {
        name: name.to_owned(),
        replicas: 2,
        program: Program::default(),
        ports: BTreeMap::new(),
        resources: Resources::default(),
        restart: Restart::Always,
        placement: Placement::default(),
        stop: Stop::default(),
        remove_when_done: false,
        on_partition: OnPartition::Available,
        health: None,
        after: names(after),
        schedule: None,
        deadline_ms: None,
    }
}

fn record(spec: AppSpec, objects: Vec<ObjectFacts>) -> AppRecord {
    AppRecord {
        app: AppId::of_name(&spec.name),
        version: version(5),
        wanted: Wanted::new(spec, version(5), UnixMillis(5)),
        objects,
        objects_born: version(5),
        decisions: Vec::new(),
        settled: version(5),
        begun: Version::default(),
        job: Default::default(),
    }
}

fn object(index: u32, node: NodeId, phase: Phase) -> ObjectFacts {
    ObjectFacts {
        object: ObjectId([u8::try_from(index).unwrap(); 16]),
        app: AppId::of_name("db"),
        app_name: "db".to_owned(),
        index,
        node,
        epoch: 1,
        revision: 1,
        phase,
        restarts: 0,
        created: UnixMillis(5),
        started: None,
        last_exit: None,
        pid: None,
        protections_off: Vec::new(),
        halted: false,
        revised: version(5),
        restart: Restart::Always,
        health: None,
        run: 0,
    }
}

fn ended(index: u32, code: u8) -> ObjectFacts {
    ObjectFacts {
        last_exit: Some(Exit {
            reason: ExitReason::Code(code),
            at: UnixMillis(6),
            asked: false,
        }),
        ..object(index, HERE, Phase::Ended)
    }
}

/// Figures of `db` with these objects.
fn check(edit: impl FnOnce(&mut AppSpec), objects: Vec<ObjectFacts>, expected: &str) {
    let mut spec = spec("db", &[]);
    edit(&mut spec);
    let standing = standing(&record(spec, objects), |node| node == HERE).unwrap();
    assert_eq!(figures(&standing), expected);
}

#[test]
fn what_lasts_counts_while_it_runs_where_it_can_be_reached() {
    let running = |index, node| object(index, node, Phase::Running);
    check(|_| (), [running(0, HERE)].into(), "1 of 2 run");
    check(
        |_| (),
        [running(0, HERE), running(1, AWAY)].into(),
        "1 of 2 run",
    );
    check(
        |_| (),
        [running(0, HERE), running(1, HERE)].into(),
        "2 of 2 run",
    );
    // Two of one slot are one, and what is beyond the wanted count is none.
    check(
        |_| (),
        [running(0, HERE), running(0, HERE)].into(),
        "1 of 2 run",
    );
    check(|_| (), [running(5, HERE)].into(), "0 of 2 run");
    check(|_| (), [ended(0, 0)].into(), "0 of 2 run");
    let retried = |spec: &mut AppSpec| spec.restart = Restart::OnFailure { retries_max: None };
    check(retried, [ended(0, 0), ended(1, 1)].into(), "1 of 2 run");
}

#[test]
fn what_runs_once_counts_when_it_has_ended_with_0() {
    let once = |spec: &mut AppSpec| spec.restart = Restart::No;
    let objects = || [object(0, HERE, Phase::Running), ended(1, 0)].into();
    check(once, objects(), "1 of 2 have ended with 0");
    check(
        once,
        [ended(0, 0), ended(1, 3)].into(),
        "1 of 2 have ended with 0",
    );
    let both = record(
        AppSpec {
            restart: Restart::No,
            ..spec("db", &[])
        },
        [ended(0, 0), ended(1, 0)].into(),
    );
    assert!(Heard::Is(standing(&both, |_| true).unwrap()).has_come_up());
}

#[test]
fn what_is_checked_counts_while_it_is_healthy_also_without_a_restart_policy() {
    let checked = |spec: &mut AppSpec| {
        spec.restart = Restart::No;
        spec.health = Some(Health::new(Check::Tcp { port: 80 }).into());
    };
    let with = |index, health| ObjectFacts {
        health: Some(health),
        ..object(index, HERE, Phase::Running)
    };
    let objects = [
        with(0, HealthState::Healthy),
        with(1, HealthState::Starting),
    ];
    check(checked, objects.into(), "1 of 2 are healthy");
}

#[test]
fn what_is_stopped_or_removed_does_not_count() {
    let running = [0, 1].map(|index| object(index, HERE, Phase::Running));
    let mut stopped = record(spec("db", &[]), running.into());
    stopped.wanted.stopped = true;
    let standing_of = |record: &AppRecord| standing(record, |_| true);
    let heard = Heard::Is(standing_of(&stopped).unwrap());
    assert!(!heard.has_come_up());
    stopped.wanted.spec = None;
    assert_eq!(standing_of(&stopped), None);
}

#[test]
fn an_app_waits_until_it_has_begun_and_never_again() {
    let mut web = record(spec("web", &["db"]), Vec::new());
    assert!(waits(&web));
    web.wanted.stopped = true;
    assert!(!waits(&web), "nothing is placed anyway");
    web.wanted.stopped = false;
    web.begun = web.wanted.born;
    assert!(!waits(&web));
    // An app of the same name that was made later waits.
    web.wanted.born = version(6);
    assert!(waits(&web));
    // The names were added when it ran.
    web.objects = [object(0, AWAY, Phase::Running)].into();
    assert!(!waits(&web) && has_begun_unnoted(&web));
    assert!(!waits(&record(spec("web", &[]), Vec::new())));
}

fn of(after: &[&str], waits: bool, reached: u32) -> Heard {
    Heard::Is(Standing {
        goal: Goal::Run,
        reached,
        wanted: 2,
        stopped: false,
        waits,
        after: names(after),
    })
}

/// Asks all that is to be asked of a made-up cloud.
fn inquire(after: &[&str], scope: Scope, cloud: &[(&str, Heard)]) -> Inquiry {
    let mut inquiry = Inquiry::new(&spec("web", after), scope);
    let mut asked = BTreeSet::new();
    while let Some(name) = inquiry.poll_question() {
        assert!(asked.insert(name.clone()), "{name} is asked twice");
        assert!(!inquiry.is_over());
        let found = cloud.iter().find(|(other, _)| *other == name);
        let heard = found.map_or(Heard::Absent, |(_, heard)| heard.clone());
        inquiry.handle_answer(&name, heard);
    }
    assert!(inquiry.is_over());
    inquiry
}

#[test]
fn a_round_says_what_is_missing() {
    let cloud = [
        ("cache", of(&[], false, 2)),
        ("db", of(&[], false, 1)),
        ("mail", Heard::Silence),
    ];
    let asked = |after: &[&str]| inquire(after, Scope::Waiting, &cloud);
    assert!(asked(&["cache"]).is_clear());
    let missing = asked(&["cache", "db", "queue"]);
    assert!(!missing.is_clear());
    let summary = "waiting for db; for queue, which is not there";
    assert_eq!(missing.summary(), summary);
    let details = "waiting for db: 1 of 2 run; for queue, which is not there";
    assert_eq!(missing.details(), details);
    let silent = asked(&["mail"]);
    assert_eq!(silent.summary(), "waiting for mail");
    assert_eq!(
        silent.details(),
        "waiting for mail, of which nothing is heard"
    );
}

#[test]
fn a_circle_is_named() {
    let cloud = [
        ("db", of(&["cache", "disk"], true, 0)),
        ("cache", of(&["web"], true, 0)),
        ("disk", of(&[], false, 0)),
    ];
    let expected =
        "waiting for itself: web comes after db, db comes after cache, cache comes after web";
    for scope in [Scope::Specified, Scope::Waiting] {
        let inquiry = inquire(&["db"], scope, &cloud);
        assert_eq!(inquiry.summary(), expected);
        assert_eq!(inquiry.details(), expected);
    }
    // A circle that the app is not in is not its own.
    let cloud = [
        ("db", of(&["cache"], true, 0)),
        ("cache", of(&["db"], true, 0)),
    ];
    assert_eq!(inquire(&["db"], Scope::Waiting, &cloud).circle(), None);
    // Who has begun waits for nobody, though that is specified.
    let cloud = [("db", of(&["web"], false, 1))];
    assert_eq!(inquire(&["db"], Scope::Waiting, &cloud).circle(), None);
    let circle = inquire(&["db"], Scope::Specified, &cloud).circle();
    assert_eq!(circle, Some(["web", "db"].map(str::to_owned).into()));
}

#[test]
fn a_round_asks_a_bounded_number_of_apps() {
    let mut inquiry = Inquiry::new(&spec("web", &["a0"]), Scope::Specified);
    let mut asked = 0;
    while let Some(name) = inquiry.poll_question() {
        asked += 1;
        let more: Vec<String> = (0..10).map(|i| alloc::format!("a{asked}-{i}")).collect();
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        inquiry.handle_answer(&name, of(&more, true, 0));
    }
    assert_eq!(asked, ORDER_APPS_MAX);
}

#[test]
fn rounds_follow_each_other_ever_more_slowly() {
    let mut order = Order::default();
    let app = AppId::of_name("web");
    let mut now = Instant::default();
    let inquiry = || Inquiry::new(&spec("web", &["db"]), Scope::Waiting);
    let mut pauses = Vec::new();
    for round in 0..6 {
        assert!(order.is_due(app, version(1)));
        order.begin(app, round);
        assert!(!order.is_due(app, version(1)), "one at a time");
        assert_eq!(order.handle_round(now, app, (99, inquiry())), None);
        let is_first = order.handle_round(now, app, (round, inquiry()));
        assert_eq!(is_first, Some(round == 0));
        assert!(!order.is_due(app, version(1)));
        let at = order.poll_timeout().unwrap();
        pauses.push(at.since(now).as_millis());
        now = at;
        assert_eq!(order.handle_timeout(now), [app]);
    }
    assert_eq!(pauses, [250, 500, 1000, 2000, 3000, 3000]);
    // Another wish is looked into at once, and what an older round brings is of no interest.
    order.begin(app, 7);
    assert!(order.is_due(app, version(2)));
    order.begin(app, 8);
    assert_eq!(order.handle_round(now, app, (7, inquiry())), None);
    order.forget(app);
    assert_eq!(order.poll_timeout(), None);
}

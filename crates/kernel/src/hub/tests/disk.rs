//! Nodes whose disk takes no writes.

use wire::call::{NodeInspect, NodeLabel};

use super::*;

/// A node with a full disk answered nobody, and went on to supervise with what it could not keep.
#[test]
fn a_node_whose_disk_refuses_hands_its_apps_over_and_says_so() {
    let mut bench = Bench::new(&[2, 3]);
    let name = bench.app_of(1);
    let app = AppId::of_name(&name);
    bench.disk_is_full = true;
    bench.call(NodeDrain {
        node: String::new(),
        force: false,
    });
    assert!(bench.kernel.outbox.is_stuck());
    assert_ne!(bench.kernel.supervisor_of(app), node(1));
    let told = bench.messages(2).into_iter().any(|it| match it {
        Message::Rumors(news) => news.facts.iter().any(|it| !it.labels.is_empty()),
        _ => false,
    });
    assert!(told, "{:?}", bench.messages(2));
    let busy = Some(ProblemCode::Busy);
    let answer = bench.ask(2, store(record(spec(&name), WALL)));
    assert_eq!(refused(answer), busy);
    bench.disk_is_full = false;
    bench.pass(2);
    assert_eq!(bench.kernel.supervisor_of(app), node(1));
    let state: NodeState = bench
        .rows
        .get(&(Table::Node, b"node".to_vec()))
        .map(|row| wire::disk::unseal(row).expect("sealed"))
        .expect("written");
    assert!(state.labels.is_empty());
}

#[test]
fn the_peer_of_a_node_whose_disk_refuses_supervises_for_it() {
    let mut bench = Bench::new(&[2]);
    let name = bench.app_of(2);
    let mut facts = bench.kernel.measurement.get(node(1)).expect("own").clone();
    facts.node = node(2);
    let mut other = Measurement::new(facts);
    let mut tell = |bench: &mut Bench, is_impaired| {
        let news = News {
            statements: Vec::new(),
            facts: vec![other.impair(Instant::default(), is_impaired)],
        };
        bench.tell(2, &Message::Rumors(news));
        bench.kernel.supervisor_of(AppId::of_name(&name))
    };
    assert_eq!(tell(&mut bench, true), node(1));
    assert_eq!(tell(&mut bench, false), node(2));
}

/// `welkin down` waited for a disk that took nothing.
#[test]
fn a_node_stops_though_its_disk_takes_no_writes() {
    let mut bench = Bench::new(&[]);
    bench.disk_is_full = true;
    let call = bench.call(NodeDown {});
    assert!(matches!(bench.reply(call), Some(Ok(Response::NodeDown(_)))));
    assert_eq!(bench.outputs.last(), Some(&Output::Halt));
}

fn label() -> NodeLabel {
    NodeLabel {
        node: String::new(),
        set: [("rack".into(), "7".into())].into(),
        remove: Vec::new(),
    }
}

/// `ps` hung for as long as a change waited for the disk, and so did whoever asked for a list from
/// another node.
#[test]
fn what_a_node_knows_is_told_while_a_change_waits_for_its_disk() {
    let mut bench = Bench::new(&[2]);
    bench.disk_is_full = true;
    let change = bench.call(label());
    assert_eq!(bench.reply(change), None);
    let answer = bench.ask(2, Ask::Apps);
    assert!(matches!(answer, Some(Ok(Answer::Apps(_)))), "{answer:?}");
    let list = bench.call(NodeInspect {
        node: String::new(),
    });
    let shown = bench.reply(list);
    assert!(
        matches!(shown, Some(Ok(Response::NodeInspect(_)))),
        "{shown:?}"
    );
}

/// The first change that met a full disk waited for half a minute, and its caller heard nothing of
/// the disk.
#[test]
fn a_change_that_waits_for_the_disk_is_answered_after_a_while_and_once() {
    let mut bench = Bench::new(&[]);
    bench.disk_is_full = true;
    let call = bench.call(label());
    bench.pass(1);
    assert_eq!(bench.reply(call), None, "there may be room in a moment");
    bench.pass(4);
    let Some(Err(problem)) = bench.reply(call) else {
        panic!("it was not answered");
    };
    assert_eq!(problem.code, ProblemCode::TimedOut);
    assert!(
        problem.detail.contains("disk takes no writes (full)"),
        "{problem}"
    );
    bench.disk_is_full = false;
    bench.outputs.clear();
    bench.pass(2);
    assert_eq!(bench.reply(call), None, "it was answered before");
    assert!(bench.kernel.pending.is_empty());
    let row = bench.rows.get(&(Table::Node, b"node".to_vec()));
    let state: NodeState = wire::disk::unseal(row.expect("written")).expect("sealed");
    assert_eq!(
        state.labels.get("rack").map(String::as_str),
        Some("7"),
        "it was made"
    );
}

/// A moment without room is no reason to alarm anybody.
#[test]
fn a_change_is_done_when_there_is_room_in_time() {
    let mut bench = Bench::new(&[]);
    bench.disk_is_full = true;
    let call = bench.call(label());
    bench.disk_is_full = false;
    bench.pass(2);
    assert!(matches!(
        bench.reply(call),
        Some(Ok(Response::NodeLabel(_)))
    ));
}

/// `run` said that the node did not answer in time.
#[test]
fn a_run_that_meets_a_full_disk_hears_of_the_disk() {
    let mut bench = Bench::new(&[]);
    bench.disk_is_full = true;
    let run = Run {
        spec: spec("web"),
        attach: false,
    };
    let call = bench.call(run);
    bench.pass(4);
    let Some(Err(problem)) = bench.reply(call) else {
        panic!("it was not answered");
    };
    assert!(problem.detail.contains("disk takes no writes"), "{problem}");
    bench.disk_is_full = false;
    bench.pass(30);
    assert_eq!(bench.kernel.unfinished(), Vec::<&str>::new());
}

//! Records of apps that this node need not keep.

use super::*;
use crate::directory;

/// An app that runs every second changes its record as often. A node that was no guardian any more
/// told the guardians what it had, took what they had by then, and so never had what they have.
#[test]
fn what_is_newer_elsewhere_is_not_taken_by_whoever_has_no_use_for_it() {
    let mut bench = Bench::new(&[2, 3, 4]);
    let is_of_others = |name: &String| {
        let members = [1, 2, 3, 4].map(node).into_iter();
        !directory::guardians(AppId::of_name(name), members).contains(&node(1))
    };
    let mut names = (0..1000).map(|number| alloc::format!("web-{number}"));
    let name = names.find(is_of_others).expect("one of a thousand");
    let app = AppId::of_name(&name);
    bench.ask(2, store(record(spec(&name), WALL)));
    bench.outputs.clear();
    bench.kernel.spread_records();
    bench.kernel.end_step();
    bench.carry();
    let asked = bench.messages(3).into_iter().find_map(|it| match it {
        Message::Ask { question, ask } if matches!(*ask, Ask::StoreRecord(_)) => Some(question),
        _ => None,
    });
    let newer = record(spec(&name), WALL + 1_000);
    let answer = Message::Answer {
        question: asked.expect("a guardian lacks it"),
        answer: Box::new(Ok(Answer::Record(Some(Box::new(newer))))),
    };
    bench.tell(3, &answer);
    let kept = bench.kernel.directory.get(app).expect("for a while yet");
    assert_eq!(kept.version, version(WALL));
}

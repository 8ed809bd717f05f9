//! A node that hears that it runs twice.

use super::*;

fn twice(of: u8) -> Input {
    Input::Twice {
        node: node(of),
        first: "192.0.2.1:7117".into(),
        second: "192.0.2.2:7117".into(),
    }
}

fn run() -> Run {
    Run {
        spec: spec("web"),
        attach: false,
    }
}

/// The problem that a call is answered with at once.
fn problem(bench: &mut Bench, request: impl Into<Request>) -> Option<Problem> {
    let call = bench.call(request);
    bench.reply(call)?.err()
}

fn alarms(bench: &Bench) -> Vec<&str> {
    let details = bench.outputs.iter().filter_map(|it| match it {
        Output::Alarm { alarm, detail } if *alarm == Alarm::NodeTwice => Some(detail.as_str()),
        _ => None,
    });
    details.collect()
}

#[test]
fn a_process_that_was_refused_changes_nothing_and_says_why() {
    let mut bench = Bench::new(&[2, 3]);
    bench.happen(twice(1));
    let [alarm] = alarms(&bench)[..] else {
        panic!("one alarm was expected: {:?}", alarms(&bench));
    };
    assert!(alarm.contains("192.0.2.1:7117") && alarm.contains("192.0.2.2:7117"));
    let refused = problem(&mut bench, run()).expect("it is refused");
    assert_eq!(refused.code, ProblemCode::Forbidden);
    assert!(refused.detail.contains("192.0.2.1:7117"), "{refused:?}");
    assert_eq!(problem(&mut bench, wire::call::CloudInfo {}), None);
    bench.pass(61);
    let later = problem(&mut bench, run());
    assert!(
        later.is_none_or(|it| it.code != ProblemCode::Forbidden),
        "nobody has said so again"
    );
}

#[test]
fn who_refuses_a_twin_names_both_and_goes_on() {
    let mut bench = Bench::new(&[2, 3]);
    bench.happen(twice(2));
    assert_eq!(alarms(&bench).len(), 1);
    let taken = problem(&mut bench, run());
    assert!(taken.is_none_or(|it| it.code != ProblemCode::Forbidden));
}

//! An upgrade as the other nodes see it: a daemon ends while its objects go on, and for a while nodes
//! of two programs are in one cloud.

use super::*;

/// Whoever had handed a call on to a daemon that was restarted waited half a minute for an answer:
/// the next life was up before anybody could hold the node as lost.
#[test]
fn who_waits_for_a_daemon_that_ends_is_told_at_once() {
    let mut bench = Bench::new(&[2, 3]);
    let name = bench.app_of(1);
    let run = Run {
        spec: spec(&name),
        attach: false,
    };
    assert_eq!(
        bench.ask(2, Ask::Call(run.into())),
        None,
        "it is being placed"
    );
    let question = bench.questions;
    bench.outputs.clear();
    bench.happen(Input::Ending(Ending::Restart));
    let answers = bench.messages(2).into_iter().filter_map(|it| match it {
        Message::Answer {
            question: of,
            answer,
        } if of == question => Some(*answer),
        _ => None,
    });
    let [Err(problem)] = &answers.collect::<Vec<_>>()[..] else {
        panic!("one refusal was expected");
    };
    assert_eq!(problem.code, ProblemCode::Unreachable);
    assert!(problem.detail.contains("being restarted"), "{problem:?}");
}

#[test]
fn what_an_older_node_would_not_understand_is_refused_while_it_answers() {
    let mut bench = Bench::new(&[2, 3]);
    let mut facts = bench.kernel.measurement.get(node(1)).expect("own").clone();
    (facts.node, facts.name, facts.level) = (node(2), "bob".into(), 1);
    let tell = |bench: &mut Bench, facts: &NodeFacts| {
        let news = News {
            statements: Vec::new(),
            facts: vec![facts.clone()],
        };
        bench.tell(2, &Message::Rumors(news));
    };
    let mut ordered = spec("web");
    ordered.after = ["db".into()].into();
    let run = |spec: &AppSpec| Run {
        spec: spec.clone(),
        attach: false,
    };
    tell(&mut bench, &facts);
    let call = bench.call(run(&ordered));
    let refused = bench.reply(call).expect("at once").expect_err("refused");
    assert!(refused.detail.contains("bob runs an older"), "{refused:?}");
    let call = bench.call(run(&spec("web")));
    assert_eq!(bench.reply(call), None, "what it knows goes on");
    (facts.level, facts.version) = (wire::LEVEL, facts.version + (1 << 32));
    tell(&mut bench, &facts);
    let call = bench.call(run(&ordered));
    assert_ne!(bench.reply(call), Some(Err(refused)));
}

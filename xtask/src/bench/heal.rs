//! A cloud of five machines is cut in two, mended, and must agree again: on who is there, and on
//! which objects there are, exactly as many as were wanted.

use std::collections::BTreeSet;
use std::time::Duration;

use end_to_end::{LabCloud, until};
use lab::{Wan, Ways};
use serde_json::Value;

use super::{Figure, now, rest};

const HOSTS: usize = 5;
const REPLICAS: usize = 10;
const CUT: Duration = Duration::from_secs(20);
const RUNS_MAX: usize = 3;
const GOAL_S: f64 = 10.0;

pub(super) fn measure(runs: usize) -> Vec<Figure> {
    let cloud = LabCloud::new(HOSTS, Some(Wan::builtin()));
    let line = format!("run -d --name app --restart always --replicas {REPLICAS} -- sleep 100000");
    let _app = cloud.welkin("h1", &line).ok();
    cloud.await_running("h1", "app", REPLICAS);
    let (mut members, mut objects) = (Vec::new(), Vec::new());
    for _ in 0..runs.clamp(1, RUNS_MAX) {
        cloud
            .lab
            .cut(&["h1", "h2"], &["h3", "h4", "h5"], Ways::Both)
            .expect("they are hosts");
        rest(CUT);
        cloud.lab.heal().expect("it has a network");
        let healed = now();
        await_all(&cloud, "five members", |host| {
            (cloud.nodes_up(host).len() == HOSTS).then_some(())
        });
        members.push(healed.elapsed().as_secs_f64());
        await_one_truth(&cloud);
        objects.push(healed.elapsed().as_secs_f64());
    }
    let members = Figure::new("five machines, 2|3 for 20 s: one membership", "s", members);
    let objects = Figure::new("the same: all agree on its ten objects", "s", objects);
    let quick = members.median() <= GOAL_S;
    let agreed = objects.median() <= GOAL_S;
    vec![members.goal("10 s", quick), objects.goal("10 s", agreed)]
}

/// Waits until each host has given an answer.
fn await_all<T>(cloud: &LabCloud, what: &str, ask: impl Fn(&str) -> Option<T>) -> Vec<T> {
    until(what, Duration::from_secs(60), || {
        cloud.names().iter().map(|host| ask(host)).collect()
    })
}

/// Waits until all hosts show the same objects, as many as there are to be.
fn await_one_truth(cloud: &LabCloud) {
    until("one truth", Duration::from_secs(60), || {
        let seen = await_all(cloud, "objects", |host| objects(cloud, host));
        let first = seen.first()?;
        let agree = seen.iter().all(|it| it == first);
        (agree && first.len() == REPLICAS).then_some(())
    });
}

/// What runs, by slot, object, node and revision, if the host knows all of it.
fn objects(cloud: &LabCloud, host: &str) -> Option<BTreeSet<String>> {
    let table: Value = serde_json::from_str(&cloud.welkin(host, "ps app -o json").stdout).ok()?;
    let is_whole = table["unanswered"].as_array().is_none_or(Vec::is_empty);
    let objects = table["objects"].as_array()?;
    let one = |it: &Value| {
        let parts = ["index", "object", "node", "revision", "phase"];
        parts.map(|part| it[part].to_string()).join(" ")
    };
    is_whole.then(|| objects.iter().map(one).collect())
}

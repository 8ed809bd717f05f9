//! A machine loses its power: how long until all others know, and until its object runs elsewhere.

use std::time::Duration;

use end_to_end::{LabCloud, running_of, until};
use lab::Wan;

use super::{Figure, now};

pub(super) fn measure(runs: usize) -> Vec<Figure> {
    let cloud = LabCloud::new(5, Some(Wan::builtin()));
    let _app = cloud
        .welkin("h1", "run -d --name app --restart always -- sleep 100000")
        .ok();
    let (mut seen, mut moved) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let home = cloud.await_running("h1", "app", 1)[0]["node"]
            .as_str()
            .unwrap_or("")
            .to_string();
        let victim = cloud.name_of("h1", &home);
        let others: Vec<String> = cloud
            .names()
            .into_iter()
            .filter(|it| *it != victim)
            .collect();
        let killed = now();
        cloud.host(&victim).kill().expect("it was up");
        let mut ignorant = others.clone();
        let mut elsewhere = None;
        until(
            "all know and the object runs again",
            Duration::from_secs(60),
            || {
                ignorant.retain(|host| cloud.nodes_up(host).len() != others.len());
                if ignorant.is_empty() && seen.len() == moved.len() {
                    seen.push(killed.elapsed().as_secs_f64());
                }
                let asked = others
                    .iter()
                    .find(|host| !ignorant.contains(host))
                    .unwrap_or(&others[0]);
                let running = running_of(cloud.objects(asked, "app"));
                if elsewhere.is_none() && running.iter().any(|it| it["node"] != home.as_str()) {
                    elsewhere = Some(killed.elapsed().as_secs_f64());
                }
                (ignorant.is_empty() && elsewhere.is_some()).then_some(())
            },
        );
        moved.extend(elsewhere);
        cloud.host(&victim).start().expect("it was down");
        let _back = cloud.welkin(&victim, "up").ok();
        cloud.await_up(5);
    }
    let seen = Figure::new("machine killed: known to all four others", "s", seen);
    let moved = Figure::new("machine killed: its object runs elsewhere", "s", moved);
    let quick = seen.median() <= 4.0 && seen.worst() <= 8.0;
    let mended = moved.median() <= 6.0 && moved.worst() <= 12.0;
    vec![
        seen.goal("median 4 s, worst 8 s", quick),
        moved.goal("median 6 s, worst 12 s", mended),
    ]
}

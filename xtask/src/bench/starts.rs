//! Starts per second: 1,000 objects of `true` over five nodes of this machine, from the call until
//! all of them have ended.

use std::time::Duration;

use end_to_end::{LoopbackCloud, until};

use super::{Figure, now};

const NODES: usize = 5;
const OBJECTS: u32 = 1_000;
/// So many are enough: each is a median of a thousand already.
const RUNS_MAX: usize = 5;
const GOAL_PER_SECOND: f64 = 150.0;

pub(super) fn measure(runs: usize) -> Vec<Figure> {
    let cloud = LoopbackCloud::new(NODES, None);
    let bursts = (0..runs.clamp(1, RUNS_MAX)).map(|_| burst(&cloud));
    let (rates, surplus) = bursts.unzip();
    let rates = Figure::new("1,000 starts of `true` over five nodes", "/s", rates);
    let surplus = Figure::new("the same: programs that ran besides", "", surplus);
    let reached = rates.median() >= GOAL_PER_SECOND;
    let is_exact = surplus.worst() <= 0.0;
    vec![
        rates.goal(format!("{GOAL_PER_SECOND} a second"), reached),
        surplus.goal("none", is_exact),
    ]
}

/// Starts per second, and how many more programs than wanted ran: on a machine that is too busy, a
/// host that does not answer in time is given up on and its slot placed again.
fn burst(cloud: &LoopbackCloud) -> (f64, f64) {
    let began = now();
    let line = format!("run -d --name burst --replicas {OBJECTS} -- true");
    // Whether the call itself was in time does not matter: all of them are waited for.
    let _told = cloud.welkin(0, &line);
    let codes = cloud.welkin(0, "wait burst").ok();
    let took = began.elapsed();
    let well = codes.lines().filter(|code| *code == "0").count();
    let well = u32::try_from(well).expect("it is about a thousand");
    assert!(well >= OBJECTS, "{well} ended well");
    let _forgotten = cloud.welkin(0, "rm -f burst").ok();
    until("all are forgotten", Duration::from_secs(60), || {
        cloud.welkin(0, "ps -a -q").ok().is_empty().then_some(())
    });
    let rate = f64::from(OBJECTS) / took.as_secs_f64();
    (rate, f64::from(well - OBJECTS))
}

//! `welkin ps` with 1,000 objects, the whole process from outside.

use end_to_end::LoopbackCloud;

use super::{Figure, time_ms};

const OBJECTS: usize = 1000;
/// Objects of one app: so many apps that the table is as long as life makes it.
const REPLICAS: usize = 50;

pub(super) fn measure(runs: usize) -> Vec<Figure> {
    let cloud = LoopbackCloud::new(1, None);
    for app in 0..OBJECTS / REPLICAS {
        let line =
            format!("run -d --name app{app} --replicas {REPLICAS} --processes 8 -- sleep 100000");
        let _started = cloud.welkin(0, &line).ok();
    }
    let listed = cloud.welkin(0, "ps -q").ok().lines().count();
    assert_eq!(listed, OBJECTS, "all of them run");
    let samples = (0..runs)
        .map(|_| time_ms(cloud.command(0).arg("ps")))
        .collect();
    let figure = Figure::new("welkin ps, 1,000 objects", "ms", samples);
    let reached = figure.median() <= 30.0;
    vec![figure.goal("30 ms", reached)]
}

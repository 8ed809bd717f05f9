//! Links that come and go.

use std::time::Duration;

use end_to_end::{LabCloud, running_of, until};
use lab::Ways;

use crate::rest;

/// How long a cloud may take to be as it is to be, once nothing is wrong any more.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often the link breaks, each time for a second.
const BREAKS: u32 = 7;

/// How many objects may be started because of it: those of the machine elsewhere, and those of the
/// others on it, once.
const STARTS_MAX: usize = 6;

/// A machine whose link breaks every other second: in the end there is one cloud with what was
/// wished, and the apps were started no more often than they had to be.
#[test]
fn a_link_that_flaps_ends_in_one_cloud_without_a_storm_of_starts() {
    let cloud = LabCloud::new(3, None);
    let web = "run -d --name web --replicas 6 --restart always -- sleep 1000";
    let _web = cloud.welkin("h1", web).ok();
    cloud.await_running("h1", "web", 6);
    for _ in 0..BREAKS {
        let cut = cloud.lab.cut(&["h3"], &["h1", "h2"], Ways::Both);
        cut.expect("both are there");
        rest(Duration::from_secs(1));
        cloud.lab.heal().expect("it can be healed");
        rest(Duration::from_secs(1));
    }
    cloud.await_up(3);
    for host in cloud.names() {
        until("six run, no more", PATIENCE, || {
            let mut objects = cloud.objects(&host, "web");
            objects.retain(|it| it["phase"] != "ended");
            (objects.len() == 6 && running_of(objects).len() == 6).then_some(())
        });
    }
    let starts: usize = cloud.names().iter().map(|host| starts(&cloud, host)).sum();
    assert!(starts <= 6 + STARTS_MAX, "{starts} starts");
}

/// How many objects were started on a host.
fn starts(cloud: &LabCloud, host: &str) -> usize {
    let count = "grep -c object.starting /var/lib/welkin/daemon.log; true";
    let count = cloud.shell(host, count).ok();
    count.trim().parse().expect("a number")
}

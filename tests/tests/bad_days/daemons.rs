//! Daemons that stand still, or die and die again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use end_to_end::wishes::{Caller, Dice, Wishes};
use end_to_end::{LabCloud, running_of, until};

use crate::rest;

/// How long a cloud may take to be as it is to be, once nothing is wrong any more.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than what a node takes for a pause: it has slept.
const SLEEP: Duration = Duration::from_secs(16);
/// How often the daemon of a node is killed here; `cargo xtask soak` goes on for longer.
const DEATHS: u32 = 6;

/// A daemon is stopped for long: its objects run on, what may run elsewhere does so meanwhile, and
/// when it wakes there is one cloud and one object for each slot again.
#[test]
fn a_node_that_wakes_after_long_keeps_one_object_for_each_slot() {
    let cloud = LabCloud::new(3, None);
    let web = "run -d --name web --replicas 3 --spread --restart always -- sleep 1000";
    let _web = cloud.welkin("h1", web).ok();
    let only = "run -d --name only --host h2 --restart no -- sleep 1000";
    let _only = cloud.welkin("h1", only).ok();
    let before = running_of(cloud.objects("h1", "only"));
    cloud.signal_daemon("h2", "STOP");
    for host in ["h1", "h3"] {
        until("the loss is known", PATIENCE, || {
            (cloud.nodes_up(host) == ["h1", "h3"]).then_some(())
        });
    }
    cloud.await_running("h1", "web", 3);
    rest(SLEEP);

    cloud.signal_daemon("h2", "CONT");
    cloud.await_up(3);
    for host in cloud.names() {
        let alive = |app: &str| {
            let mut objects = cloud.objects(&host, app);
            objects.retain(|it| it["phase"] != "ended");
            objects
        };
        until("three run, no more", PATIENCE, || {
            (alive("web").len() == 3 && running_of(alive("web")).len() == 3).then_some(())
        });
        until("the same runs", PATIENCE, || {
            let object = |it: &[serde_json::Value]| it.first().map(|it| it["object"].clone());
            (object(&alive("only")) == object(&before)).then_some(())
        });
    }
}

/// The daemon of a node is killed again and again while callers change apps, at it and elsewhere:
/// what was acknowledged is there in the end, and nothing is left of what is not.
#[test]
fn a_daemon_that_dies_and_dies_again_loses_nothing_acknowledged() {
    let cloud = LabCloud::new(3, None);
    let wishes = Wishes::default();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for (number, host) in cloud.names().into_iter().enumerate() {
            let (cloud, wishes, is_over) = (&cloud, &wishes, &is_over);
            let apps = vec![format!("web{number}"), format!("work{number}")];
            let dice = Dice(number as u64);
            scope.spawn(move || {
                let mut caller = Caller {
                    cloud,
                    host,
                    wishes,
                    apps,
                    dice,
                };
                while !is_over.load(Ordering::Relaxed) {
                    let _told = caller.change_something();
                }
            });
        }
        let mut dice = Dice(17);
        for _ in 0..DEATHS {
            rest(Duration::from_millis(dice.below(400).into()));
            cloud.signal_daemon("h2", "KILL");
            let _up = cloud.welkin("h2", "up").ok();
        }
        is_over.store(true, Ordering::Relaxed);
    });
    cloud.await_up(3);
    wishes.await_kept(&cloud, PATIENCE);
    cloud.remove_all("h1");
    cloud.await_nothing_left();
}

/// The only machine of a cloud is started again: what is to run runs, what is not to run again has
/// ended with its machine, what was stopped stays so, and what was removed is not there.
#[test]
fn a_machine_that_starts_again_brings_its_apps_back_by_their_policy() {
    let cloud = LabCloud::new(1, None);
    for (name, restart) in [
        ("always", "always"),
        ("failed", "on-failure:3"),
        ("once", "no"),
        ("stopped", "always"),
        ("removed", "always"),
    ] {
        let run = format!("run -d --name {name} --restart {restart} -- sleep 1000");
        let _app = cloud.welkin("h1", &run).ok();
    }
    let _stopped = cloud.welkin("h1", "stop stopped").ok();
    let _removed = cloud.welkin("h1", "rm -f removed").ok();
    cloud.host("h1").kill().expect("it was up");
    cloud.host("h1").start().expect("it boots");
    let _up = cloud.welkin("h1", "up").ok();
    for name in ["always", "failed"] {
        let running = cloud.await_running("h1", name, 1);
        assert_eq!(running[0]["restarts"], 1, "{running:?}");
    }
    let once = cloud.objects("h1", "once");
    assert_eq!(once[0]["phase"], "ended", "{once:?}");
    assert_eq!(once[0]["last_exit"]["reason"], "lost", "{once:?}");
    let stopped = cloud.objects("h1", "stopped");
    assert_eq!(stopped[0]["phase"], "ended", "{stopped:?}");
    assert_ne!(cloud.welkin("h1", "inspect removed").code, 0);
    cloud.remove_all("h1");
    cloud.await_nothing_left();
}

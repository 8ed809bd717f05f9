//! Faults of a soak: one after the other, each healed before the next.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use end_to_end::LabCloud;
use end_to_end::wishes::Dice;
use lab::{Link, Ways};

use super::callers::Tally;
use crate::bench::rest;

/// Causes one fault after the other, and heals the last.
pub(super) fn cause(cloud: &LabCloud, tally: &Tally, mut dice: Dice, is_over: &AtomicBool) {
    let names = cloud.names();
    while !is_over.load(Ordering::Relaxed) {
        rest(milliseconds(&mut dice, 1_000, 6_000));
        let host = dice.choose(&names).clone();
        let what = dice.below(7);
        let term = milliseconds(&mut dice, 200, 10_000);
        let name = [
            "daemon killed",
            "daemon stopped",
            "cut off",
            "cut off one way",
            "slow and lossy",
            "power gone",
            "flaps",
        ][what as usize];
        tally.note_fault(format!("{host} {name} {:.1} s", term.as_secs_f32()));
        match what {
            0 => kill(cloud, &host, term),
            1 => stop(cloud, &host, term + term),
            2 => cut(cloud, &host, term, Ways::Both),
            3 => cut(cloud, &host, term, Ways::LeftToRight),
            4 => slow(cloud, &host, term + term),
            5 => power(cloud, &host, term),
            _ => (0..6).for_each(|_| {
                cut(cloud, &host, Duration::from_secs(1), Ways::Both);
                rest(Duration::from_millis(500));
            }),
        }
    }
}

fn milliseconds(dice: &mut Dice, least: u32, most: u32) -> Duration {
    Duration::from_millis((least + dice.below(most - least)).into())
}

fn kill(cloud: &LabCloud, host: &str, term: Duration) {
    cloud.signal_daemon(host, "KILL");
    rest(term / 3);
    let _up = cloud.welkin(host, "up").ok();
}

fn stop(cloud: &LabCloud, host: &str, term: Duration) {
    cloud.signal_daemon(host, "STOP");
    rest(term);
    cloud.signal_daemon(host, "CONT");
}

fn others<'a>(names: &'a [String], host: &str) -> Vec<&'a str> {
    let others = names.iter().filter(|name| *name != host);
    others.map(String::as_str).collect()
}

fn cut(cloud: &LabCloud, host: &str, term: Duration, ways: Ways) {
    let names = cloud.names();
    let cut = cloud.lab.cut(&[host], &others(&names, host), ways);
    cut.expect("all of them are hosts");
    rest(term);
    cloud.lab.heal().expect("links can be healed");
}

fn slow(cloud: &LabCloud, host: &str, term: Duration) {
    let names = cloud.names();
    for other in others(&names, host) {
        let link = Link::with_delay(Duration::from_millis(150)).loss(0.05);
        let slowed = cloud.lab.link(host, other, link);
        slowed.expect("both are hosts");
    }
    rest(term);
    cloud.lab.reset_links().expect("links can be reset");
}

fn power(cloud: &LabCloud, host: &str, term: Duration) {
    cloud.host(host).kill().expect("it was up");
    rest(term);
    cloud.host(host).start().expect("it boots");
    let _up = cloud.welkin(host, "up").ok();
}

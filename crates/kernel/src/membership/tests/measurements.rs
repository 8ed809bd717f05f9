//! The figures that are quoted, each from many seeds. They take minutes, so they are made only on
//! demand: `WELKIN_MEASURE=1 cargo test --release -p kernel measurements -- --nocapture`.

extern crate std;

use alloc::vec::Vec;
use core::fmt::Arguments;
use core::time::Duration;

use super::super::simulator::{Place, Record, Sight, Simulation};
use super::{detection, seconds};

fn wanted() -> bool {
    std::env::var_os("WELKIN_MEASURE").is_some()
}

#[expect(clippy::print_stderr, reason = "a measurement is for people to read")]
fn report(name: &str, what: Arguments<'_>) {
    std::eprintln!("{name:16} {what}");
}

/// The median and the worst, in seconds.
fn spread(mut values: Vec<Duration>) -> (f64, f64) {
    values.sort();
    let median = values[values.len() / 2].as_secs_f64();
    (median, values.last().unwrap().as_secs_f64())
}

/// How many seeds a cloud of this size is worth.
fn seeds(count: u64) -> u64 {
    match count {
        0..=20 => 100,
        21..=200 => 20,
        _ => 3,
    }
}

#[test]
fn detection_of_a_kill() {
    if !wanted() {
        return;
    }
    for count in [2, 3, 5, 20, 100, 1_000] {
        for (place, loss) in [
            (Place::Room, 0.0),
            (Place::World, 0.0),
            (Place::World, 0.02),
            (Place::World, 0.05),
        ] {
            let (mut firsts, mut most, mut lasts) = (Vec::new(), Vec::new(), Vec::new());
            for seed in 0..seeds(count) {
                let delays = detection(count, place, loss, seed);
                firsts.push(delays[0]);
                most.push(delays[(delays.len() * 99).div_ceil(100) - 1]);
                lasts.push(*delays.last().unwrap());
            }
            let (first, most, last) = (spread(firsts).0, spread(most).0, spread(lasts));
            let (all, worst) = last;
            report(
                "kill",
                format_args!(
                    "{count} {place:?} loss {loss}: medians: first {first:.1}, 99 % {most:.1}, \
                     all {all:.1} s; worst {worst:.1} s"
                ),
            );
        }
    }
}

#[test]
fn many_kills_at_once() {
    if !wanted() {
        return;
    }
    for (count, every) in [(5, 2), (100, 3), (1_000, 10)] {
        let mut times = Vec::new();
        let mut wrong = 0;
        for seed in 0..seeds(count) {
            let mut simulation = Simulation::acquainted(count, Place::World, seed);
            let since = simulation.now;
            for id in (1..=count).step_by(every) {
                simulation.kill(id);
            }
            times.push(
                simulation
                    .run_until(seconds(300), Simulation::agree)
                    .unwrap(),
            );
            wrong += simulation.false_losses(since);
        }
        let (median, worst) = spread(times);
        report(
            "many kills",
            format_args!(
                "one in {every} of {count}: all agree after {median:.1}, worst {worst:.1} s; \
                 {wrong} false losses"
            ),
        );
    }
}

#[test]
fn false_losses_under_loss() {
    if !wanted() {
        return;
    }
    for (count, length, runs) in [
        (2, 3_600, 20),
        (3, 3_600, 20),
        (5, 3_600, 20),
        (20, 1_200, 10),
        (100, 300, 10),
        (1_000, 3_600, 1),
    ] {
        for loss in [0.02, 0.05, 0.1, 0.2] {
            if count == 1_000 && loss > 0.02 {
                continue;
            }
            let mut wrong = 0;
            for seed in 0..runs {
                let mut simulation = Simulation::acquainted(count, Place::World, seed);
                simulation.loss = loss;
                let since = simulation.now;
                simulation.run_for(seconds(length));
                wrong += simulation.false_losses(since);
            }
            report(
                "false losses",
                format_args!("{count} nodes, {runs} x {length} s, loss {loss}: {wrong}"),
            );
        }
    }
}

#[test]
fn isolation_of_all() {
    if !wanted() {
        return;
    }
    for count in [2, 3, 5, 100, 1_000] {
        let (mut apart, mut together) = (Vec::new(), Vec::new());
        for seed in 0..seeds(count).min(20) {
            let mut simulation = Simulation::acquainted(count, Place::World, seed);
            for id in simulation.ids() {
                simulation.group(id, u32::try_from(id).unwrap());
            }
            let start = simulation.now;
            let all_alone = |simulation: &Simulation| {
                simulation.ids().all(|id| {
                    let mut members = simulation.membership(id).members();
                    members.all(|(_, liveness)| !liveness.is_up())
                })
            };
            apart.push(simulation.run_until(seconds(120), all_alone).unwrap());
            simulation.run_for((start + seconds(120)).since(simulation.now));
            for id in simulation.ids() {
                simulation.group(id, 0);
            }
            together.push(
                simulation
                    .run_until(seconds(600), Simulation::agree)
                    .unwrap(),
            );
        }
        let (apart, together) = (spread(apart), spread(together));
        report(
            "isolation",
            format_args!(
                "{count}: seen after {:.1}, worst {:.1} s; healed after {:.1}, worst {:.1} s",
                apart.0, apart.1, together.0, together.1
            ),
        );
    }
}

#[test]
fn partition_in_halves() {
    if !wanted() {
        return;
    }
    for count in [4, 20, 100, 1_000] {
        let (mut splits, mut merges, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
        let mut wrong = 0;
        for seed in 0..seeds(count).min(20) {
            let mut simulation = Simulation::acquainted(count, Place::Room, seed);
            for id in simulation.ids().filter(|id| id % 2 == 0) {
                simulation.group(id, 1);
            }
            let start = simulation.now;
            let split = |simulation: &Simulation| {
                simulation.ids().all(|id| {
                    let mut members = simulation.membership(id).members();
                    members.all(|(other, liveness)| liveness.is_up() == (other % 2 == id % 2))
                })
            };
            splits.push(simulation.run_until(seconds(600), split).unwrap());
            simulation.run_for((start + seconds(600)).since(simulation.now));
            for id in simulation.ids() {
                simulation.group(id, 0);
            }
            let (healed, before) = (simulation.now, simulation.traffic());
            merges.push(
                simulation
                    .run_until(seconds(300), Simulation::agree)
                    .unwrap(),
            );
            simulation.run_for((healed + seconds(30)).since(simulation.now));
            bytes.push((simulation.traffic() - before) / count);
            wrong += simulation.false_losses(healed);
        }
        let (split, merge) = (spread(splits), spread(merges));
        let kilobytes = bytes.iter().max().unwrap() / 1_000;
        report(
            "halves",
            format_args!(
                "{count}: seen after {:.1}, worst {:.1} s; together after {:.1}, worst {:.1} s; \
                 {wrong} false losses; at most {kilobytes} kB a node in the first 30 s",
                split.0, split.1, merge.0, merge.1
            ),
        );
    }
}

/// So many of 128 are ill for so long: how often is a healthy member lost to a healthy one, and to
/// an ill one?
fn illness(ill: u64, length: u64, pause: bool, seed: u64) -> (usize, usize) {
    let mut simulation = Simulation::acquainted(128, Place::Room, seed);
    let since = simulation.now;
    for id in 1..=ill {
        if pause {
            simulation.pause(id);
        } else {
            simulation.deafen(id, true);
        }
    }
    simulation.run_for(seconds(length));
    for id in 1..=ill {
        if pause {
            simulation.resume(id);
        } else {
            simulation.deafen(id, false);
        }
    }
    simulation.run_for(seconds(120 - length));
    let records = simulation.records.iter();
    let lost = |record: &&Record| record.at >= since && record.sight == Sight::Unreachable;
    let wrong: Vec<&Record> = records
        .filter(lost)
        .filter(|record| record.subject > ill)
        .collect();
    let by_healthy = wrong.iter().filter(|record| record.observer > ill).count();
    (by_healthy, wrong.len() - by_healthy)
}

#[test]
fn deaf_and_paused_members() {
    if !wanted() {
        return;
    }
    for (ill, length) in [(4, 16), (4, 32), (16, 4), (16, 16), (16, 32)] {
        for (name, pause) in [("deaf", false), ("paused", true)] {
            let runs = (0..3).map(|seed| illness(ill, length, pause, seed));
            let (by_healthy, by_ill) = runs.fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
            report(
                name,
                format_args!(
                    "{ill} of 128 for {length} s, 3 runs: healthy members lost to healthy ones: \
                     {by_healthy}, to the ill: {by_ill}"
                ),
            );
        }
    }
}

#[test]
fn idle_traffic() {
    if !wanted() {
        return;
    }
    for count in [2, 10, 100, 1_000, 4_000] {
        let mut simulation = Simulation::acquainted(count, Place::World, 1);
        let sums = |simulation: &Simulation| {
            let machines = simulation.machines.iter();
            let sum = |of: fn(&super::super::simulator::Machine) -> u64| {
                machines.clone().map(of).sum::<u64>()
            };
            [
                sum(|machine| machine.datagrams),
                sum(|machine| machine.datagram_bytes),
                sum(|machine| machine.sync_bytes),
                sum(|machine| machine.wakes),
            ]
        };
        // How they became acquainted takes a while to go round among thousands.
        simulation.run_for(seconds(60));
        let before = sums(&simulation);
        simulation.run_for(seconds(300));
        let after = sums(&simulation);
        let rate = |index: usize| {
            let whole = u32::try_from(after[index] - before[index]).unwrap();
            f64::from(whole) / 300.0 / f64::from(u32::try_from(count).unwrap())
        };
        report(
            "idle",
            format_args!(
                "{count}: {:.2} datagrams, {:.0} B, anti-entropy {:.1} B, woken {:.1} times; \
                 a node and second",
                rate(0),
                rate(1),
                rate(2),
                rate(3)
            ),
        );
    }
}

#[test]
fn start_of_all() {
    if !wanted() {
        return;
    }
    for count in [3, 5, 100, 300] {
        let mut simulation = Simulation::new(count, Place::World, 1);
        let since = simulation.now;
        for id in simulation.ids() {
            simulation.start(id);
        }
        let took = simulation
            .run_until(seconds(200), Simulation::agree)
            .unwrap();
        simulation.run_for(seconds(30));
        let wrong = simulation.false_losses(since);
        report(
            "start",
            format_args!("{count}: all know all after {took:?}; {wrong} false losses"),
        );
    }
}

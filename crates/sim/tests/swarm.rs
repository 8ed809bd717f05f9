//! A short swarm: fixed seeds, and the one in `WELKIN_SEED`.

use sim::swarm::{Options, swarm};

fn check(seed: u64) {
    if let Err(failure) = swarm(seed, &Options::default()) {
        panic!("{failure}");
    }
}

#[test]
fn the_first_seeds_hold() {
    (1..=40).for_each(check);
}

#[test]
fn the_seed_from_outside_holds() {
    let seed = std::env::var("WELKIN_SEED").ok();
    if let Some(seed) = seed.and_then(|text| text.parse().ok()) {
        check(seed);
    }
}

#[test]
fn a_seed_makes_the_same_run_every_time() {
    let run = || {
        let stats = swarm(5, &Options::default()).unwrap();
        (stats.counts, stats.simulated, stats.acknowledged)
    };
    assert_eq!(run(), run());
}

//! A short swarm: fixed seeds, seeds that once found something, and the one in `WELKIN_SEED`.

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

/// What each of them found is told by the module that was mended.
#[test]
fn seeds_that_found_something_hold() {
    [244, 296, 1036, 2458, 3013, 7778, 8945]
        .into_iter()
        .for_each(check);
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
        let stats = swarm(7, &Options::default()).unwrap();
        (stats.counts, stats.simulated, stats.acknowledged)
    };
    assert_eq!(run(), run());
}

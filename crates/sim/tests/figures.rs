//! The figures that `cargo xtask bench scale` makes of a thousand nodes, of a few: what holds there
//! and breaks here is found every day.

use std::time::Duration;

use sim::figures::{Cloud, PACKET_HEADER_BYTES};

const NODES: usize = 24;
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_crash_is_known_to_all_within_eight_seconds() {
    let mut cloud = Cloud::at_rest(1, NODES);
    for _ in 0..3 {
        let known = cloud.crash();
        assert_eq!(known.len(), NODES - 1);
        assert!(
            known.iter().all(|it| *it <= Duration::from_secs(8)),
            "{known:?}"
        );
    }
}

#[test]
fn nobody_is_lost_for_lost_datagrams() {
    let mut cloud = Cloud::at_rest(2, NODES);
    let before = cloud.world().counts().datagrams;
    let errors = cloud.lossy(10 * MINUTE);
    assert!(cloud.world().counts().datagrams > before);
    assert_eq!(errors.losses, 0);
}

#[test]
fn an_idle_node_says_as_little_in_a_larger_cloud() {
    for nodes in [4, NODES] {
        let traffic = Cloud::at_rest(3, nodes).idle(10 * MINUTE);
        let packets = traffic.datagrams + traffic.messages;
        let payload = traffic.datagram_bytes + traffic.message_bytes;
        let bytes = payload + packets * f64::from(PACKET_HEADER_BYTES);
        assert!(bytes > 0.0 && bytes <= 90.0, "{nodes} nodes: {bytes} B/s");
    }
}

#[test]
fn halves_and_those_who_were_alone_are_one_again() {
    let mut cloud = Cloud::at_rest(4, NODES);
    let merge = cloud.halves(10 * MINUTE);
    assert!(
        merge.took.is_some_and(|it| it <= Duration::from_secs(30)),
        "{merge:?}"
    );
    assert!(cloud.world().counts().losses >= (NODES * NODES / 2) as u64);
    let merge = cloud.isolation(NODES / 8, 2 * MINUTE);
    assert!(
        merge.took.is_some_and(|it| it <= Duration::from_secs(55)),
        "{merge:?}"
    );
}

#[test]
fn a_seed_makes_the_same_figures_every_time() {
    let crash = || Cloud::at_rest(5, 8).crash();
    assert_eq!(crash(), crash());
}

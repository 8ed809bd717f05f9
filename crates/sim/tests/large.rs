//! Larger clouds, whole kernels: what is told of membership in its own tests holds here as well.
//! Numbers are printed; `SIM_MACHINES` says how many machines, 40 when it is absent.

#![expect(clippy::print_stdout, reason = "a measurement that is read by eye")]

use std::time::Duration;

use kernel::instant::Instant;
use sim::latency::Matrix;
use sim::world::{Hardware, JoinOutcome, MachineId, World};
use wire::call::{Invite, NodeList, Response};

const SECOND: Duration = Duration::from_secs(1);

fn machines() -> usize {
    let text = std::env::var("SIM_MACHINES").ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(40)
}

/// A cloud whose machines join one after the other, each a moment after the last.
fn cloud(count: usize) -> (World, Vec<MachineId>) {
    let mut world = World::new(1, Matrix::cities());
    let places = world.matrix().places();
    let machines: Vec<MachineId> = (0..count)
        .map(|number| {
            let mut hardware = Hardware::ordinary(&format!("n{number}"));
            hardware.place = number % places;
            world.add(hardware)
        })
        .collect();
    world.found(machines[0]);
    world.pass(SECOND);
    let invite = Invite {
        uses: 10_000,
        ttl_s: 3600,
        labels: Default::default(),
    };
    let Ok(Response::Invite(invitation)) = world.ask(machines[0], invite, SECOND) else {
        panic!("no ticket");
    };
    let joins: Vec<_> = machines[1..]
        .iter()
        .map(|machine| {
            world.pass(Duration::from_millis(50));
            world.join(*machine, &invitation.ticket)
        })
        .collect();
    world.pass(SECOND * 5);
    for join in joins {
        let outcome = world.join_outcome(join);
        assert!(matches!(outcome, JoinOutcome::Admitted(_)), "{outcome:?}");
    }
    (world, machines)
}

/// How many nodes each machine says are up.
fn counts(world: &mut World, machines: &[MachineId]) -> Vec<usize> {
    let mut count = |machine: &MachineId| match world.ask(*machine, NodeList {}, SECOND) {
        Ok(Response::NodeList(list)) => list.nodes.iter().filter(|it| it.state.is_up()).count(),
        other => panic!("{other:?}"),
    };
    machines.iter().map(&mut count).collect()
}

/// Lets time pass until everybody says that so many are up; how long it took.
fn until_all_see(
    world: &mut World,
    machines: &[MachineId],
    wanted: usize,
    within: Duration,
) -> Duration {
    let begin: Instant = world.now();
    loop {
        let seen = counts(world, machines);
        let taken = world.now().since(begin);
        if seen.iter().all(|it| *it == wanted) {
            return taken;
        }
        assert!(taken < within, "after {taken:?}: {seen:?}");
        world.pass(Duration::from_millis(250));
    }
}

#[test]
fn all_find_each_other_and_learn_of_a_crash_within_seconds() {
    let count = machines();
    let (mut world, machines) = cloud(count);
    let found = until_all_see(&mut world, &machines, count, SECOND * 60);
    world.pass(SECOND * 20);
    let before = world.counts();
    world.pass(SECOND * 60);
    let after = world.counts();
    let nodes = count as u64 * 60;
    let datagrams = (after.datagram_bytes - before.datagram_bytes) / nodes;
    let messages = (after.message_bytes - before.message_bytes) / nodes;

    let (killed, rest) = machines.split_last().unwrap();
    world.crash(*killed);
    let known = until_all_see(&mut world, rest, count - 1, SECOND * 30);
    world.start(*killed);
    let back = until_all_see(&mut world, &machines, count, SECOND * 60);
    println!(
        "{count} nodes: all found each other {found:?} after the last join; idle {datagrams} B/s in \
         datagrams and {messages} B/s in messages a node; a crash is known to all after {known:?}, \
         the return after {back:?}"
    );
    assert!(world.violations().is_empty(), "{:?}", world.violations());
}

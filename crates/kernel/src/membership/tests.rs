//! What the module promises, held against the simulator.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use foca::{Member, Message, State};
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use rand::RngExt;

use wire::peer::{MemberItem, MemberState};

use super::datagram::{Body, Datagram, Id, LEFT, RESTING};
use super::simulator::{Place, Record, Sight, Simulation};
use super::{BOOTS_RESERVED, Event, Liveness, Membership, SETTLE_AFTER};
use crate::alarm::Alarm;
use crate::instant::Instant;
use crate::limits;

mod measurements;

fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

/// Kills one machine and tells, for each other, when it saw that.
fn detection(count: u64, place: Place, loss: f64, seed: u64) -> Vec<Duration> {
    let mut simulation = Simulation::acquainted(count, place, seed);
    simulation.loss = loss;
    let wait = simulation.chance().random_range(0..5_000);
    simulation.run_for(Duration::from_millis(wait));
    let victim = simulation.chance().random_range(1..=count);
    let killed = simulation.now;
    simulation.kill(victim);
    simulation.run_for(seconds(30));
    let mut seen: BTreeMap<u64, Instant> = BTreeMap::new();
    for record in &simulation.records {
        if record.at >= killed && record.subject == victim && record.sight == Sight::Unreachable {
            seen.entry(record.observer).or_insert(record.at);
        }
    }
    let mut delays: Vec<Duration> = seen.values().map(|at| at.since(killed)).collect();
    delays.sort();
    assert_eq!(
        delays.len() + 1,
        usize::try_from(count).unwrap(),
        "seed {seed}: somebody did not see it"
    );
    delays
}

/// Kills one of so many, once a seed; demands that all saw it in time.
fn check_detection(count: u64, seeds: u64, median_at_most: Duration, worst_at_most: Duration) {
    for (place, loss) in [(Place::Room, 0.0), (Place::World, 0.02)] {
        let last = |seed| *detection(count, place, loss, seed).last().unwrap();
        let mut lasts: Vec<Duration> = (0..seeds).map(last).collect();
        lasts.sort();
        let median = lasts[lasts.len() / 2];
        let worst = *lasts.last().unwrap();
        assert!(median <= median_at_most, "{place:?}: median {median:?}");
        assert!(worst <= worst_at_most, "{place:?}: worst {worst:?}");
    }
}

/// Leaves so many alone under loss; nobody may be lost.
fn check_no_false_losses(count: u64, loss: f64, length: Duration, seed: u64) {
    let mut simulation = Simulation::acquainted(count, Place::World, seed);
    simulation.loss = loss;
    let since = simulation.now;
    simulation.run_for(length);
    assert_eq!(simulation.false_losses(since), 0, "{count} nodes");
    assert!(simulation.alarms.is_empty(), "{:?}", simulation.alarms);
}

fn states(simulation: &Simulation, of: u64) -> BTreeSet<(u64, bool)> {
    let others = simulation.ids().filter(|&id| id != of);
    let running = others.filter(|&id| simulation.is_running(id));
    running
        .map(|id| (id, simulation.membership(id).state(of).is_up()))
        .collect()
}

fn all_hold(simulation: &Simulation, of: u64, up: bool) -> bool {
    states(simulation, of).iter().all(|&(_, is_up)| is_up == up)
}

/// A membership on its own, without a simulator.
fn alone(me: u64, roster: &[u64]) -> Membership {
    let roster = roster.iter().copied();
    Membership::new(Instant::from_micros(0), me, 0, roster, [7; 32])
}

fn events(membership: &mut Membership) -> Vec<Event> {
    core::iter::from_fn(|| membership.poll_event()).collect()
}

#[test]
fn a_killed_machine_is_seen_by_all_of_a_small_cloud_within_seconds() {
    check_detection(5, 40, Duration::from_millis(4_500), seconds(8));
}

#[test]
fn a_killed_machine_is_seen_by_the_other_of_two() {
    check_detection(2, 20, seconds(5), seconds(6));
}

#[test]
fn a_killed_machine_is_seen_by_all_of_sixty_within_seconds() {
    check_detection(60, 5, seconds(6), seconds(9));
}

#[test]
fn lost_datagrams_make_no_member_lost() {
    check_no_false_losses(2, 0.02, seconds(1_800), 1);
    check_no_false_losses(3, 0.05, seconds(1_800), 2);
    check_no_false_losses(5, 0.1, seconds(1_800), 3);
    check_no_false_losses(50, 0.05, seconds(100), 4);
}

#[test]
fn half_of_a_cloud_can_die_at_once() {
    let mut simulation = Simulation::acquainted(5, Place::World, 1);
    let since = simulation.now;
    for id in [1, 3, 5] {
        simulation.kill(id);
    }
    let took = simulation.run_until(seconds(60), Simulation::agree);
    assert!(took.is_some_and(|took| took < seconds(15)), "{took:?}");
    assert_eq!(simulation.false_losses(since), 0);
}

#[test]
fn members_that_were_all_alone_find_together_again() {
    for count in [2, 3, 30] {
        let mut simulation = Simulation::acquainted(count, Place::World, count);
        for id in simulation.ids() {
            simulation.group(id, u32::try_from(id).unwrap());
        }
        simulation.run_for(seconds(120));
        for id in simulation.ids() {
            assert!(
                all_hold(&simulation, id, false),
                "{id} of {count} is held as up"
            );
            simulation.group(id, 0);
        }
        let took = simulation.run_until(seconds(60), Simulation::agree);
        assert!(
            took.is_some_and(|took| took < seconds(20)),
            "{count}: {took:?}"
        );
        let wakes = simulation.wakes();
        simulation.run_for(seconds(100));
        assert!(
            simulation.wakes() - wakes < count * 100 * 3,
            "it found no rest"
        );
    }
}

#[test]
fn the_halves_of_a_divided_cloud_find_together_without_losing_anyone() {
    for count in [4, 24] {
        let mut simulation = Simulation::acquainted(count, Place::Room, count);
        for id in simulation.ids().filter(|id| id % 2 == 0) {
            simulation.group(id, 1);
        }
        simulation.run_for(seconds(120));
        let divided = simulation.now;
        simulation.run_for(seconds(480));
        assert_eq!(simulation.false_losses(divided), 0, "of the own half");
        for id in simulation.ids() {
            let membership = simulation.membership(id);
            assert!(
                membership
                    .members()
                    .all(|(other, liveness)| liveness.is_up() == (other % 2 == id % 2))
            );
            simulation.group(id, 0);
        }
        let healed = simulation.now;
        let took = simulation.run_until(seconds(120), Simulation::agree);
        assert!(
            took.is_some_and(|took| took < seconds(30)),
            "{count}: {took:?}"
        );
        simulation.run_for(seconds(60));
        assert!(simulation.agree());
        assert!(simulation.false_losses(healed) <= 2);
    }
}

#[test]
fn members_that_hear_nothing_for_a_while_blame_nobody() {
    let mut simulation = Simulation::acquainted(40, Place::Room, 3);
    let since = simulation.now;
    for id in 1..=5 {
        simulation.deafen(id, true);
    }
    simulation.run_for(seconds(16));
    for id in 1..=5 {
        simulation.deafen(id, false);
    }
    simulation.run_for(seconds(60));
    let blamed = |record: &&Record| {
        record.at >= since && record.sight == Sight::Unreachable && record.subject > 5
    };
    assert_eq!(simulation.records.iter().filter(blamed).count(), 0);
    assert!(simulation.agree());
}

#[test]
fn a_member_that_slept_blames_nobody_and_comes_back() {
    for length in [1, 16, 60, 3_000] {
        let mut simulation = Simulation::acquainted(5, Place::Room, length);
        let since = simulation.now;
        simulation.pause(2);
        simulation.run_for(seconds(length));
        assert_eq!(all_hold(&simulation, 2, true), length == 1);
        simulation.resume(2);
        let took = simulation.run_until(seconds(60), Simulation::agree);
        assert!(
            took.is_some_and(|took| took < seconds(20)),
            "{length}: {took:?}"
        );
        let records = simulation.records.iter();
        let blamed: Vec<_> = records
            .filter(|record| record.at >= since && record.subject != 2)
            .filter(|record| record.sight != Sight::Up)
            .collect();
        assert!(blamed.is_empty(), "{length}: {blamed:?}");
    }
}

#[test]
fn an_idle_node_costs_the_same_in_small_and_large_clouds() {
    for count in [5, 60] {
        let mut simulation = Simulation::acquainted(count, Place::World, count);
        simulation.run_for(seconds(30));
        let before = simulation.traffic();
        let wakes = simulation.wakes();
        simulation.run_for(seconds(100));
        let per_node = (simulation.traffic() - before) / count / 100;
        assert!(per_node <= 100, "{per_node} bytes a second");
        let wakes = simulation.wakes() - wakes;
        assert!(
            wakes < count * 100 * 3,
            "it is woken though there is nothing to say"
        );
    }
}

#[test]
fn a_machine_that_starts_again_is_up_whether_it_was_missed_or_not() {
    for away in [0, 2, 30] {
        let mut simulation = Simulation::acquainted(5, Place::Room, away);
        simulation.kill(3);
        simulation.run_for(seconds(away));
        let started = simulation.now;
        simulation.start(3);
        simulation.run_for(seconds(3));
        assert!(simulation.agree(), "away for {away} s");
        assert!(simulation.membership(3).boot() >= BOOTS_RESERVED);
        simulation.run_for(seconds(60));
        assert!(simulation.agree());
        assert_eq!(simulation.false_losses(started), 0);
    }
}

#[test]
fn a_cloud_that_starts_together_knows_itself_at_once() {
    let mut simulation = Simulation::new(20, Place::World, 1);
    for id in simulation.ids() {
        simulation.start(id);
    }
    let took = simulation.run_until(seconds(60), Simulation::agree);
    assert!(took.is_some_and(|took| took < seconds(6)), "{took:?}");
}

#[test]
fn a_member_that_rests_is_missed_by_nobody_until_it_is_back() {
    for (count, away) in [(2, 20), (8, 20), (8, 2)] {
        let mut simulation = Simulation::acquainted(count, Place::World, away);
        let since = simulation.now;
        simulation.with(2, |_, membership| membership.rest());
        simulation.kill(2);
        simulation.run_for(seconds(away));
        simulation.start(2);
        simulation.run_for(seconds(60));
        assert!(simulation.agree(), "{count} members, away for {away} s");
        let missed = |record: &&Record| record.at >= since && record.sight != Sight::Up;
        assert_eq!(simulation.records.iter().find(missed).map(|it| it.at), None);
    }
}

#[test]
fn a_member_that_rests_for_ever_is_lost_in_the_end() {
    let mut simulation = Simulation::acquainted(8, Place::World, 1);
    simulation.with(2, |_, membership| membership.rest());
    simulation.kill(2);
    let lost = |record: &&Record| record.subject == 2 && record.sight == Sight::Unreachable;
    simulation.run_for(seconds(25));
    assert_eq!(simulation.records.iter().filter(lost).count(), 0);
    simulation.run_for(seconds(20));
    assert_eq!(simulation.records.iter().filter(lost).count(), 7);
    assert!(simulation.agree());
}

#[test]
fn nobody_is_put_to_rest_by_others() {
    let mut simulation = Simulation::acquainted(5, Place::Room, 1);
    let since = simulation.now;
    let boot = simulation.membership(2).boot();
    let said = Member::new(Id { node: 2, boot }, RESTING, State::Alive);
    for id in [1, 2, 3] {
        let said = said.clone();
        simulation.with(id, |now, membership| {
            membership.learn(now, [said].into_iter(), true);
        });
    }
    simulation.run_for(seconds(10));
    assert!(simulation.membership(2).boot() > boot, "it has begun anew");
    simulation.kill(2);
    simulation.run_for(seconds(12));
    assert!(simulation.agree(), "it is missed as soon as any");
    assert_eq!(simulation.false_losses(since), 0);
}

#[test]
fn a_member_that_leaves_is_seen_to_leave_at_once() {
    let mut simulation = Simulation::acquainted(8, Place::World, 1);
    simulation.with(4, |_, membership| membership.leave());
    simulation.kill(4);
    simulation.run_for(seconds(2));
    let left = |record: &&Record| record.sight == Sight::Left;
    let observers: BTreeSet<u64> = simulation
        .records
        .iter()
        .filter(left)
        .map(|record| record.observer)
        .collect();
    assert_eq!(observers.len(), 7);
    assert!(simulation.agree());
    assert!(
        simulation
            .records
            .iter()
            .all(|record| record.sight != Sight::Unreachable)
    );
    simulation.start(4);
    simulation.run_for(seconds(3));
    assert!(simulation.agree());
}

#[test]
fn a_lost_member_is_gone_after_the_term_and_can_still_come_back() {
    let mut simulation = Simulation::acquainted(3, Place::Room, 1);
    simulation.kill(1);
    simulation.run_for(seconds(590));
    let gone = |simulation: &Simulation| {
        let records = simulation.records.iter();
        records.filter(|record| record.sight == Sight::Gone).count()
    };
    assert_eq!(gone(&simulation), 0);
    simulation.run_for(seconds(30));
    assert_eq!(gone(&simulation), 2);
    let state = simulation.membership(2).state(1);
    assert!(matches!(state, Liveness::Gone { .. }));
    simulation.run_for(seconds(86_400));
    simulation.start(1);
    simulation.run_for(seconds(3));
    assert!(simulation.agree());
}

#[test]
fn a_member_that_nobody_ever_hears_is_unreachable_and_then_gone() {
    let mut membership = alone(1, &[2]);
    assert_eq!(membership.state(2), Liveness::Unheard);
    let mut now = Instant::from_micros(0);
    let mut seen = Vec::new();
    while now < Instant::from_micros(0) + SETTLE_AFTER + limits::GONE_AFTER + seconds(1) {
        now = membership.poll_timeout().unwrap();
        membership.handle_timeout(now);
        let events = events(&mut membership).into_iter();
        seen.extend(events.filter(|event| matches!(event, Event::Unreachable(_) | Event::Gone(_))));
    }
    assert_eq!(seen, [Event::Unreachable(2), Event::Gone(2)]);
}

#[test]
fn a_new_member_is_up_everywhere_though_only_one_admitted_it_first() {
    let mut simulation = Simulation::new(6, Place::Room, 1);
    let five: Vec<u64> = (1..=5).collect();
    for id in 1..=5 {
        simulation.start_with(id, &five);
    }
    simulation.run_for(seconds(60));
    simulation.with(1, |now, membership| membership.admit(now, 6));
    simulation.start(6);
    simulation.run_for(Duration::from_millis(300));
    for id in 2..=5 {
        simulation.with(id, |now, membership| membership.admit(now, 6));
    }
    simulation.run_for(seconds(2));
    assert!(simulation.agree());
    simulation.run_for(seconds(60));
    assert!(simulation.agree());
    assert_eq!(simulation.false_losses(Instant::from_micros(0)), 0);
}

#[test]
fn an_expelled_member_is_neither_spoken_nor_listened_to() {
    let mut simulation = Simulation::acquainted(5, Place::Room, 1);
    for id in 1..=4 {
        simulation.with(id, |now, membership| membership.expel(now, 5));
    }
    let before = simulation.machine(5).received;
    simulation.run_for(seconds(120));
    assert_eq!(simulation.machine(5).received, before);
    for id in 1..=4 {
        let membership = simulation.membership(id);
        assert_eq!(membership.state(5), Liveness::Unheard);
        assert!(membership.items(u64::MAX).iter().all(|item| item.node != 5));
        assert_eq!(membership.members().count(), 3);
    }
    simulation.with(1, |now, membership| membership.admit(now, 5));
    assert_eq!(simulation.membership(1).members().count(), 3);
}

#[test]
fn a_machine_whose_disk_went_back_in_time_takes_a_boot_that_nobody_knows() {
    let mut simulation = Simulation::acquainted(4, Place::Room, 1);
    for _ in 0..5 {
        simulation.kill(2);
        simulation.start(2);
        simulation.run_for(seconds(10));
    }
    let high = simulation.membership(2).boot();
    simulation.kill(2);
    simulation.machine(2).boot_on_disk = 0;
    simulation.start(2);
    simulation.run_for(seconds(15));
    assert!(simulation.agree());
    assert!(simulation.membership(2).boot() > high);
    assert!(simulation.machine(2).boot_on_disk > simulation.membership(2).boot());
    assert!(simulation.alarms.contains(&(2, Alarm::BootBehind)));
}

#[test]
fn a_boot_is_not_used_before_it_is_reserved() {
    let mut membership = alone(1, &[2]);
    let now = Instant::from_micros(1);
    let ahead = Datagram {
        from: Id { node: 2, boot: 0 },
        incarnation: 0,
        to: Id { node: 1, boot: 100 },
        body: Body::Swim(Message::Gossip, vec![]),
    };
    membership.handle_datagram(now, 2, &ahead.to_bytes());
    assert_eq!(membership.boot(), 0);
    let until = 101 + BOOTS_RESERVED;
    assert!(events(&mut membership).contains(&Event::Reserve { until }));
    membership.reserved(now, until);
    assert_eq!(membership.boot(), 101);
}

/// A datagram that was addressed to boot 4294967294 made the node reserve all numbers there are, for
/// good: its next start counted beyond them and ended, and so did every start after that.
#[test]
fn a_boot_that_nobody_can_have_reached_is_not_believed() {
    let mut membership = alone(1, &[2, 3]);
    let now = Instant::from_micros(1);
    let boot = u32::MAX - 1;
    let said = |to, updates| Datagram {
        from: Id { node: 2, boot: 0 },
        incarnation: 0,
        to: Id { node: 1, boot: to },
        body: Body::Swim(Message::Gossip, updates),
    };
    let own = Member::new(Id { node: 1, boot }, 0, State::Down);
    let other = Member::alive(Id { node: 3, boot });
    for datagram in [said(boot, vec![]), said(0, vec![own, other])] {
        membership.handle_datagram(now, 2, &datagram.to_bytes());
    }
    let down = MemberItem {
        node: 1,
        boot,
        incarnation: 0,
        state: MemberState::Down,
    };
    membership.merge(now, 2, &[down, MemberItem { node: 3, ..down }], false);
    let events = events(&mut membership);
    assert!(!events.iter().any(|it| matches!(it, Event::Reserve { .. })));
    assert!(events.iter().any(|it| matches!(it, Event::Alarm { .. })));
    assert!(membership.held(3).is_none(), "{:?}", membership.held(3));
    let itself = Datagram {
        from: Id { node: 3, boot },
        ..said(0, vec![])
    };
    membership.handle_datagram(now, 3, &itself.to_bytes());
    assert!(membership.held(3).is_some(), "a member speaks for itself");
}

#[test]
fn nodes_that_know_the_same_have_the_same_hashes_and_others_not() {
    let mut simulation = Simulation::acquainted(10, Place::Room, 1);
    simulation.run_for(seconds(10));
    let hash = simulation.membership(1).members_hash();
    let buckets = simulation.membership(1).bucket_hashes();
    for id in 2..=10 {
        assert_eq!(simulation.membership(id).members_hash(), hash);
        assert_eq!(simulation.membership(id).bucket_hashes(), buckets);
    }
    simulation.kill(1);
    simulation.run_for(seconds(20));
    assert_ne!(simulation.membership(2).members_hash(), hash);
    let changed = simulation.membership(2).bucket_hashes();
    let differ = changed.iter().zip(&buckets).filter(|(a, b)| a != b);
    assert_eq!(differ.count(), 1);
    assert_eq!(simulation.membership(3).items(u64::MAX).len(), 10);
}

#[test]
fn what_was_missed_comes_with_anti_entropy() {
    let mut simulation = Simulation::acquainted(4, Place::Room, 1);
    simulation.kill(1);
    simulation.run_for(seconds(20));
    let mut newcomer = alone(9, &[1, 2, 3, 4]);
    let now = Instant::from_micros(5);
    let items = simulation.membership(2).items(u64::MAX);
    newcomer.merge(now, 2, &items, false);
    assert!(matches!(newcomer.state(1), Liveness::Unreachable { .. }));
    assert_eq!(newcomer.state(4), Liveness::Up);
    let events = events(&mut newcomer);
    assert!(events.contains(&Event::Unreachable(1)));
    assert!(events.contains(&Event::Up(3)));
}

#[test]
fn hearsay_of_a_loss_is_only_a_suspicion() {
    let mut membership = alone(1, &[2, 3]);
    let now = Instant::from_micros(1);
    let item = |node, state| MemberItem {
        node,
        boot: 0,
        incarnation: 0,
        state,
    };
    let up = [2, 3].map(|node| item(node, MemberState::Alive));
    membership.merge(now, 2, &up, false);
    membership.merge(now, 2, &[item(3, MemberState::Down)], true);
    assert_eq!(membership.state(3), Liveness::Suspect);
}

#[test]
fn a_ping_is_small() {
    let ping = Datagram {
        from: Id { node: 1, boot: 3 },
        incarnation: 2,
        to: Id { node: 2, boot: 90 },
        body: Body::Swim(Message::Ping(200), vec![]),
    };
    assert_eq!(ping.to_bytes(), [0x10, 3, 2, 90, 200, 0, 0]);
}

fn id() -> impl Strategy<Value = Id> {
    let boot = prop_oneof![0..4_u32, any::<u32>(), Just(u32::MAX)];
    (0..8_u64, boot).prop_map(|(node, boot)| Id { node, boot })
}

fn incarnation() -> impl Strategy<Value = u16> {
    prop_oneof![0..4_u16, any::<u16>(), Just(LEFT - 1), Just(LEFT)]
}

fn member() -> impl Strategy<Value = Member<Id>> {
    let state = prop_oneof![Just(State::Alive), Just(State::Suspect), Just(State::Down)];
    (id(), incarnation(), state)
        .prop_map(|(id, incarnation, state)| Member::new(id, incarnation, state))
}

fn message() -> impl Strategy<Value = Message<Id>> {
    (0..10_u8, any::<u8>(), id()).prop_map(|(kind, probe_number, id)| match kind {
        0 => Message::Ping(probe_number),
        1 => Message::Ack(probe_number),
        2 => Message::PingReq {
            target: id,
            probe_number,
        },
        3 => Message::IndirectPing {
            origin: id,
            probe_number,
        },
        4 => Message::IndirectAck {
            target: id,
            probe_number,
        },
        5 => Message::ForwardedAck {
            origin: id,
            probe_number,
        },
        6 => Message::Announce,
        7 => Message::Feed,
        8 => Message::Gossip,
        _ => Message::TurnUndead,
    })
}

fn body() -> impl Strategy<Value = Body> {
    let updates = proptest::collection::vec(member(), 0..6);
    let swim = (message(), updates).prop_map(|(message, updates)| {
        let bare = matches!(message, Message::Announce | Message::TurnUndead);
        Body::Swim(message, if bare { vec![] } else { updates })
    });
    prop_oneof![
        8 => swim,
        1 => Just(Body::Heard),
        1 => (id(), incarnation()).prop_map(|(id, at)| Body::Doubt(id, at)),
        1 => (id(), incarnation()).prop_map(|(id, at)| Body::Confirm(id, at)),
    ]
}

fn datagram() -> impl Strategy<Value = Datagram> {
    (id(), incarnation(), id(), body()).prop_map(|(from, incarnation, mut to, body)| {
        to.node = 1;
        Datagram {
            from,
            incarnation,
            to,
            body,
        }
    })
}

proptest! {
    #[test]
    fn a_datagram_is_read_as_it_was_written(datagram in datagram()) {
        let bytes = datagram.to_bytes();
        prop_assert_eq!(Datagram::parse(datagram.from.node, 1, &bytes), Ok(datagram));
    }

    #[test]
    fn bytes_that_are_no_datagram_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let mut membership = alone(1, &[2]);
        let _unread = Datagram::parse(2, 1, &bytes);
        membership.handle_datagram(Instant::from_micros(1), 2, &bytes);
    }

    #[test]
    fn nothing_that_members_say_makes_a_node_panic(
        steps in proptest::collection::vec((datagram(), 0..3_000_u64), 1..60)
    ) {
        let mut membership = alone(1, &[0, 2, 3, 4, 5, 6]);
        let mut now = Instant::from_micros(0);
        for (datagram, wait) in steps {
            now = now + Duration::from_millis(wait);
            membership.handle_datagram(now, datagram.from.node, &datagram.to_bytes());
            if membership.poll_timeout().is_some_and(|at| at <= now) {
                membership.handle_timeout(now);
            }
            let items = membership.items(u64::MAX);
            prop_assert!(items.len() <= 7);
            membership.merge(now, 2, &items, true);
            for event in events(&mut membership) {
                if let Event::Reserve { until } = event {
                    membership.reserved(now, until);
                }
            }
        }
    }
}

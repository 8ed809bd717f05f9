//! What two nodes compare to find out whether they know the same about the members.
//!
//! Sums and items only; [`super::Membership::merge`] decides what a difference means. A hash over
//! everything is compared first, then one a bucket, then the buckets themselves.

use alloc::vec;
use alloc::vec::Vec;

use foca::{Member, State};
use wire::peer::{BUCKETS, MemberItem, MemberState};

use super::datagram::Id;

const _: () = assert!(BUCKETS == 64, "a mask of buckets is an u64");

/// Over all members; the order does not matter.
pub(super) fn hash(members: impl Iterator<Item = Member<Id>>) -> u64 {
    members.fold(0, |sum, member| sum ^ of_member(&member))
}

/// The same, one a bucket.
pub(super) fn bucket_hashes(members: impl Iterator<Item = Member<Id>>) -> Vec<u64> {
    let mut sums = vec![0; BUCKETS];
    for member in members {
        if let Some(sum) = sums.get_mut(bucket(member.id().node)) {
            *sum ^= of_member(&member);
        }
    }
    sums
}

/// The bucket of a member.
pub(super) fn bucket(node: u64) -> usize {
    // Six bits are always an index.
    usize::try_from(mixed(node) >> 58).unwrap_or(0)
}

/// A member as it travels.
pub(super) fn item(member: &Member<Id>) -> MemberItem {
    MemberItem {
        node: member.id().node,
        boot: member.id().boot,
        incarnation: member.incarnation(),
        state: match member.state() {
            State::Alive => MemberState::Alive,
            State::Suspect => MemberState::Suspect,
            State::Down => MemberState::Down,
        },
    }
}

/// A member as foca knows it.
pub(super) fn member(item: &MemberItem, state: State) -> Member<Id> {
    let id = Id {
        node: item.node,
        boot: item.boot,
    };
    Member::new(id, item.incarnation, state)
}

/// A state as foca knows it.
pub(super) fn state(state: MemberState) -> State {
    match state {
        MemberState::Alive => State::Alive,
        MemberState::Suspect => State::Suspect,
        MemberState::Down => State::Down,
    }
}

/// A suspicion is no difference worth a comparison: it is over before the next one.
fn of_member(member: &Member<Id>) -> u64 {
    let down = u64::from(member.state() == State::Down);
    let version = u64::from(member.id().boot) << 32 | u64::from(member.incarnation()) << 1 | down;
    mixed(mixed(member.id().node) ^ version)
}

/// Spreads every bit over all others (the finalizer of splitmix64).
fn mixed(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

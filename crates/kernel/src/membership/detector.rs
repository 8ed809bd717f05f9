//! The arithmetic of failure detection: how long to wait before something is believed.
//!
//! It holds no members and sends nothing. Two ideas of Lifeguard (Dadgar, Phillips, Currey:
//! "Lifeguard: Local Health Awareness for More Accurate Failure Detection", arXiv 1707.00788)
//! are here: a node that may itself be ill trusts its own findings less ([`Health`], section
//! IV-A), and a suspicion that others confirm independently needs less time ([`patience`],
//! section IV-B).

use alloc::collections::BTreeSet;
use core::num::{NonZeroU8, NonZeroUsize};
use core::time::Duration;

use crate::instant::Instant;
use crate::limits;

use super::datagram::{ENVELOPE_BYTES, Id};

/// Time between two probes (SWIM section 3.1: the protocol period).
const PROBE_PERIOD: Duration = Duration::from_secs(1);
/// How long a direct answer may take. Of the round trips between 242 cities, 99 % take less than
/// 442 ms, so that one configuration serves a room and the world.
const PROBE_ROUND_TRIP: Duration = Duration::from_millis(500);
/// How many members are asked to ping one that did not answer (SWIM section 3.1: k).
const HELPERS: usize = 3;
/// Time between two rounds of gossip, while there is something to say.
pub(super) const GOSSIP_PERIOD: Duration = Duration::from_millis(200);
/// To how many members gossip goes in a round.
const GOSSIP_MEMBERS: usize = 3;
/// A change is passed on by one node so many times more than a logarithm of the cloud's size, and
/// at least so many times: each goes to a member by chance, and none shall be left out.
const TRANSMISSIONS_MORE: u32 = 4;
/// See [`TRANSMISSIONS_MORE`].
const TRANSMISSIONS_MIN: u32 = 10;

/// How many confirmations make a suspicion as short as it gets (Lifeguard section IV-B: K).
pub(super) const CONFIRMATIONS: usize = 3;
/// How many members are asked to confirm: some more, for datagrams get lost.
pub(super) const WITNESSES: usize = CONFIRMATIONS + 2;
/// How long a suspicion lasts that nobody confirms (Lifeguard section IV-B: Max).
const PATIENCE_MAX: Duration = Duration::from_secs(3);
/// How long it lasts when enough others confirm it (the same: Min).
const PATIENCE_MIN: Duration = Duration::from_millis(1_500);
/// Pings that a witness sends before it confirms, and the time after each.
pub(super) const WITNESS_PINGS: u8 = 3;
/// How often a witness says what it found, for datagrams get lost.
pub(super) const WITNESS_ANSWERS: u8 = 2;
/// See [`WITNESS_PINGS`].
pub(super) const WITNESS_PAUSE: Duration = PROBE_ROUND_TRIP;

/// How often witnesses are asked anew when none at all confirmed: that may be this node's fault.
pub(super) const APPEALS: u8 = 1;

/// Worst health (Lifeguard section IV-A: S).
const SCORE_MAX: u32 = 8;

const fn at_least_one(number: usize) -> NonZeroUsize {
    match NonZeroUsize::new(number) {
        Some(number) => number,
        None => NonZeroUsize::MIN,
    }
}

/// Foca's configuration in a cloud of so many nodes.
///
/// Suspicions, announcements and the forgetting of members are none of its business: see
/// [`super::Membership`].
pub(super) fn configuration(nodes: usize) -> foca::Config {
    foca::Config {
        probe_period: PROBE_PERIOD,
        probe_rtt: PROBE_ROUND_TRIP,
        num_indirect_probes: at_least_one(HELPERS),
        max_transmissions: transmissions(nodes),
        suspect_to_down_after: PATIENCE_MAX,
        remove_down_after: None,
        max_packet_size: at_least_one(limits::DATAGRAM_BYTES_MAX + ENVELOPE_BYTES),
        notify_down_members: true,
        periodic_announce: None,
        periodic_announce_to_down_members: None,
        periodic_gossip: Some(foca::PeriodicParams {
            frequency: GOSSIP_PERIOD,
            num_members: at_least_one(GOSSIP_MEMBERS),
        }),
    }
}

/// How often one node passes a change on: 4·log₁₀(n + 1) and some more (SWIM section 4.1: λ·log n).
fn transmissions(nodes: usize) -> NonZeroU8 {
    let nodes = u64::try_from(nodes.min(limits::NODES_MAX)).unwrap_or(u64::MAX);
    // 4·log₁₀(x) = log₁₀(x⁴); there is no floating-point logarithm here.
    let fourfold_logarithm = nodes.saturating_add(1).saturating_pow(4).ilog10();
    let count = (fourfold_logarithm + TRANSMISSIONS_MORE).max(TRANSMISSIONS_MIN);
    let count = u8::try_from(count).unwrap_or(u8::MAX);
    NonZeroU8::new(count).unwrap_or(NonZeroU8::MIN)
}

/// How long a suspicion lasts with so many confirmations, when so many were asked for:
/// max − (max − min)·log(C + 1)/log(K + 1) (Lifeguard section IV-B).
pub(super) fn patience(confirmations: usize, asked: usize) -> Duration {
    /// 1,000·log(C + 1)/log(K + 1), one row a K, one column a C.
    const SHARE: [[u32; CONFIRMATIONS + 1]; CONFIRMATIONS + 1] = [
        [0, 0, 0, 0],
        [0, 1_000, 1_000, 1_000],
        [0, 631, 1_000, 1_000],
        [0, 500, 792, 1_000],
    ];
    let row = SHARE.get(asked.min(CONFIRMATIONS));
    let share = row.and_then(|row| row.get(confirmations.min(CONFIRMATIONS)));
    PATIENCE_MAX - (PATIENCE_MAX - PATIENCE_MIN) * share.copied().unwrap_or(0) / 1_000
}

/// How well this node itself seems to be (Lifeguard section IV-A: the local health multiplier).
///
/// A direct answer makes it better. A member that did not answer makes it worse only if none of
/// those that were asked for help answered either: then the fault may well be here. (Lifeguard
/// counts each of them that is silent; but in the smaller part of a divided cloud most are, and
/// the part would need minutes to notice that it is one.)
#[derive(Debug, Default)]
pub(super) struct Health {
    score: u32,
    help: Help,
}

/// Who was asked for help with the present probe.
#[derive(Debug, Default)]
enum Help {
    /// Nobody: the member answered itself, or there is nobody else.
    #[default]
    NotNeeded,
    /// These, and none of them was heard since.
    Silent(BTreeSet<u64>),
    /// Some, and one was heard.
    Heard,
}

impl Health {
    /// A member did not answer and these were asked to ping it.
    pub(super) fn asked(&mut self, helpers: BTreeSet<u64>) {
        self.help = Help::Silent(helpers);
    }

    /// Something came from this member.
    pub(super) fn heard(&mut self, from: u64) {
        if let Help::Silent(helpers) = &self.help
            && helpers.contains(&from)
        {
            self.help = Help::Heard;
        }
    }

    /// The present probe is over.
    pub(super) fn probe_over(&mut self) {
        match core::mem::take(&mut self.help) {
            Help::NotNeeded => self.score = self.score.saturating_sub(1),
            Help::Heard => {}
            Help::Silent(helpers) => {
                let silent = u32::try_from(helpers.len()).unwrap_or(u32::MAX);
                self.score = self.score.saturating_add(silent).min(SCORE_MAX);
            }
        }
    }

    /// This node itself was late.
    pub(super) fn was_late(&mut self) {
        self.score = (self.score + 1).min(SCORE_MAX);
        self.help = Help::NotNeeded;
    }

    /// It may well be that others are ill, and not this node.
    pub(super) fn is_good(&self) -> bool {
        self.score == 0
    }

    /// The same time for a node in this health.
    pub(super) fn stretched(&self, time: Duration) -> Duration {
        time * (1 + self.score)
    }
}

/// This node saw a member not answer.
#[derive(Debug)]
pub(super) struct Suspicion {
    /// Whom it is about.
    pub(super) id: Id,
    /// At which incarnation.
    pub(super) incarnation: u16,
    /// Since when.
    pub(super) since: Instant,
    /// Who was asked to confirm it and did not.
    pub(super) witnesses: BTreeSet<u64>,
    /// How many were asked.
    pub(super) asked: usize,
    /// When they were asked.
    pub(super) called: Instant,
    /// When it is looked at next.
    pub(super) next: Instant,
    /// How often more witnesses may be asked, when none of the last confirmed.
    pub(super) appeals_left: u8,
    /// How much longer than usual it lasts.
    pub(super) lenience: u32,
}

impl Suspicion {
    /// When it is certain.
    pub(super) fn due(&self, health: &Health) -> Instant {
        let confirmations = self.asked.saturating_sub(self.witnesses.len());
        self.since + health.stretched(patience(confirmations, self.asked)) * self.lenience
    }
}

/// Another asked this node to confirm a suspicion.
#[derive(Debug)]
pub(super) struct Check {
    /// Whom it is about.
    pub(super) id: Id,
    /// At which incarnation.
    pub(super) incarnation: u16,
    /// When its next step is due.
    pub(super) next: Instant,
    /// Who asked.
    pub(super) askers: BTreeSet<u64>,
    /// Pings still to be sent.
    pub(super) pings_left: u8,
    /// How often it still has to be told that the member did not answer.
    pub(super) answers_left: u8,
}

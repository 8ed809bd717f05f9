//! How much a relay carries, and for whom: so many bytes a second, in equal shares.
//!
//! What it is not: a queue. What is beyond a share is dropped, and the link that sent it slows down,
//! as on any path that is full.

use std::collections::BTreeMap;
use std::time::Duration;

use kernel::instant::Instant;
use wire::id::NodeId;

/// Bytes that a node carries for others in a second.
pub(super) const BYTES_PER_S: u64 = 16 * 1024 * 1024;
/// Whoever has sent nothing for so long takes no share.
const IDLE: Duration = Duration::from_secs(1);
/// A share may be used up at once for so much of a second.
const BURST_PER_S: u64 = 8;

/// What is left of everybody's share.
#[derive(Debug, Default)]
pub(super) struct Shares {
    senders: BTreeMap<NodeId, Share>,
    looked: Instant,
}

#[derive(Debug)]
struct Share {
    left_bytes: u64,
    at: Instant,
}

impl Shares {
    /// Whether so many bytes of a sender are carried now.
    pub(super) fn take(&mut self, now: Instant, sender: NodeId, bytes: usize) -> bool {
        if now.since(self.looked) > IDLE / 10 {
            self.looked = now;
            self.senders.retain(|_, share| now.since(share.at) < IDLE);
        }
        let is_new = !self.senders.contains_key(&sender);
        let count = self.senders.len() + usize::from(is_new);
        let rate = BYTES_PER_S / u64::try_from(count).unwrap_or(u64::MAX);
        let burst = rate / BURST_PER_S;
        let share = self.senders.entry(sender).or_insert(Share {
            left_bytes: burst,
            at: now,
        });
        let passed_us = u64::try_from(now.since(share.at).as_micros()).unwrap_or(u64::MAX);
        let gained = rate.saturating_mul(passed_us) / 1_000_000;
        if gained > 0 {
            share.left_bytes = share.left_bytes.saturating_add(gained).min(burst);
            share.at = now;
        }
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let fits = share.left_bytes >= bytes;
        if fits {
            share.left_bytes -= bytes;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each of so many senders sends `bytes` every 100 µs for a second: bytes of each that passed.
    fn check(senders: &[usize], expect: &[u64]) {
        let mut shares = Shares::default();
        let mut passed = vec![0_u64; senders.len()];
        for step in 0..10_000 {
            let now = Instant::from_micros(5_000_000 + step * 100);
            for (index, bytes) in senders.iter().enumerate() {
                let sender = NodeId([u8::try_from(index).unwrap(); 32]);
                if shares.take(now, sender, *bytes) {
                    passed[index] += u64::try_from(*bytes).unwrap();
                }
            }
        }
        for (passed, expect) in passed.iter().zip(expect) {
            let near = expect * 8 / 10..=expect * 12 / 10;
            assert!(near.contains(passed), "{passed} of {expect}");
        }
    }

    #[test]
    fn one_sender_alone_has_everything() {
        check(&[1_000], &[10_000_000]);
        check(&[4_000], &[BYTES_PER_S]);
    }

    #[test]
    fn one_that_sends_ten_times_as_much_takes_nothing_of_another_share() {
        check(&[8_000, 800], &[BYTES_PER_S / 2, 8_000_000]);
        check(&[8_000, 8_000, 8_000, 8_000], &[BYTES_PER_S / 4; 4]);
    }
}

//! Every limit, and why it is what it is. Beyond a limit the answer is `Busy`.

use core::time::Duration;

/// Largest datagram: fits QUIC's smallest guaranteed path with room for headers (RFC 9000
/// section 14).
pub const DATAGRAM_BYTES_MAX: usize = 1150;

/// How many nodes rank as guardians of an app. Three survive one loss with two copies left while
/// the third is made again.
pub const GUARDIANS: usize = 3;
/// How many guardians must have a write before it is acknowledged, as far as so many are up.
pub const GUARDIAN_WRITES: usize = 2;

/// A node that was not heard of for so long is *gone*: its records are copied elsewhere. Minutes,
/// so that a reboot or a flapping link moves no data.
pub const GONE_AFTER: Duration = Duration::from_secs(600);

/// Time between two rounds of anti-entropy (notes: measured to re-merge 1,000 nodes in 30 s).
pub const SYNC_PERIOD: Duration = Duration::from_secs(30);

/// How long resources stay reserved for an asker that does not come back: longer than it takes to
/// wait in vain for another node's offer and to come back.
pub const LEASE_TERM: Duration = Duration::from_secs(12);
/// Leases at one time.
pub const LEASES_MAX: usize = 4096;

/// How long a question to one node may take before others are asked or the answer goes without.
pub const ASK_DEADLINE: Duration = Duration::from_secs(5);
/// How long a scattered question waits for the slowest node.
pub const SCATTER_DEADLINE: Duration = Duration::from_millis(2_000);
/// How long `app/run`, `start` and `scale` wait for objects before they answer `TimedOut`.
pub const RUN_DEADLINE: Duration = Duration::from_secs(20);
/// One round of `app/wait`: after it, whoever supervises the app then is asked again.
pub const WAIT_TERM: Duration = Duration::from_secs(30);
/// Longest that a call waits for objects that take their time to end.
pub const GRACE_MAX: Duration = Duration::from_secs(300);
/// Apps that are asked how far they are in one round, for an app that comes after some of them.
pub const ORDER_APPS_MAX: usize = 64;
/// Longest that any other call may take; `app/stop` and `app/rm` add the grace period, and
/// `app/wait` has no end.
pub const CALL_DEADLINE: Duration = Duration::from_secs(30);
/// What a node that hands a call on allows beyond the deadline of the node that answers, so that
/// the better answer wins.
pub const HANDOVER: Duration = Duration::from_secs(2);
/// Open questions of one node.
pub const QUESTIONS_MAX: usize = 16_384;
/// Calls that are being answered at one time.
pub const CALLS_MAX: usize = 16_384;

/// First wait before a program is started again; doubles up to [`BACKOFF_MAX`].
pub const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Longest wait before a program is started again.
pub const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// A program that ran so long begins again with the first wait.
pub const BACKOFF_RESET: Duration = Duration::from_secs(10);

/// Seats of one node: votes on apps that never run twice, also former ones of apps that are.
pub const SEATS_ON_NODE_MAX: usize = 8_192;

/// Objects on one node, alive or ended.
pub const OBJECTS_MAX: usize = 16_384;
/// Records on one node.
pub const RECORDS_MAX: usize = 8_192;
/// Nodes of one region.
pub const NODES_MAX: usize = 4_096;
/// Slots of one app that are placed at the same time: an app of thousands must not take all
/// questions and leases.
pub const PLACINGS_MAX: usize = 256;
/// And no more for each node that could take them: a machine starts a hundred programs a second, or
/// twenty when it is busy. What it has not begun within [`ASK_DEADLINE`] would be placed again
/// elsewhere, and so run twice on a cloud that is too busy already.
pub const PLACINGS_PER_NODE: usize = 16;
/// Records of removed apps on a node; beyond, the oldest are dropped before their time, so that apps
/// that come and go leave room for those that stay.
pub const TOMBSTONES_MAX: usize = RECORDS_MAX / 4;
/// Objects that a record remembers beyond two a slot: what two sides of a cut, or hosts that were
/// away, bring back at one time.
pub const SURPLUS_MAX: usize = 256;
/// Decisions that a record remembers.
pub const DECISIONS_MAX: usize = 16;
/// How long the record of a removed app is kept, so that a node that was away learns of it.
pub const TOMBSTONE_TERM: Duration = Duration::from_secs(30 * 86_400);
/// How long an app that removes itself stays after it is done, for whoever still reads its output.
pub const LINGER_TERM: Duration = Duration::from_secs(10);
/// Objects in one report.
pub const REPORTS_MAX: usize = 512;
/// How long a removed node is still spoken to, so that it learns of its removal.
pub const FAREWELL_TERM: Duration = Duration::from_secs(3);
/// How long an ended app without `restart` stays visible.
pub const ENDED_TERM: Duration = Duration::from_secs(86_400);

/// Log kept per object.
pub const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Uses of one ticket.
pub const TICKET_USES_MAX: u32 = 10_000;
/// Longest life of a ticket.
pub const TICKET_TTL_MAX: Duration = Duration::from_secs(365 * 86_400);

const _: () = assert!(GUARDIAN_WRITES <= GUARDIANS);
const _: () = assert!(LEASE_TERM.as_millis() >= 2 * ASK_DEADLINE.as_millis());
const _: () = assert!(SCATTER_DEADLINE.as_millis() < CALL_DEADLINE.as_millis());

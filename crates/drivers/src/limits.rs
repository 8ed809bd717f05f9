//! Every bound of this crate.

use std::time::Duration;

use wire::stream::{HEADER_BYTES, LOG_PREFIX_BYTES, PAYLOAD_BYTES_MAX};

/// Connections that one shim serves at once; a further one is closed at once.
pub const CONNECTIONS_MAX: usize = 64;
/// Further programs and copies inside one object at once.
pub const SESSIONS_MAX: usize = 32;
/// What is read from a pipe, a terminal or a socket at a time.
pub const CHUNK_BYTES: usize = 16 * 1024;
/// A connection's unsent bytes beyond which nothing more is made for it.
pub const OUTBOX_BYTES: usize = 48 * 1024;
/// A connection's unread bytes: one frame of the longest kind and what came with it.
pub const INBOX_BYTES_MAX: usize = HEADER_BYTES + PAYLOAD_BYTES_MAX + CHUNK_BYTES;
/// Input that waits for a program that does not read it.
pub const INPUT_BYTES_MAX: usize = 64 * 1024;
/// Longest payload of one log record, so that it fits into one frame.
pub const LOG_RECORD_BYTES_MAX: usize = PAYLOAD_BYTES_MAX - LOG_PREFIX_BYTES;
/// Files that a log is divided into.
pub const LOG_SEGMENTS: u64 = 4;
/// Smallest file of a log: it must hold a few records even when little log was asked for.
pub const LOG_SEGMENT_BYTES_MIN: u64 = 128 * 1024;
/// Sentences that the process that sets an object up may say about it.
pub const SENTENCES_MAX: usize = 64;
/// Longest such sentence.
pub const SENTENCE_BYTES_MAX: usize = 1024;
/// Hierarchies of control groups that one object is in.
pub const HIERARCHIES_MAX: usize = 5;
/// Longest `/etc/passwd` or `/etc/group` that is read.
pub const ACCOUNTS_BYTES_MAX: u64 = 1024 * 1024;
/// Longest file of the kernel (`/proc`, control groups) that is read.
pub const KERNEL_FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Longest `exit` file.
pub const EXIT_BYTES_MAX: usize = 8 * 1024;
/// How many files of the log an only caller may be behind before the program has to wait for it.
pub const LAG_SEGMENTS: u64 = LOG_SEGMENTS / 2;
/// How long a program waits for an only caller who does not read at all.
pub const LAG: Duration = Duration::from_secs(5);
/// How long a shim that has ended serves callers that still read.
pub const FLUSH: Duration = Duration::from_secs(5);
/// How long what was left in an object may take to die and its control groups to be removed.
pub const CLEANUP: Duration = Duration::from_secs(10);
/// How long it is waited until everything in a frozen object stands still.
pub const FREEZE: Duration = Duration::from_millis(100);
/// Between SIGHUP and SIGKILL for a further program whose caller has gone.
pub const HANGUP_GRACE: Duration = Duration::from_secs(2);
/// Connections that wait to be accepted by a shim.
pub const BACKLOG: i32 = 64;

const _: () = assert!(CHUNK_BYTES <= LOG_RECORD_BYTES_MAX);
const _: () = assert!(CHUNK_BYTES <= PAYLOAD_BYTES_MAX);
const _: () = assert!(LOG_SEGMENT_BYTES_MIN > 2 * PAYLOAD_BYTES_MAX as u64 - 1);
const _: () = assert!(SESSIONS_MAX <= CONNECTIONS_MAX);

//! The one place of the command line that asks what time it is.

use wire::id::UnixMillis;

/// Wall-clock time: for ages in tables and for `--since`.
#[expect(
    clippy::disallowed_methods,
    reason = "people are told ages; nothing waits for this clock"
)]
pub(crate) fn now() -> UnixMillis {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let millis = since_epoch.map_or(0, |it| it.as_millis());
    UnixMillis(u64::try_from(millis).unwrap_or(u64::MAX))
}

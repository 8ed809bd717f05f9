//! Sentences for the person at the terminal that the library itself has to say, on standard error.
//! It is not a log.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

static FALLBACK_TOLD: AtomicBool = AtomicBool::new(false);

/// Says, the first time it is called in this process, what a lab on loopback addresses cannot do.
pub(crate) fn fallback_once(missing: &[String]) {
    if FALLBACK_TOLD.swap(true, Ordering::Relaxed) {
        return;
    }
    say(&format!(
        "lab: hosts are only loopback addresses here ({}): links cannot be cut, slowed or made \
         lossy, nothing is isolated, and killing a host kills the processes started through it",
        missing.join("; ")
    ));
}

/// Says one line. A closed standard error is not a reason to fail.
pub(crate) fn say(line: &str) {
    writeln!(std::io::stderr().lock(), "{line}").ok();
}

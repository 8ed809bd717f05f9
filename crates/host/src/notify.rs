//! What the daemon and a service manager tell each other. How the daemon is goes by the protocol of
//! `sd_notify(3)`, which is one datagram of text to the socket that `NOTIFY_SOCKET` names. Why it is
//! to end, systemd knows.
//!
//! What it is not: needed. Without the variable nothing is told, and without systemd a daemon that
//! is to end is taken for one that is being restarted.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// The daemon answers calls.
pub(crate) const READY: &str = "READY=1";
/// The daemon is about to end.
pub(crate) const STOPPING: &str = "STOPPING=1";

/// How long systemd is given to say whether the machine stops: it waits for this daemon.
const ANSWER: Duration = Duration::from_secs(2);

/// Whether the whole machine is about to stop, and not only this daemon.
pub(crate) async fn is_machine_stopping() -> bool {
    // Whether systemd runs here: sd_booted(3).
    if !Path::new("/run/systemd/system").exists() {
        return false;
    }
    let ask = || Command::new("systemctl").arg("is-system-running").output();
    match timeout(ANSWER, spawn_blocking(ask)).await {
        Ok(Ok(Ok(answer))) => answer.stdout.trim_ascii() == b"stopping",
        Ok(Ok(Err(error))) => {
            tracing::warn!(%error, "systemctl could not be asked whether the machine stops");
            false
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "whether the machine stops is not known");
            false
        }
        Err(_elapsed) => {
            tracing::warn!("systemctl did not say in time whether the machine stops");
            false
        }
    }
}

/// Says `state`.
pub(crate) fn notify(state: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&name),
    };
    let told = address.and_then(|address| {
        let socket = UnixDatagram::unbound()?;
        socket.send_to_addr(state.as_bytes(), &address)
    });
    if let Err(error) = told {
        tracing::warn!(%error, state, "the service manager could not be told");
    }
}

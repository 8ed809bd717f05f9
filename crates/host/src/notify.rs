//! Tells a service manager how the daemon is: the protocol of `sd_notify(3)`, which is one
//! datagram of text to the socket that `NOTIFY_SOCKET` names.
//!
//! What it is not: needed. Without the variable nothing happens.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The daemon answers calls.
pub(crate) const READY: &str = "READY=1";
/// The daemon is about to end.
pub(crate) const STOPPING: &str = "STOPPING=1";

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

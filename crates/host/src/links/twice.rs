//! Two processes with one key: how an acceptor tells them from one that was restarted.
//!
//! A node dials only when it has no open link to a member. So when a member dials from another
//! address while an older link of it is open here, either the older link is dead and nobody knows
//! yet, or there are two processes. The keys of a link are in the memory of one process: whoever
//! acknowledges a packet on the older link lives. The newcomer is refused then.
//!
//! What it is not: a proof of who is right. It keeps the first and names both.

use std::time::Duration;

use iroh::TransportAddr;
use iroh::endpoint::{Connection, ConnectionError, VarInt};
use kernel::world::Input;
use tokio::time::timeout;
use wire::id::NodeId;

use super::{DIAL, Link, Links};

/// The close code of a process whose node lives elsewhere.
const CODE: u32 = 7;
/// An older link proves within this time that its process lives. Less than a dialler waits for its
/// welcome.
const PROOF: Duration = Duration::from_secs(2);
/// Between two looks for the proof.
const LOOK: Duration = Duration::from_millis(20);
/// A dial of the peer that began before this node had dialled it is over by then.
pub(super) const OVERLAP: Duration = DIAL.saturating_add(Duration::from_secs(1));
/// The words of the reason, before the two addresses.
const WORDS: [&str; 2] = ["this node lives at ", " and called from "];

/// The addresses of two processes with one key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Twins {
    first: String,
    second: String,
}

impl Twins {
    fn reason(&self) -> String {
        let [lives, called] = WORDS;
        format!("{lives}{}{called}{}", self.first, self.second)
    }

    fn parse(reason: &[u8]) -> Option<Self> {
        let [lives, called] = WORDS;
        let text = std::str::from_utf8(reason).ok()?.strip_prefix(lives)?;
        let (first, second) = text.split_once(called)?;
        let (first, second) = (first.to_owned(), second.to_owned());
        Some(Self { first, second })
    }
}

impl Links {
    /// Whether the member that dialled this link lives in another process, too.
    pub(super) async fn find_twin(&self, newer: &Link) -> Option<Twins> {
        let second = address(&newer.connection)?;
        // The newest of them: it replaced those of any life before.
        let (older, first) = {
            let peers = self.peers();
            let links = peers.get(&newer.peer)?.links.iter();
            // A node dials once at a time; but both sides may have dialled at once.
            let is_apart = |it: &Link| !it.dialled_here || newer.opened.since(it.opened) > OVERLAP;
            let mut older = links.filter(|it| it.is_open() && is_apart(it));
            let older = older.next_back()?.clone();
            let first = address(&older.connection)?;
            (older, first)
        };
        if first == second {
            return None;
        }
        match timeout(PROOF, prove_alive(&older.connection)).await {
            Ok(true) => Some(Twins {
                first: text(&first),
                second: text(&second),
            }),
            Ok(false) | Err(_) => None,
        }
    }

    /// Sends the second process of a member away, and tells of both.
    pub(super) async fn refuse_twin(&self, link: &Link, twins: Twins) {
        let reason = twins.reason();
        link.connection
            .close(VarInt::from_u32(CODE), reason.as_bytes());
        self.tell_twins(link.peer, twins).await;
    }

    /// Looks whether a dial failed because this node lives elsewhere, too.
    pub(super) async fn heed_refusal(&self, connection: &Connection) {
        if let Some(ConnectionError::ApplicationClosed(close)) = connection.close_reason()
            && close.error_code == VarInt::from_u32(CODE)
            && let Some(twins) = Twins::parse(&close.reason)
        {
            self.tell_twins(self.shared.here, twins).await;
        }
    }

    async fn tell_twins(&self, node: NodeId, Twins { first, second }: Twins) {
        let input = Input::Twice {
            node,
            first,
            second,
        };
        if self.shared.inputs.send(input).await.is_err() {
            tracing::debug!("a twin was seen after the end of the kernel");
        }
    }
}

/// Where the peer of a connection is.
fn address(connection: &Connection) -> Option<TransportAddr> {
    let paths = connection.paths();
    let selected = paths.iter().find(iroh::endpoint::Path::is_selected);
    let path = selected.or_else(|| paths.iter().next())?;
    Some(path.remote_addr().clone())
}

fn text(address: &TransportAddr) -> String {
    if let TransportAddr::Ip(ip) = address {
        ip.to_string()
    } else {
        "an address that others relay for".to_owned()
    }
}

/// Makes the peer acknowledge something that means nothing: a stream that is reset at once.
/// Returns once it has, or `false` when the connection ends first.
async fn prove_alive(connection: &Connection) -> bool {
    let acknowledged = || {
        let frames = connection.stats().frame_rx;
        frames.acks + frames.path_acks
    };
    let before = acknowledged();
    let Ok(mut stream) = connection.open_uni().await else {
        return false;
    };
    if stream.reset(VarInt::from_u32(0)).is_err() {
        return false;
    }
    let mut looks = tokio::time::interval(LOOK);
    while connection.close_reason().is_none() {
        if acknowledged() > before {
            return true;
        }
        looks.tick().await;
    }
    false
}

const _: () = assert!(PROOF.as_millis() < DIAL.as_millis());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_both_addresses_and_nothing_else_is_taken_for_one() {
        let twins = Twins {
            first: "192.0.2.1:7117".to_owned(),
            second: "[2001:db8::2]:9".to_owned(),
        };
        assert_eq!(Twins::parse(twins.reason().as_bytes()), Some(twins));
        assert_eq!(Twins::parse(b"this node lives at 192.0.2.1:7117"), None);
        assert_eq!(Twins::parse(&[0xff, 0xfe]), None);
    }
}

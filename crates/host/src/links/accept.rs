//! The receiving half of links: who may connect, and what may come.
//!
//! What it is not: an authority. A key that the kernel did not admit is refused right after the
//! handshake has proven it; only the stream of a join is open to anybody, and that is short,
//! small, and one at a time for each connection. A stranger gets a connection on which little
//! fits; it grows when its peer turns out to be a member.

use std::sync::Arc;
use std::time::Duration;

use iroh::endpoint::{Connection, Incoming, RecvStream, SendStream, VarInt};
use kernel::limits::DATAGRAM_BYTES_MAX;
use kernel::world::Input;
use tokio::io::AsyncReadExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;
use wire::id::NodeId;
use wire::peer::{
    JOIN_BYTES_MAX, JOIN_REQUEST_BYTES_MAX, JoinAnswer, JoinRequest, MESSAGE_BYTES_MAX,
};
use wire::{JOIN_ALPN, PEER_ALPN, RELAY_ALPN};

use super::{Arrival, Close, DELIVERY, Link, LinkStream, Links, STRANGER_BYTES_MAX};

/// Handshakes at one time; strangers can begin as many as they like. Half of them are kept for
/// those who have shown that they receive at the address they send from (RFC 9000, section 8.1).
pub(super) const HANDSHAKES_MAX: usize = 256;
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Machines whose request to be admitted is awaited at one time.
pub(super) const ASKERS_MAX: usize = 256;
/// How long a request may take to arrive.
const REQUEST: Duration = Duration::from_secs(3);
/// Requests that are answered at one time.
pub(super) const JOINS_MAX: usize = 32;
/// How long an answer may take, the kernel included.
const JOIN: Duration = Duration::from_secs(20);
/// How long a machine may take to close once it has the answer.
const THANKS: Duration = Duration::from_secs(2);
/// Messages that one peer may be sending at one time.
pub(super) const MESSAGES_AT_ONCE_MAX: u32 = 64;
/// Streams that one peer may have open.
pub(super) const STREAMS_AT_ONCE_MAX: u32 = 256;
/// Longest message that needs no permit.
const SMALL_BYTES: usize = 64 * 1024;
/// Longer messages that are received or wait for the kernel at one time, from all peers.
pub(super) const LARGE_MESSAGES_MAX: usize = 16;
/// Of those, from one peer.
pub(super) const LARGE_MESSAGES_OF_PEER_MAX: usize = 2;
/// How long a message may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(70);

impl Links {
    pub(super) async fn accept(self) {
        let handshakes = Arc::clone(&self.shared.handshakes);
        while let Some(incoming) = self.shared.endpoint.accept().await {
            // Packets with made-up senders must not keep others out: once it is crowded, a caller
            // comes again with proof of its address, and takes no place until then.
            if is_crowded(&handshakes) && !incoming.remote_addr_validated() {
                if incoming.retry().is_err() {
                    tracing::debug!("a caller had proven its address already");
                }
                continue;
            }
            let Ok(permit) = Arc::clone(&handshakes).try_acquire_owned() else {
                incoming.refuse();
                continue;
            };
            let links = self.clone();
            self.background(async move {
                let Ok(Some(connection)) = timeout(HANDSHAKE, handshake(incoming)).await else {
                    return;
                };
                drop(permit);
                links.welcome(connection).await;
            });
        }
    }

    async fn welcome(self, connection: Connection) {
        let peer = NodeId(*connection.remote_id().as_bytes());
        if connection.alpn() == PEER_ALPN {
            let link = Link::new(connection, peer, false);
            if let Some(twins) = self.find_twin(&link).await {
                return self.refuse_twin(&link, twins).await;
            }
            if self.is_member(peer)
                && let Err(reason) = say_welcome(&link.connection).await
            {
                tracing::debug!(peer = %peer.short(), reason, "a link broke at once");
                return;
            }
            self.register(link);
        } else if connection.alpn() == RELAY_ALPN {
            self.take_line(connection, peer).await;
        } else if connection.alpn() == JOIN_ALPN {
            self.take_asker(&connection, peer).await;
        }
    }

    /// Hears a machine that asks to be admitted. It takes one of the few places for that only once
    /// it has said all that it has to say.
    async fn take_asker(&self, connection: &Connection, node: NodeId) {
        let violation = |reason: String| {
            tracing::info!(node = %node.short(), reason, "a machine did not join");
            Close::Violation.apply(connection);
        };
        let Ok(asker) = self.shared.askers.try_acquire() else {
            return Close::Busy.apply(connection);
        };
        let (send, request) = match timeout(REQUEST, read_request(connection)).await {
            Ok(Ok(asked)) => asked,
            Ok(Err(reason)) => return violation(reason),
            Err(_elapsed) => return Close::Silent.apply(connection),
        };
        drop(asker);
        let Ok(place) = self.shared.joins.try_acquire() else {
            return Close::Busy.apply(connection);
        };
        match timeout(JOIN, self.answer_join(send, node, request)).await {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => return violation(reason),
            Err(_elapsed) => return Close::Silent.apply(connection),
        }
        drop(place);
        // The joiner closes once it has read the answer.
        if timeout(THANKS, connection.closed()).await.is_err() {
            Close::Silent.apply(connection);
        }
    }

    async fn answer_join(
        &self,
        mut send: SendStream,
        node: NodeId,
        request: Box<JoinRequest>,
    ) -> Result<(), String> {
        let gone = || "the node stops".to_owned();
        let (answer, answered) = oneshot::channel();
        let arrival = Arrival::Join {
            node,
            request,
            answer,
        };
        let arrived = self.shared.arrivals.send(arrival).await;
        arrived.map_err(|_gone| gone())?;
        let answer = answered.await.map_err(|_gone| gone())?;
        let bytes = encode_answer(answer, JOIN_BYTES_MAX)?;
        super::join::write_block(&mut send, &bytes).await?;
        send.finish().map_err(|error| error.to_string())
    }

    /// Takes what comes on a link until it is closed.
    pub(super) async fn receive(self, link: Link) {
        let connection = link.connection.clone();
        let lost = loop {
            tokio::select! {
                datagram = connection.read_datagram() => match datagram {
                    Ok(bytes) => self.take_datagram(&link, &bytes),
                    Err(error) => break error,
                },
                stream = connection.accept_uni() => match stream {
                    Ok(stream) => {
                        link.touch();
                        self.background(self.clone().take_message(link.clone(), stream));
                    }
                    Err(error) => break error,
                },
                streams = connection.accept_bi() => match streams {
                    Ok((send, receive)) => {
                        let _user = link.user();
                        let stream = LinkStream { send, receive, _user };
                        // A node that is too busy for streams drops them; datagrams go on.
                        if self.shared.arrivals.try_send(Arrival::Stream(stream)).is_err() {
                            tracing::debug!(peer = %link.peer.short(), "a stream was refused");
                        }
                    }
                    Err(error) => break error,
                },
            }
        };
        tracing::debug!(peer = %link.peer.short(), reason = %lost, "a link was closed");
    }

    fn take_datagram(&self, link: &Link, bytes: &[u8]) {
        link.touch();
        if bytes.len() > DATAGRAM_BYTES_MAX {
            self.shared.metrics.datagram_dropped();
            return;
        }
        let input = Input::Datagram {
            from: link.peer,
            bytes: bytes.to_vec(),
        };
        if self.shared.inputs.try_send(input).is_err() {
            self.shared.metrics.datagram_dropped();
        }
    }

    async fn take_message(self, link: Link, stream: RecvStream) {
        let _user = link.user();
        let reading = read_message(stream, [&link.large, &self.shared.large]);
        match timeout(ARRIVAL, reading).await {
            // The places are kept until the kernel has the message: its memory is in use so long.
            Ok(Ok((bytes, _places))) => {
                let from = link.peer;
                if self
                    .shared
                    .inputs
                    .send(Input::Message { from, bytes })
                    .await
                    .is_err()
                {
                    tracing::debug!("a message came after the end of the kernel");
                }
            }
            Ok(Err(Unread::TooLong)) => {
                tracing::warn!(peer = %link.peer.short(), "a message was longer than allowed");
                Close::Violation.apply(&link.connection);
            }
            Ok(Err(Unread::Lost)) | Err(_) => {}
        }
    }
}

fn is_crowded(handshakes: &Semaphore) -> bool {
    handshakes.available_permits() < HANDSHAKES_MAX / 2
}

/// One request, one answer, both with their length (u32, big endian) before them.
async fn read_request(connection: &Connection) -> Result<(SendStream, Box<JoinRequest>), String> {
    let (send, mut receive) = connection.accept_bi().await.map_err(|e| e.to_string())?;
    let bytes = read_block(&mut receive, JOIN_REQUEST_BYTES_MAX).await?;
    let request = wire::decode(&bytes, JOIN_REQUEST_BYTES_MAX).map_err(|e| e.to_string())?;
    Ok((send, Box::new(request)))
}

/// An answer that the joiner will read. Facts are left out until it is short enough: gossip brings
/// them anyway, and a few suffice to find the others.
fn encode_answer(mut answer: JoinAnswer, bytes_max: usize) -> Result<Vec<u8>, String> {
    loop {
        let bytes = wire::encode(&answer).map_err(|error| error.to_string())?;
        if bytes.len() <= bytes_max {
            return Ok(bytes);
        }
        match &mut answer {
            JoinAnswer::Admitted { facts, .. } if !facts.is_empty() => {
                facts.truncate(facts.len() / 2);
            }
            JoinAnswer::Admitted { .. } | JoinAnswer::Refused(_) => {
                return Err(format!("the answer has {} bytes", bytes.len()));
            }
        }
    }
}

/// An empty stream, before any other.
async fn say_welcome(connection: &Connection) -> Result<(), String> {
    let mut stream = connection
        .open_uni()
        .await
        .map_err(|error| error.to_string())?;
    stream.finish().map_err(|error| error.to_string())
}

async fn handshake(incoming: Incoming) -> Option<Connection> {
    incoming.accept().ok()?.await.ok()
}

enum Unread {
    /// It is longer than a message may be.
    TooLong,
    /// The stream or its link ended first.
    Lost,
}

/// A message, and its places when it is a long one.
async fn read_message(
    mut stream: RecvStream,
    large: [&Arc<Semaphore>; 2],
) -> Result<(Vec<u8>, Vec<OwnedSemaphorePermit>), Unread> {
    let mut bytes = Vec::new();
    let mut places = Vec::new();
    while let Some(chunk) = stream
        .read_chunk(SMALL_BYTES)
        .await
        .map_err(|_lost| Unread::Lost)?
    {
        if bytes.len() + chunk.len() > MESSAGE_BYTES_MAX {
            return Err(Unread::TooLong);
        }
        bytes.extend_from_slice(&chunk);
        if bytes.len() > SMALL_BYTES && places.is_empty() {
            // Its peer's place first: while it waits for that, it is in nobody else's way.
            for places_of in large {
                let place = Arc::clone(places_of).acquire_owned().await;
                places.push(place.map_err(|_closed| Unread::Lost)?);
            }
        }
    }
    Ok((bytes, places))
}

/// Reads a length and so many bytes.
pub(super) async fn read_block(
    stream: &mut RecvStream,
    bytes_max: usize,
) -> Result<Vec<u8>, String> {
    let length = stream.read_u32().await.map_err(|error| error.to_string())?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > bytes_max {
        stop(stream);
        return Err(format!(
            "{length} bytes where at most {bytes_max} are allowed"
        ));
    }
    let mut bytes = Vec::new();
    while bytes.len() < length {
        let wanted = (length - bytes.len()).min(SMALL_BYTES);
        let chunk = stream
            .read_chunk(wanted)
            .await
            .map_err(|error| error.to_string())?;
        let chunk = chunk.ok_or_else(|| "it ends too early".to_owned())?;
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn stop(stream: &mut RecvStream) {
    if stream.stop(VarInt::from_u32(1)).is_err() {
        tracing::debug!("a stream had ended before it was refused");
    }
}

const _: () = assert!(DELIVERY.as_millis() < ARRIVAL.as_millis());
const _: () = assert!(LARGE_MESSAGES_OF_PEER_MAX < LARGE_MESSAGES_MAX);
const _: () = assert!(JOIN_REQUEST_BYTES_MAX < STRANGER_BYTES_MAX);

#[cfg(test)]
mod tests {
    use wire::id::UnixMillis;
    use wire::peer::{Signature, Statement, StatementBody};

    use super::*;

    #[test]
    fn an_answer_that_is_too_long_leaves_facts_out_and_never_statements() {
        let statement = Statement {
            body: StatementBody::Admission {
                cloud: wire::id::CloudId([1; 32]),
                node: NodeId([2; 32]),
                ticket: None,
                at: UnixMillis(1),
            },
            signer: [1; 32],
            signature: Signature([0; 64]),
        };
        let facts = wire::fact::NodeFacts {
            node: NodeId([2; 32]),
            version: 1,
            name: "a".to_owned(),
            program_version: "1".to_owned(),
            platform: crate::measure::platform(),
            addresses: vec!["192.0.2.1:7117".to_owned()],
            labels: [].into(),
            availability: wire::fact::Availability::Open,
            capacity: wire::fact::Capacity::default(),
            level: wire::LEVEL,
            relays: Vec::new(),
        };
        let answer = JoinAnswer::Admitted {
            name: "a".to_owned(),
            labels: [].into(),
            statements: vec![statement; 3],
            facts: vec![facts; 100],
        };
        let bytes = encode_answer(answer.clone(), 4096).unwrap();
        let JoinAnswer::Admitted {
            statements, facts, ..
        } = wire::decode(&bytes, 4096).unwrap()
        else {
            panic!("an admission was expected");
        };
        assert_eq!(statements.len(), 3);
        assert!((10..100).contains(&facts.len()), "{}", facts.len());
        assert!(encode_answer(answer, 100).is_err());
    }
}

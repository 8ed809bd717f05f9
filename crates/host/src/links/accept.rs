//! The receiving half of links: who may connect, and what may come.
//!
//! What it is not: an authority. A key that the kernel did not admit is refused right after the
//! handshake has proven it; only the stream of a join is open to anybody, and that is short,
//! small, and one at a time for each connection.

use std::sync::Arc;
use std::time::Duration;

use iroh::endpoint::{Connection, Incoming, RecvStream, VarInt};
use kernel::limits::DATAGRAM_BYTES_MAX;
use kernel::world::Input;
use tokio::io::AsyncReadExt;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;
use wire::id::NodeId;
use wire::peer::{JOIN_BYTES_MAX, JoinRequest, MESSAGE_BYTES_MAX};
use wire::{JOIN_ALPN, PEER_ALPN};

use super::{Arrival, Close, DELIVERY, Link, LinkStream, Links};

/// Handshakes at one time; strangers can begin as many as they like.
const HANDSHAKES_MAX: usize = 256;
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Machines that ask to be admitted at one time.
const JOINS_MAX: usize = 32;
/// How long one of them may take, the kernel's answer included.
const JOIN: Duration = Duration::from_secs(20);
/// Messages that one peer may be sending at one time.
pub(super) const MESSAGES_AT_ONCE_MAX: u32 = 64;
/// Streams that one peer may have open.
pub(super) const STREAMS_AT_ONCE_MAX: u32 = 256;
/// Longest message that needs no permit.
const SMALL_BYTES: usize = 64 * 1024;
/// Longer messages that are received at one time, from all peers.
pub(super) const LARGE_MESSAGES_MAX: usize = 16;
/// How long a message may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(70);

impl Links {
    pub(super) async fn accept(self) {
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        let joins = Arc::new(Semaphore::new(JOINS_MAX));
        while let Some(incoming) = self.shared.endpoint.accept().await {
            let Ok(permit) = Arc::clone(&handshakes).try_acquire_owned() else {
                incoming.refuse();
                continue;
            };
            let (links, joins) = (self.clone(), Arc::clone(&joins));
            self.background(async move {
                let Ok(Some(connection)) = timeout(HANDSHAKE, handshake(incoming)).await else {
                    return;
                };
                drop(permit);
                links.welcome(connection, &joins).await;
            });
        }
    }

    async fn welcome(self, connection: Connection, joins: &Semaphore) {
        let peer = NodeId(*connection.remote_id().as_bytes());
        if connection.alpn() == PEER_ALPN {
            if self.is_member(peer)
                && let Err(reason) = say_welcome(&connection).await
            {
                tracing::debug!(peer = %peer.short(), reason, "a link broke at once");
                return;
            }
            self.register(Link::new(connection, peer, false));
        } else if connection.alpn() == JOIN_ALPN {
            let Ok(_permit) = joins.try_acquire() else {
                Close::Busy.apply(&connection);
                return;
            };
            match timeout(JOIN, self.answer_join(&connection, peer)).await {
                Ok(Ok(())) => {}
                Ok(Err(reason)) => {
                    tracing::info!(node = %peer.short(), reason, "a machine did not join");
                    Close::Violation.apply(&connection);
                }
                Err(_elapsed) => Close::Silent.apply(&connection),
            }
        }
    }

    /// One request, one answer, both with their length (u32, big endian) before them.
    async fn answer_join(&self, connection: &Connection, node: NodeId) -> Result<(), String> {
        let (mut send, mut receive) = connection.accept_bi().await.map_err(|e| e.to_string())?;
        let bytes = super::join::read_block(&mut receive).await?;
        let request: JoinRequest =
            wire::decode(&bytes, JOIN_BYTES_MAX).map_err(|e| e.to_string())?;
        let (answer, answered) = oneshot::channel();
        let request = Box::new(request);
        let arrival = Arrival::Join {
            node,
            request,
            answer,
        };
        let gone = |_gone| "the node stops".to_owned();
        self.shared
            .arrivals
            .send(arrival)
            .await
            .map_err(|_gone| "the node stops".to_owned())?;
        let answer = answered.await.map_err(gone)?;
        let bytes = wire::encode(&answer).map_err(|e| e.to_string())?;
        super::join::write_block(&mut send, &bytes).await?;
        send.finish().map_err(|e| e.to_string())?;
        // The joiner closes once it has read the answer.
        connection.closed().await;
        Ok(())
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
        match timeout(ARRIVAL, read_message(stream, &self.shared.large)).await {
            Ok(Ok(bytes)) => {
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

async fn read_message(mut stream: RecvStream, large: &Semaphore) -> Result<Vec<u8>, Unread> {
    let mut bytes = Vec::new();
    let mut permit = None;
    while let Some(chunk) = stream
        .read_chunk(SMALL_BYTES)
        .await
        .map_err(|_lost| Unread::Lost)?
    {
        if bytes.len() + chunk.len() > MESSAGE_BYTES_MAX {
            return Err(Unread::TooLong);
        }
        bytes.extend_from_slice(&chunk);
        if bytes.len() > SMALL_BYTES && permit.is_none() {
            permit = Some(large.acquire().await.map_err(|_closed| Unread::Lost)?);
        }
    }
    Ok(bytes)
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

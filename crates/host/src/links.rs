//! Links between members: datagrams, messages and streams to a key, wherever it is.
//!
//! What it is not: it decides nothing about who belongs to the cloud; the kernel says
//! ([`Links::admit`], [`Links::expel`]). No type of the transport library is visible outside.
//! Nothing foreign is ever contacted: no relay, no discovery service, no port mapping.
//!
//! # The conversation
//!
//! ```text
//! dialler                                          acceptor
//!   QUIC handshake, both keys proven, ALPN      ─►  a member? else closed: `not a member`
//!                                              ◄─  a uni stream without a byte: welcome
//!   datagram (at most 1150 bytes)              ◄─►  dropped when nobody is ready for it
//!   one uni stream per message, then its end   ◄─►  acknowledged by the transport once received
//!   one bi stream per stream of frames         ◄─►  frames of `wire::stream`
//! ```
//!
//! The welcome is waited for: the transport of a node that refuses the link a moment later would
//! acknowledge messages that nobody will ever read.
//!
//! A link is made when something is to be sent, kept while it is used, and closed after a minute
//! without use. When both sides dial at once there are two links for a while; both sides prefer
//! the one that the smaller key dialled, and the other one dies of disuse, so that nothing in
//! flight is lost. A link that arrives when an older one seems fine is the peer's word that it
//! lost the old one (it was restarted): it replaces it. If it comes from another address and the
//! old one still answers, there are two processes with one key: see [`twice`].
//!
//! # States of a peer
//!
//! *unlinked* (nothing to send), *dialling* (what is to be sent waits, bounded), *linked*.
//!
//! A message is *undelivered* when it was not acknowledged within [`DELIVERY`] and the time that
//! its length takes; when nothing at all came from the peer meanwhile the link is closed, so that
//! what follows fails at once or finds a better path. No peer's trouble delays another's messages.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use iroh::endpoint::{Connection, LocalTransportAddr, VarInt};
use iroh::{Endpoint, TransportAddr, Watcher};
use kernel::limits::DATAGRAM_BYTES_MAX;
use kernel::world::Input;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::PEER_ALPN;
use wire::id::NodeId;
use wire::peer::JoinRequest;

use crate::metrics::Metrics;
use crate::{addresses, clock};

mod accept;
mod endpoint;
pub(crate) mod join;
mod paths;
mod relay;
mod twice;

pub use endpoint::BindError;
use endpoint::{DIAL, MEMBER_BYTES_MAX, STRANGER_BYTES_MAX, any_way, bind, connect, direct};
use relay::Relaying;

/// How long a short message may take to be acknowledged.
const DELIVERY: Duration = Duration::from_millis(4_000);
/// What is added for long messages: the slowest link that is thought usable.
const DELIVERY_BYTES_PER_S: u64 = 64 * 1024;
/// A link that nothing was sent on is closed after this long.
const UNUSED: Duration = Duration::from_secs(60);
/// Two links that began within this time were dialled by both sides at once.
const AT_ONCE: Duration = Duration::from_secs(3);
/// Between two looks at round-trip times and unused links.
const SWEEP: Duration = Duration::from_secs(5);
/// A round-trip time is told again when it changed by more than this part of it.
const ROUND_TRIP_CHANGE: u64 = 16;

/// Messages to one peer that may be on their way or wait for the dial.
const MESSAGES_MAX: usize = 512;
/// Their bytes.
const MESSAGE_BYTES_WAITING_MAX: usize = 16 * 1024 * 1024;
/// Datagrams to one peer that wait for a dial; beyond, the oldest is dropped.
const DATAGRAMS_MAX: usize = 32;
/// Streams to one peer that wait for a dial.
const STREAMS_MAX: usize = 64;

/// Why a link was closed, for the other side's log.
#[derive(Debug, Clone, Copy)]
enum Close {
    Leaving,
    NotAMember,
    Unused,
    Replaced,
    Silent,
    Violation,
    Busy,
    Moved,
}

impl Close {
    fn apply(self, connection: &Connection) {
        let (code, reason): (u32, &str) = match self {
            Self::Leaving => (0, "the node stops"),
            Self::NotAMember => (1, "not a member of this cloud"),
            Self::Unused => (2, "unused"),
            Self::Replaced => (3, "replaced by a newer link"),
            Self::Silent => (4, "nothing was acknowledged"),
            Self::Violation => (5, "the protocol was not kept"),
            Self::Busy => (6, "too many at once; try again"),
            Self::Moved => (8, "the node has another address now"),
        };
        connection.close(VarInt::from_u32(code), reason.as_bytes());
    }
}

/// Why a stream to another node could not be opened. Nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpenError {
    /// The kernel knows no such member.
    Unknown,
    /// None of its addresses answers.
    Unreachable,
    /// Too many wait already.
    Busy,
}

/// What the links bring that needs an answer; the rest goes to the kernel as it is.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// A machine asks to be admitted.
    Join {
        /// Its key.
        node: NodeId,
        /// What it says.
        request: Box<JoinRequest>,
        /// Where the answer goes.
        answer: oneshot::Sender<wire::peer::JoinAnswer>,
    },
    /// A member opened a stream.
    Stream(LinkStream),
}

/// A stream of bytes to another node. Keeps its link open.
#[derive(Debug)]
pub(crate) struct LinkStream {
    send: iroh::endpoint::SendStream,
    receive: iroh::endpoint::RecvStream,
    _user: User,
}

impl LinkStream {
    /// Ends when the other side takes no more: it dropped the stream, or the link broke.
    pub(crate) fn stopped(&self) -> impl Future<Output = ()> + Send + use<> {
        let stopped = self.send.stopped();
        async move {
            // That all was taken after the end of this side is no departure.
            if let Ok(None) = stopped.await {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl AsyncRead for LinkStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        AsyncRead::poll_read(Pin::new(&mut self.receive), context, buffer)
    }
}

impl AsyncWrite for LinkStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.send), context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.send), context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut self.send), context)
    }
}

/// One connection to a peer.
#[derive(Debug, Clone)]
struct Link {
    connection: Connection,
    peer: NodeId,
    dialled_here: bool,
    opened: kernel::instant::Instant,
    /// When it last carried something, in microseconds of the clock.
    used: Arc<AtomicU64>,
    /// Streams that are open on it.
    users: Arc<AtomicUsize>,
    /// Long messages of its peer that are being received.
    large: Arc<Semaphore>,
}

impl Link {
    fn new(connection: Connection, peer: NodeId, dialled_here: bool) -> Self {
        let opened = clock::now();
        Self {
            connection,
            peer,
            dialled_here,
            opened,
            used: Arc::new(AtomicU64::new(opened.as_micros())),
            users: Arc::default(),
            large: Arc::new(Semaphore::new(accept::LARGE_MESSAGES_OF_PEER_MAX)),
        }
    }

    /// Gives the connection of a stranger the room of a member's.
    fn widen(&self) {
        let connection = &self.connection;
        connection.set_receive_window(VarInt::from_u32(MEMBER_BYTES_MAX));
        connection.set_max_concurrent_uni_streams(VarInt::from_u32(accept::MESSAGES_AT_ONCE_MAX));
        connection.set_max_concurrent_bi_streams(VarInt::from_u32(accept::STREAMS_AT_ONCE_MAX));
    }

    fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    fn touch(&self) {
        self.used.store(clock::now().as_micros(), Ordering::Relaxed);
    }

    fn user(&self) -> User {
        self.users.fetch_add(1, Ordering::Relaxed);
        User(self.clone())
    }

    fn is_unused(&self, now: kernel::instant::Instant) -> bool {
        let used = kernel::instant::Instant::from_micros(self.used.load(Ordering::Relaxed));
        self.users.load(Ordering::Relaxed) == 0 && now.since(used) > UNUSED
    }

    /// Whether all of its paths begin at addresses that this machine no longer has.
    fn is_left_behind(&self) -> bool {
        let paths = self.connection.paths();
        let is_lost = |path: iroh::endpoint::Path<'_>| {
            let here = path.local_addr();
            matches!(here, LocalTransportAddr::Ip(Some(ip)) if !addresses::is_own(ip.to_canonical()))
        };
        paths.iter().next().is_some() && paths.iter().all(is_lost)
    }

    /// Whether other members carry it.
    fn is_relayed(&self) -> bool {
        let paths = self.connection.paths();
        let selected = paths.iter().find(iroh::endpoint::Path::is_selected);
        let path = selected.or_else(|| paths.iter().next());
        path.is_some_and(|path| matches!(path.remote_addr(), TransportAddr::Custom(_)))
    }

    fn round_trip_us(&self) -> Option<u64> {
        let paths = self.connection.paths();
        let selected = paths.iter().find(iroh::endpoint::Path::is_selected)?;
        u64::try_from(selected.rtt().as_micros()).ok()
    }
}

/// Counts as use of a link while it lives.
#[derive(Debug)]
struct User(Link);

impl Drop for User {
    fn drop(&mut self) {
        self.0.touch();
        self.0.users.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What waits for a dial.
#[derive(Debug)]
enum Parcel {
    Datagram(Vec<u8>),
    Message(Ticketed),
    Stream(oneshot::Sender<Result<LinkStream, OpenError>>),
}

/// A message that is counted against what its peer may have on the way.
#[derive(Debug)]
struct Ticketed {
    bytes: Vec<u8>,
    load: Arc<PeerLoad>,
}

#[derive(Debug, Default)]
struct PeerLoad {
    messages: AtomicUsize,
    bytes: AtomicUsize,
}

impl Ticketed {
    fn new(bytes: Vec<u8>, load: &Arc<PeerLoad>) -> Result<Self, Vec<u8>> {
        let messages = load.messages.load(Ordering::Relaxed);
        let waiting = load.bytes.load(Ordering::Relaxed);
        let fits = waiting.saturating_add(bytes.len()) <= MESSAGE_BYTES_WAITING_MAX;
        if messages >= MESSAGES_MAX || !fits {
            return Err(bytes);
        }
        load.messages.fetch_add(1, Ordering::Relaxed);
        load.bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        Ok(Self {
            bytes,
            load: Arc::clone(load),
        })
    }

    fn into_bytes(mut self) -> Vec<u8> {
        let bytes = std::mem::take(&mut self.bytes);
        self.load.bytes.fetch_sub(bytes.len(), Ordering::Relaxed);
        bytes
    }
}

impl Drop for Ticketed {
    fn drop(&mut self) {
        self.load.messages.fetch_sub(1, Ordering::Relaxed);
        self.load
            .bytes
            .fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
struct Peer {
    addresses: Vec<SocketAddr>,
    links: Vec<Link>,
    dialling: bool,
    waiting: VecDeque<Parcel>,
    load: Arc<PeerLoad>,
    told_rtt_us: u64,
    /// What the kernel was told of the way of its link: by whom, if by anybody.
    told_way: Option<Option<NodeId>>,
}

impl Peer {
    /// The link to use: of two that were made at once, the one that the smaller key dialled.
    fn link(&mut self, here: NodeId) -> Option<Link> {
        self.links.retain(Link::is_open);
        let preferred = |link: &&Link| link.dialled_here == (here < link.peer);
        self.links
            .iter()
            .find(preferred)
            .or(self.links.last())
            .cloned()
    }
}

/// All links of this node. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Links {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    endpoint: Endpoint,
    here: NodeId,
    peers: Mutex<HashMap<NodeId, Peer>>,
    inputs: mpsc::Sender<Input>,
    arrivals: mpsc::Sender<Arrival>,
    tasks: TaskTracker,
    /// Messages that are on their way.
    deliveries: TaskTracker,
    stop: CancellationToken,
    metrics: Metrics,
    /// The machine may have other addresses.
    moved: Notify,
    relaying: Relaying,
    /// Long messages that are being received.
    large: Arc<Semaphore>,
    /// Connections of which it is not known yet who they are.
    handshakes: Arc<Semaphore>,
    /// Machines that have not yet said what they want.
    askers: Semaphore,
    /// Machines that wait to be admitted.
    joins: Semaphore,
}

impl Links {
    /// Opens the sockets; nobody is let in before [`Links::serve`]. What arrives goes to `inputs`
    /// and `arrivals`. A node that `carries` relays what other members send each other.
    pub(crate) async fn bind(
        key: &ed25519_dalek::SigningKey,
        listen: &[SocketAddr],
        inputs: mpsc::Sender<Input>,
        arrivals: mpsc::Sender<Arrival>,
        metrics: Metrics,
        carries: bool,
    ) -> Result<Self, BindError> {
        let here = NodeId(key.verifying_key().to_bytes());
        let (relaying, transport, packets) = Relaying::new(here, carries);
        let endpoint = bind(key, listen, Some(transport)).await?;
        let shared = Arc::new(Shared {
            endpoint,
            relaying,
            here,
            peers: Mutex::default(),
            inputs,
            arrivals,
            tasks: TaskTracker::new(),
            deliveries: TaskTracker::new(),
            stop: CancellationToken::new(),
            metrics,
            moved: Notify::new(),
            large: Arc::new(Semaphore::new(accept::LARGE_MESSAGES_MAX)),
            handshakes: Arc::new(Semaphore::new(accept::HANDSHAKES_MAX)),
            askers: Semaphore::new(accept::ASKERS_MAX),
            joins: Semaphore::new(accept::JOINS_MAX),
        });
        let links = Self { shared };
        links.background(links.clone().sweep());
        links.background(links.clone().watch_interfaces());
        links.background(links.clone().send_packets(packets));
        Ok(links)
    }

    /// Begins to let others in. To be called once the members are known: a member that comes
    /// before would be refused as a stranger. Whoever dials meanwhile waits.
    pub(crate) fn serve(&self) {
        self.background(self.clone().accept());
    }

    /// The addresses that sockets are bound to.
    pub(crate) fn bound(&self) -> Vec<SocketAddr> {
        self.shared.endpoint.bound_sockets()
    }

    /// Waits until the machine may have other addresses than before.
    pub(crate) async fn moved(&self) {
        self.shared.moved.notified().await;
    }

    /// Says so when the transport sees that interfaces have changed.
    async fn watch_interfaces(self) {
        let mut watcher = self.shared.endpoint.watch_addr();
        while watcher.updated().await.is_ok() {
            self.leave_behind();
            self.shared.moved.notify_one();
        }
    }

    /// Closes links that end at an address which this machine no longer has and that the peer has
    /// dialled, and dials anew: only a dialler can open a new path, and the other side does not know
    /// yet where this one is.
    fn leave_behind(&self) {
        for (node, peer) in self.peers().iter_mut() {
            let is_lost =
                |link: &&Link| !link.dialled_here && link.is_open() && link.is_left_behind();
            let lost: Vec<Link> = peer.links.iter().filter(is_lost).cloned().collect();
            for link in &lost {
                Close::Moved.apply(&link.connection);
            }
            if !lost.is_empty() && peer.link(self.shared.here).is_none() {
                self.dial_if_needed(*node, peer);
            }
        }
    }

    /// This node is a member and is found there.
    pub(crate) fn admit(&self, node: NodeId, addresses: &[String], relays: &[NodeId]) {
        if node == self.shared.here {
            return;
        }
        let parsed = addresses
            .iter()
            .filter_map(|address| address.parse().ok())
            .collect();
        self.peers().entry(node).or_default().addresses = parsed;
        self.shared.relaying.admit(node, relays);
    }

    /// This node is no member any more.
    pub(crate) fn expel(&self, node: NodeId) {
        let Some(peer) = self.peers().remove(&node) else {
            return;
        };
        for link in &peer.links {
            Close::NotAMember.apply(&link.connection);
        }
        self.give_back(node, peer.waiting);
        self.shared.relaying.expel(node);
    }

    /// Sends a datagram; it may get lost.
    pub(crate) fn datagram(&self, to: NodeId, bytes: Vec<u8>) {
        let mut peers = self.peers();
        let Some(peer) = peers.get_mut(&to) else {
            self.shared.metrics.datagram_dropped();
            return;
        };
        if let Some(link) = peer.link(self.shared.here) {
            self.carry(&link, Parcel::Datagram(bytes));
            return;
        }
        let is_datagram = |parcel: &Parcel| matches!(parcel, Parcel::Datagram(_));
        if peer
            .waiting
            .iter()
            .filter(|parcel| is_datagram(parcel))
            .count()
            >= DATAGRAMS_MAX
        {
            let oldest = peer.waiting.iter().position(is_datagram);
            oldest.and_then(|at| peer.waiting.remove(at));
            self.shared.metrics.datagram_dropped();
        }
        peer.waiting.push_back(Parcel::Datagram(bytes));
        self.dial_if_needed(to, peer);
    }

    /// Sends a message: it arrives, or `Undelivered` is told. Gives it back when too many wait or
    /// the receiver is no member.
    pub(crate) fn message(&self, to: NodeId, bytes: Vec<u8>) -> Result<(), Vec<u8>> {
        let mut peers = self.peers();
        let Some(peer) = peers.get_mut(&to) else {
            return Err(bytes);
        };
        let message = Ticketed::new(bytes, &peer.load)?;
        match peer.link(self.shared.here) {
            Some(link) => self.carry(&link, Parcel::Message(message)),
            None => {
                peer.waiting.push_back(Parcel::Message(message));
                self.dial_if_needed(to, peer);
            }
        }
        Ok(())
    }

    /// Opens a stream to a member.
    pub(crate) async fn open(&self, to: NodeId) -> Result<LinkStream, OpenError> {
        let opened = self.ask_for_stream(to)?;
        opened.await.unwrap_or(Err(OpenError::Unreachable))
    }

    fn ask_for_stream(
        &self,
        to: NodeId,
    ) -> Result<oneshot::Receiver<Result<LinkStream, OpenError>>, OpenError> {
        let mut peers = self.peers();
        let peer = peers.get_mut(&to).ok_or(OpenError::Unknown)?;
        let (told, opened) = oneshot::channel();
        match peer.link(self.shared.here) {
            Some(link) => self.carry(&link, Parcel::Stream(told)),
            None => {
                let streams = peer.waiting.iter();
                let waiting = streams.filter(|parcel| matches!(parcel, Parcel::Stream(_)));
                if waiting.count() >= STREAMS_MAX {
                    return Err(OpenError::Busy);
                }
                peer.waiting.push_back(Parcel::Stream(told));
                self.dial_if_needed(to, peer);
            }
        }
        Ok(opened)
    }

    /// Closes all links once messages are delivered, or after a while.
    pub(crate) async fn close(&self, farewell: Duration) {
        self.shared.deliveries.close();
        if timeout(farewell, self.shared.deliveries.wait())
            .await
            .is_err()
        {
            tracing::debug!("some messages were not acknowledged before the end");
        }
        self.shared.stop.cancel();
        self.shared.tasks.close();
        let links: Vec<Link> = self
            .peers()
            .values()
            .flat_map(|peer| peer.links.clone())
            .collect();
        for link in &links {
            Close::Leaving.apply(&link.connection);
        }
        self.shared.relaying.close();
        // The close frames go out at once; a peer that does not acknowledge them is not waited for.
        if timeout(Duration::from_millis(500), self.shared.endpoint.close())
            .await
            .is_err()
        {
            tracing::debug!("some peers did not acknowledge the end of their links");
        }
    }

    fn peers(&self) -> MutexGuard<'_, HashMap<NodeId, Peer>> {
        // No code panics while it holds the lock; were it to, the map would still be whole.
        self.shared
            .peers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs until the links are closed.
    fn background(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.shared.stop.clone();
        let task = async move { stop.run_until_cancelled_owned(task).await };
        self.shared.tasks.spawn(task);
    }

    fn dial_if_needed(&self, to: NodeId, peer: &mut Peer) {
        if !peer.dialling {
            peer.dialling = true;
            let addresses = peer.addresses.clone();
            self.background(self.clone().dial(to, addresses));
        }
    }

    async fn dial(self, to: NodeId, addresses: Vec<SocketAddr>) {
        let reached = match any_way(to, addresses) {
            Ok(address) => match connect(&self.shared.endpoint, address, PEER_ALPN).await {
                Err(reason) => {
                    self.tell_undialled(to).await;
                    Err(reason)
                }
                reached => reached,
            },
            Err(reason) => Err(reason),
        };
        let dialled = match reached {
            Ok(connection) => match wait_for_welcome(&connection).await {
                Ok(()) => Ok(connection),
                Err(reason) => {
                    self.heed_refusal(&connection).await;
                    Err(reason)
                }
            },
            Err(reason) => Err(reason),
        };
        if let Some(peer) = self.peers().get_mut(&to) {
            peer.dialling = false;
        }
        match dialled {
            Ok(connection) => self.register(Link::new(connection, to, true)),
            Err(reason) => {
                tracing::debug!(peer = %to.short(), reason, "a dial failed");
                let waiting = match self.peers().get_mut(&to) {
                    Some(peer) => std::mem::take(&mut peer.waiting),
                    None => return,
                };
                self.give_back(to, waiting);
            }
        }
    }

    async fn tell_undialled(&self, node: NodeId) {
        if let Some(peer) = self.peers().get_mut(&node) {
            peer.told_way = None;
        }
        if self
            .shared
            .inputs
            .send(Input::Undialled { node })
            .await
            .is_err()
        {
            tracing::debug!("a dial failed after the end of the kernel");
        }
    }

    fn is_member(&self, node: NodeId) -> bool {
        self.peers().contains_key(&node)
    }

    /// Takes a new link into use, when its peer is a member.
    fn register(&self, mut link: Link) {
        let mut peers = self.peers();
        let Some(peer) = peers.get_mut(&link.peer) else {
            drop(peers);
            tracing::debug!(peer = %link.peer.short(), "refused a link: not a member");
            Close::NotAMember.apply(&link.connection);
            return;
        };
        link.widen();
        // Of all the links of a peer together.
        if let Some(other) = peer.links.first() {
            link.large = Arc::clone(&other.large);
        }
        if !link.dialled_here {
            for old in &peer.links {
                if link.opened.since(old.opened) > AT_ONCE {
                    Close::Replaced.apply(&old.connection);
                }
            }
        }
        peer.links.push(link.clone());
        let mut way = None;
        if let Some(best) = peer.link(self.shared.here) {
            way = self.new_way(&best, peer);
            for parcel in std::mem::take(&mut peer.waiting) {
                self.carry(&best, parcel);
            }
        }
        drop(peers);
        if let Some(linked) = way {
            let links = self.clone();
            self.background(async move { drop(links.shared.inputs.send(linked).await) });
        }
        self.background(self.clone().receive(link));
    }

    /// What is to be told of the way of a link, when it is another than before.
    fn new_way(&self, link: &Link, peer: &mut Peer) -> Option<Input> {
        let node = link.peer;
        let via = match link.is_relayed() {
            true => self.shared.relaying.via(node),
            false => None,
        };
        let is_new = peer.told_way.replace(via) != Some(via);
        is_new.then_some(Input::Linked { node, via })
    }

    /// Sends something on a link.
    fn carry(&self, link: &Link, parcel: Parcel) {
        link.touch();
        match parcel {
            Parcel::Datagram(bytes) => {
                debug_assert!(
                    bytes.len() <= DATAGRAM_BYTES_MAX,
                    "the kernel keeps its limit"
                );
                if let Err(error) = link.connection.send_datagram(bytes.into()) {
                    tracing::debug!(peer = %link.peer.short(), %error, "a datagram was dropped");
                    self.shared.metrics.datagram_dropped();
                }
            }
            Parcel::Message(message) => {
                let delivery = self.clone().deliver(link.clone(), message);
                self.shared.deliveries.spawn(delivery);
            }
            Parcel::Stream(told) => self.background(open_stream(link.clone(), told)),
        }
    }

    async fn deliver(self, link: Link, message: Ticketed) {
        let length = u64::try_from(message.bytes.len()).unwrap_or(u64::MAX);
        let limit = DELIVERY + Duration::from_millis(1000 * length / DELIVERY_BYTES_PER_S);
        let received = link.connection.stats().udp_rx.datagrams;
        let result = timeout(limit, send_message(&link.connection, &message.bytes)).await;
        match result {
            Ok(Ok(())) => return,
            Ok(Err(reason)) => tracing::debug!(peer = %link.peer.short(), reason, "undelivered"),
            Err(_elapsed) => {
                tracing::debug!(peer = %link.peer.short(), "a message was not acknowledged");
                if link.connection.stats().udp_rx.datagrams == received {
                    Close::Silent.apply(&link.connection);
                }
            }
        }
        self.undelivered(link.peer, message.into_bytes()).await;
    }

    async fn undelivered(&self, to: NodeId, bytes: Vec<u8>) {
        self.shared.metrics.message_undelivered();
        if self
            .shared
            .inputs
            .send(Input::Undelivered { to, bytes })
            .await
            .is_err()
        {
            tracing::debug!("a message was undelivered after the end of the kernel");
        }
    }

    /// Says of everything that waited for a dial that it was in vain.
    fn give_back(&self, to: NodeId, waiting: VecDeque<Parcel>) {
        let links = self.clone();
        self.background(async move {
            for parcel in waiting {
                match parcel {
                    Parcel::Datagram(_) => links.shared.metrics.datagram_dropped(),
                    Parcel::Message(message) => links.undelivered(to, message.into_bytes()).await,
                    Parcel::Stream(told) => drop(told.send(Err(OpenError::Unreachable))),
                }
            }
        });
    }

    /// Tells round-trip times and ways, and closes links that nobody uses.
    async fn sweep(self) {
        let mut ticks = tokio::time::interval(SWEEP);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = clock::now();
            self.shared.relaying.sweep(now);
            for news in self.sweep_once(now) {
                if self.shared.inputs.send(news).await.is_err() {
                    return;
                }
            }
        }
    }

    fn sweep_once(&self, now: kernel::instant::Instant) -> Vec<Input> {
        let mut news = Vec::new();
        let mut open = 0;
        for (node, peer) in self.peers().iter_mut() {
            for link in &peer.links {
                if link.is_unused(now) {
                    Close::Unused.apply(&link.connection);
                }
            }
            let Some(link) = peer.link(self.shared.here) else {
                continue;
            };
            open += 1;
            news.extend(self.new_way(&link, peer));
            let Some(rtt_us) = link.round_trip_us() else {
                continue;
            };
            if rtt_us.abs_diff(peer.told_rtt_us) * ROUND_TRIP_CHANGE > peer.told_rtt_us {
                peer.told_rtt_us = rtt_us;
                let node = *node;
                news.push(Input::RoundTrip { node, rtt_us });
            }
        }
        self.shared.metrics.links(open);
        news
    }
}

async fn open_stream(link: Link, told: oneshot::Sender<Result<LinkStream, OpenError>>) {
    let user = link.user();
    let opened = match timeout(DELIVERY, link.connection.open_bi()).await {
        Ok(Ok((send, receive))) => Ok(LinkStream {
            send,
            receive,
            _user: user,
        }),
        Ok(Err(_lost)) => Err(OpenError::Unreachable),
        Err(_elapsed) => Err(OpenError::Busy),
    };
    drop(told.send(opened));
}

async fn send_message(connection: &Connection, bytes: &[u8]) -> Result<(), String> {
    let text = |error: &dyn fmt::Display| error.to_string();
    let mut stream = connection.open_uni().await.map_err(|error| text(&error))?;
    stream
        .write_all(bytes)
        .await
        .map_err(|error| text(&error))?;
    stream.finish().map_err(|error| text(&error))?;
    match stream.stopped().await {
        Ok(None) => Ok(()),
        Ok(Some(code)) => Err(format!("the peer refused it ({code})")),
        Err(error) => Err(text(&error)),
    }
}

async fn wait_for_welcome(connection: &Connection) -> Result<(), String> {
    let welcome = async {
        let mut stream = connection
            .accept_uni()
            .await
            .map_err(|error| error.to_string())?;
        let welcome = stream.read_to_end(0).await;
        welcome
            .map(drop)
            .map_err(|error| format!("its welcome is odd: {error}"))
    };
    let late = |_| {
        Err(format!(
            "it did not say welcome within {} s",
            DIAL.as_secs()
        ))
    };
    timeout(DIAL, welcome).await.unwrap_or_else(late)
}

#[cfg(test)]
mod tests;

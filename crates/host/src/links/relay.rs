//! Lines: the connections on which members carry packets of each other's links, where those cannot
//! reach each other. See `docs/protocols/relay.md`.
//!
//! What it is not: it decides neither who relays for whom (the kernel says, [`Links::hold_lines`])
//! nor which path of a link is used ([`super::paths`]), and it cannot read what it carries: that is
//! encrypted between the two ends.
//!
//! # The conversation
//!
//! ```text
//! member                                     relay (a member, too)
//!   connects, ALPN welkin-relay/1         ─►  a member, on a direct path? else closed
//!                                         ◄─  a uni stream: where it sees the member, whether it carries
//!   datagram: to NODE, a packet           ─►  has it a line of NODE?
//!                                             NODE  ◄─  datagram: from MEMBER, the packet
//! ```
//!
//! States of a line: *dialling* (a few packets wait), *open*.
//!
//! Packets pass through channels on their way between the transport and the lines: the transport
//! sends while it holds the lock of one connection, and must not wait for that of another.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use iroh::TransportAddr;
use iroh::endpoint::Connection;
use kernel::instant::Instant;
use kernel::world::{Input, LineState};
use tokio::sync::mpsc;
use tokio::time::timeout;
use wire::RELAY_ALPN;
use wire::id::NodeId;
use wire::relay::{Direction, Frame, LineWelcome, Part, WELCOME_BYTES_MAX};

use super::{Close, DIAL, Links, UNUSED, connect, direct};
use crate::{addresses, clock};
use halves::{Halves, cut};
use route::Route;
use shares::Shares;
use transport::{Packet, Transport};

mod halves;
mod route;
mod shares;
pub(super) mod transport;

/// Members whose lines this node takes.
const LINES_MAX: usize = 64;
/// Packets that wait for the dial of one line.
const WAITING_MAX: usize = 8;
/// Packets between the transport and the lines, each way; beyond, they are dropped.
const PACKETS_MAX: usize = 1024;
/// A line that could not be dialled is not dialled again for so long.
const AGAIN: Duration = Duration::from_secs(2);

/// Everything about relays that a node has.
#[derive(Debug)]
pub(super) struct Relaying {
    /// Whether this node carries what others send.
    carries: bool,
    state: Mutex<State>,
    /// To the transport.
    arrived: mpsc::Sender<Packet>,
}

#[derive(Debug, Default)]
struct State {
    /// Open ones, the newest last: both sides may have dialled.
    lines: HashMap<NodeId, Vec<Line>>,
    /// Packets that wait for a dial, and whom they are for.
    dials: HashMap<NodeId, VecDeque<Packet>>,
    failed: HashMap<NodeId, Instant>,
    routes: HashMap<NodeId, Route>,
    /// To whom the kernel wants lines.
    held: Vec<NodeId>,
    shares: Shares,
    last_number: u32,
    /// Where others see this node, when a router translates its address.
    seen: Option<SocketAddr>,
}

#[derive(Debug, Clone)]
struct Line {
    connection: Connection,
    peer: NodeId,
    dialled_here: bool,
    /// When a packet last went or came, in microseconds of the clock; 0 before the first.
    used: Arc<AtomicU64>,
}

impl Line {
    fn new(connection: Connection, peer: NodeId, dialled_here: bool) -> Self {
        Self {
            connection,
            peer,
            dialled_here,
            used: Arc::default(),
        }
    }

    fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    fn is_unused(&self, now: Instant) -> bool {
        let used = Instant::from_micros(self.used.load(Ordering::Relaxed));
        now.since(used) > UNUSED
    }

    fn touch(&self) {
        self.used.store(clock::now().as_micros(), Ordering::Relaxed);
    }

    /// Sends a packet in as many datagrams as it takes. Those that find no room are lost, as on any
    /// path.
    fn send(&self, direction: Direction, node: NodeId, packet: &[u8], number: u32) {
        self.touch();
        let room = self.connection.max_datagram_size().unwrap_or(0);
        for (part, bytes) in cut(packet, room, number) {
            let frame = Frame {
                direction,
                node,
                part,
                bytes,
            };
            self.pass(&frame);
        }
    }

    fn pass(&self, frame: &Frame<'_>) {
        if let Err(error) = self.connection.send_datagram(frame.encode().into()) {
            tracing::trace!(peer = %self.peer.short(), %error, "a packet was not carried");
        }
    }
}

impl State {
    fn line(&mut self, peer: NodeId) -> Option<Line> {
        let lines = self.lines.get_mut(&peer)?;
        lines.retain(Line::is_open);
        let line = lines.last().cloned();
        if line.is_none() {
            self.lines.remove(&peer);
        }
        line
    }

    /// Whether there is an open one that this side has dialled.
    fn has_dialled(&self, peer: NodeId) -> bool {
        let lines = self.lines.get(&peer);
        lines.is_some_and(|lines| lines.iter().any(|it| it.is_open() && it.dialled_here))
    }

    fn next_number(&mut self) -> u32 {
        self.last_number = self.last_number.wrapping_add(1);
        self.last_number
    }

    /// Whether another member may have a line here.
    fn has_room(&self, peer: NodeId) -> bool {
        let is_taken = |line: &Line| !line.dialled_here && line.is_open();
        let taken = |lines: &&Vec<Line>| lines.iter().any(is_taken);
        let others = self.lines.iter().filter(|(node, _)| **node != peer);
        others.map(|(_, lines)| lines).filter(taken).count() < LINES_MAX
    }
}

impl Relaying {
    /// What is needed before the sockets are there: the transport, and the packets that it sends.
    pub(super) fn new(here: NodeId, carries: bool) -> (Self, Transport, mpsc::Receiver<Packet>) {
        let (arrived, arrived_end) = mpsc::channel(PACKETS_MAX);
        let (sent, sent_end) = mpsc::channel(PACKETS_MAX);
        let relaying = Self {
            carries,
            state: Mutex::default(),
            arrived,
        };
        (relaying, Transport::new(here, sent, arrived_end), sent_end)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock; were it to, the tables would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This member tells that it is reached by these relays.
    pub(super) fn admit(&self, node: NodeId, relays: &[NodeId]) {
        self.state().routes.entry(node).or_default().told = relays.to_vec();
    }

    /// This node is no member any more.
    pub(super) fn expel(&self, node: NodeId) {
        let mut state = self.state();
        state.routes.remove(&node);
        for line in state.lines.remove(&node).unwrap_or_default() {
            Close::NotAMember.apply(&line.connection);
        }
    }

    /// By whom a peer was last heard.
    pub(super) fn via(&self, node: NodeId) -> Option<NodeId> {
        self.state().routes.get(&node)?.via()
    }

    /// Closes what nobody needs, and what does not go to the relay itself: a line never travels by
    /// another line.
    pub(super) fn sweep(&self, now: Instant) {
        let mut state = self.state();
        let State { lines, held, .. } = &mut *state;
        lines.retain(|peer, lines| {
            for line in lines.iter().filter(|line| line.is_open()) {
                let is_wanted = !line.dialled_here || held.contains(peer);
                if !is_direct(&line.connection) {
                    Close::Violation.apply(&line.connection);
                } else if !is_wanted && line.is_unused(now) {
                    Close::Unused.apply(&line.connection);
                }
            }
            lines.retain(Line::is_open);
            !lines.is_empty()
        });
        state.failed.retain(|_, at| now.since(*at) < AGAIN);
    }

    pub(super) fn close(&self) {
        for line in self.state().lines.values().flatten() {
            Close::Leaving.apply(&line.connection);
        }
    }

    /// Takes a packet out of a frame that is for this node.
    fn arrive(&self, frame: &Frame<'_>, via: NodeId, halves: &mut Halves) {
        let from = frame.node;
        let Some(bytes) = halves.join(from, frame.part, frame.bytes) else {
            return;
        };
        match self.state().routes.get_mut(&from) {
            Some(route) => route.heard(via),
            // No member.
            None => return,
        }
        let packet = Packet { node: from, bytes };
        if self.arrived.try_send(packet).is_err() {
            tracing::trace!(from = %from.short(), "a packet came too fast");
        }
    }

    /// Hands a frame on to whom it is for. It can have come from a member only, goes to one that has
    /// a line here, and goes no further.
    fn carry(&self, frame: &Frame<'_>, from: &Line) {
        let mut state = self.state();
        let is_mine = frame.node == from.peer || !self.carries;
        let bytes = frame.bytes.len();
        if is_mine || !state.shares.take(clock::now(), from.peer, bytes) {
            return;
        }
        let number = state.next_number();
        let Some(to) = state.line(frame.node) else {
            return;
        };
        drop(state);
        match frame.part {
            Part::Whole => {
                to.send(Direction::From, from.peer, frame.bytes, number);
            }
            Part::First(_) | Part::Second(_) => {
                to.touch();
                to.pass(&Frame {
                    direction: Direction::From,
                    node: from.peer,
                    ..*frame
                });
            }
        }
        from.touch();
    }
}

impl Links {
    /// The kernel wants lines to these members, and to no others for longer than they are used.
    pub(crate) fn hold_lines(&self, relays: Vec<NodeId>) {
        let mut state = self.shared.relaying.state();
        let missing: Vec<NodeId> = relays
            .iter()
            .copied()
            .filter(|relay| !state.held.contains(relay))
            .collect();
        state.held = relays;
        for relay in missing {
            // Also when there is one: what it told may have been of a former place.
            if let Entry::Vacant(dial) = state.dials.entry(relay) {
                dial.insert(VecDeque::new());
                self.background(self.clone().dial_line(relay));
            }
        }
    }

    /// Sends what the transport sends.
    pub(super) async fn send_packets(self, mut packets: mpsc::Receiver<Packet>) {
        while let Some(Packet { node, bytes }) = packets.recv().await {
            self.send_packet(node, &bytes);
        }
    }

    fn send_packet(&self, to: NodeId, packet: &[u8]) {
        let now = clock::now();
        let mut state = self.shared.relaying.state();
        let State { routes, held, .. } = &mut *state;
        let Some(route) = routes.get_mut(&to) else {
            return;
        };
        let mut lines = Vec::new();
        for relay in route.relays(now, held, [self.shared.here, to]) {
            match state.line(relay) {
                Some(line) => lines.push((line, state.next_number())),
                None => self.wait_for_line(&mut state, relay, to, packet),
            }
        }
        drop(state);
        for (line, number) in lines {
            line.send(Direction::To, to, packet, number);
        }
    }

    /// Keeps a packet until there is a line to a relay, and dials it.
    fn wait_for_line(&self, state: &mut State, relay: NodeId, to: NodeId, packet: &[u8]) {
        if state.failed.contains_key(&relay) || !state.routes.contains_key(&relay) {
            return;
        }
        let is_dialling = state.dials.contains_key(&relay);
        let waiting = state.dials.entry(relay).or_default();
        if waiting.len() < WAITING_MAX {
            let bytes = packet.to_vec();
            waiting.push_back(Packet { node: to, bytes });
        }
        if !is_dialling {
            self.background(self.clone().dial_line(relay));
        }
    }

    async fn dial_line(self, relay: NodeId) {
        let addresses = match self.peers().get(&relay) {
            Some(peer) => peer.addresses.clone(),
            None => Vec::new(),
        };
        let dialled = match direct(relay, addresses) {
            Ok(address) => self.make_line(address).await,
            Err(reason) => Err(reason),
        };
        let told = self.line_dialled(relay, dialled);
        self.tell_line(relay, told).await;
    }

    /// A dial is over: what waited for it goes, or is lost.
    fn line_dialled(
        &self,
        relay: NodeId,
        dialled: Result<(Connection, LineWelcome), String>,
    ) -> LineState {
        let mut state = self.shared.relaying.state();
        let waiting = state.dials.remove(&relay).unwrap_or_default();
        let (connection, LineWelcome { seen, carries }) = match dialled {
            Ok(line) => line,
            Err(reason) => {
                tracing::debug!(relay = %relay.short(), reason, "a line could not be made");
                state.failed.insert(relay, clock::now());
                return LineState::Closed;
            }
        };
        let numbers: Vec<u32> = waiting.iter().map(|_| state.next_number()).collect();
        state.failed.remove(&relay);
        drop(state);
        let line = Line::new(connection, relay, true);
        for (packet, number) in waiting.iter().zip(numbers) {
            line.send(Direction::To, packet.node, &packet.bytes, number);
        }
        self.take_into_use(line);
        self.offer(&seen);
        LineState::Open { seen, carries }
    }

    /// Lets the transport tell peers of an address at which others see this node: when both ends of
    /// a link send there at once, routers of many kinds let them through, and the link needs no
    /// relay any more.
    fn offer(&self, seen: &str) {
        let Ok(seen) = seen.parse::<SocketAddr>() else {
            return;
        };
        let mut state = self.shared.relaying.state();
        if addresses::is_own(seen.ip()) || state.seen == Some(seen) {
            return;
        }
        let former = state.seen.replace(seen);
        drop(state);
        let links = self.clone();
        self.background(async move {
            let endpoint = &links.shared.endpoint;
            if let Some(former) = former {
                endpoint.remove_external_addr(&former).await;
            }
            endpoint.add_external_addr(seen).await;
        });
    }

    async fn make_line(
        &self,
        address: iroh::EndpointAddr,
    ) -> Result<(Connection, LineWelcome), String> {
        let connection = connect(&self.shared.endpoint, address, RELAY_ALPN).await?;
        let welcome = async {
            let mut stream = connection.accept_uni().await.map_err(|e| e.to_string())?;
            let bytes = stream.read_to_end(WELCOME_BYTES_MAX).await;
            let bytes = bytes.map_err(|error| error.to_string())?;
            wire::decode(&bytes, WELCOME_BYTES_MAX).map_err(|error| error.to_string())
        };
        let late = |_| Err("it did not say welcome".to_owned());
        let welcome = timeout(DIAL, welcome).await.unwrap_or_else(late)?;
        if !is_direct(&connection) {
            Close::Violation.apply(&connection);
            return Err("it is reached by others only".to_owned());
        }
        Ok((connection, welcome))
    }

    async fn tell_line(&self, relay: NodeId, state: LineState) {
        let input = Input::Line { relay, state };
        if self.shared.inputs.send(input).await.is_err() {
            tracing::debug!("a line changed after the end of the kernel");
        }
    }

    /// A member has made a line to this node.
    pub(super) async fn take_line(&self, connection: Connection, peer: NodeId) {
        if !self.is_member(peer) {
            return Close::NotAMember.apply(&connection);
        }
        if !is_direct(&connection) {
            return Close::Violation.apply(&connection);
        }
        if !self.shared.relaying.state().has_room(peer) {
            return Close::Busy.apply(&connection);
        }
        let welcome = LineWelcome {
            seen: seen(&connection),
            carries: self.shared.relaying.carries,
        };
        match say(&connection, &welcome).await {
            Ok(()) => self.take_into_use(Line::new(connection, peer, false)),
            Err(reason) => tracing::debug!(peer = %peer.short(), reason, "a line broke at once"),
        }
    }

    fn take_into_use(&self, line: Line) {
        let mut state = self.shared.relaying.state();
        let lines = state.lines.entry(line.peer).or_default();
        if line.dialled_here {
            for older in lines.iter().filter(|it| it.dialled_here) {
                Close::Replaced.apply(&older.connection);
            }
        }
        lines.push(line.clone());
        drop(state);
        self.background(self.clone().read_line(line));
    }

    async fn read_line(self, line: Line) {
        let relaying = &self.shared.relaying;
        let mut halves = Halves::default();
        while let Ok(datagram) = line.connection.read_datagram().await {
            let Ok(frame) = Frame::parse(&datagram) else {
                Close::Violation.apply(&line.connection);
                break;
            };
            match frame.direction {
                Direction::To => relaying.carry(&frame, &line),
                Direction::From => {
                    line.touch();
                    relaying.arrive(&frame, line.peer, &mut halves);
                }
            }
        }
        tracing::debug!(peer = %line.peer.short(), "a line was closed");
        if line.dialled_here && !relaying.state().has_dialled(line.peer) {
            self.tell_line(line.peer, LineState::Closed).await;
        }
    }
}

async fn say(connection: &Connection, welcome: &LineWelcome) -> Result<(), String> {
    let bytes = wire::encode(welcome).map_err(|error| error.to_string())?;
    let mut stream = connection.open_uni().await.map_err(|e| e.to_string())?;
    let written = stream.write_all(&bytes).await;
    written.map_err(|error| error.to_string())?;
    stream.finish().map_err(|error| error.to_string())
}

/// Whether a connection goes to its peer itself.
fn is_direct(connection: &Connection) -> bool {
    matches!(remote(connection), Some(TransportAddr::Ip(_)))
}

fn seen(connection: &Connection) -> String {
    match remote(connection) {
        Some(TransportAddr::Ip(address)) => address.to_string(),
        _ => String::new(),
    }
}

fn remote(connection: &Connection) -> Option<TransportAddr> {
    let paths = connection.paths();
    let selected = paths.iter().find(iroh::endpoint::Path::is_selected);
    let path = selected.or_else(|| paths.iter().next())?;
    Some(path.remote_addr().clone())
}

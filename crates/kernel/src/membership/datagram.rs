//! The bytes of membership datagrams.
//!
//! It knows what a datagram says, not what to do about it. Whoever sent a datagram is known from
//! the link and whoever gets it is this node, so neither is in it:
//!
//! ```text
//! 1 byte   version (high four bits, 1) and kind (low four bits)
//! varint   boot of the sender
//! varint   incarnation of the sender (SWIM section 4.2)
//! varint   boot of the receiver, as far as the sender knows
//!
//! kind  0 ping            probe number, updates
//!       1 ack             probe number, updates
//!       2 ping request    probe number, member to ping, updates
//!       3 indirect ping   probe number, member that wants to know, updates
//!       4 indirect ack    probe number, member that wants to know, updates
//!       5 forwarded ack   probe number, member that answered, updates
//!       6 announce        nothing: "I am here, who else is?"
//!       7 feed            updates: those that are up
//!       8 gossip          updates
//!      10 turn undead     nothing: "you are held as down here"
//!      11 heard           nothing: the ping request arrived (the nack of Lifeguard section IV-A)
//!      12 doubt           suspected member, its incarnation: "can you reach it?"
//!      13 confirm         the same: "no, I cannot"
//!
//! member   8 bytes short id, little endian; varint boot
//! updates  2 bytes count, big endian; then each: member, varint (incarnation * 4 + state)
//! state    0 alive, 1 suspect, 2 down
//! ```
//!
//! Kinds 0 to 10 are the messages of foca, which does the core of SWIM. Foca wants both identities
//! in full; they are put in front of what it reads and cut off what it writes.

use alloc::vec::Vec;
use core::fmt;

use bytes::{Buf, BufMut};
use foca::{Header, Member, Message, State};

/// A member as foca knows it: a node, and how often it began anew. A member that was declared down
/// cannot come back with the same boot (SWIM section 4.2: down is final), only with a higher one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id {
    /// Short id of the node.
    pub(super) node: u64,
    /// Its boot counter.
    pub(super) boot: u32,
}

impl foca::Identity for Id {
    type Addr = u64;

    /// Never by itself: a boot must be reserved on disk before it is used.
    fn renew(&self) -> Option<Self> {
        None
    }

    fn addr(&self) -> u64 {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.boot > adversary.boot
    }
}

/// The incarnation of a member that left on purpose. Foca never reaches it: a member that is
/// suspected so often renews itself.
pub(super) const LEFT: u16 = u16::MAX;
/// The incarnation of a member whose process ends and is expected back at once, under its next boot.
pub(super) const RESTING: u16 = LEFT - 1;
/// How many bytes foca's form is longer than what travels: both short ids.
pub(super) const ENVELOPE_BYTES: usize = 16;

const VERSION: u8 = 1;
const PING: u8 = 0;
const ACK: u8 = 1;
const PING_REQUEST: u8 = 2;
const INDIRECT_PING: u8 = 3;
const INDIRECT_ACK: u8 = 4;
const FORWARDED_ACK: u8 = 5;
const ANNOUNCE: u8 = 6;
const FEED: u8 = 7;
const GOSSIP: u8 = 8;
const TURN_UNDEAD: u8 = 10;
const HEARD: u8 = 11;
const DOUBT: u8 = 12;
const CONFIRM: u8 = 13;

/// What a datagram says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Datagram {
    /// Who says it.
    pub(super) from: Id,
    /// Its incarnation.
    pub(super) incarnation: u16,
    /// To whom, as far as the sender knows.
    pub(super) to: Id,
    /// What.
    pub(super) body: Body,
}

/// The part of a datagram that depends on its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body {
    /// For foca.
    Swim(Message<Id>, Vec<Member<Id>>),
    /// The ping request arrived.
    Heard,
    /// The member at this incarnation did not answer: can the receiver reach it?
    Doubt(Id, u16),
    /// The sender cannot reach the member at this incarnation either.
    Confirm(Id, u16),
}

/// The bytes are no membership datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed(&'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl core::error::Error for Malformed {}

impl Datagram {
    /// Reads what travelled from `from` to `me`.
    pub(super) fn parse(from: u64, me: u64, mut bytes: &[u8]) -> Result<Self, Malformed> {
        let kind = kind(&mut bytes)?;
        let header = begin(from, me, &mut bytes)?;
        let body = match kind {
            HEARD => Body::Heard,
            DOUBT => Body::Doubt(member_id(&mut bytes)?, incarnation(&mut bytes)?),
            CONFIRM => Body::Confirm(member_id(&mut bytes)?, incarnation(&mut bytes)?),
            _ => {
                let message = message(kind, &mut bytes)?;
                let updates = if carries_updates(&message) {
                    updates(&mut bytes)?
                } else {
                    Vec::new()
                };
                Body::Swim(message, updates)
            }
        };
        if bytes.has_remaining() {
            return Err(Malformed("bytes are left over"));
        }
        Ok(Self {
            from: header.0,
            incarnation: header.1,
            to: header.2,
            body,
        })
    }

    /// The bytes that travel.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(32);
        let begin = |kind: u8, bytes: &mut Vec<u8>| {
            put_kind(kind, bytes);
            put_begin(self.from.boot, self.incarnation, self.to.boot, bytes);
        };
        match &self.body {
            Body::Swim(message, updates) => {
                begin(kind_of(message), &mut bytes);
                put_message(message, &mut bytes);
                if carries_updates(message) {
                    put_updates(updates, &mut bytes);
                }
            }
            Body::Heard => begin(HEARD, &mut bytes),
            Body::Doubt(id, incarnation) => {
                begin(DOUBT, &mut bytes);
                put_member_id(*id, &mut bytes);
                put_varint(u32::from(*incarnation), &mut bytes);
            }
            Body::Confirm(id, incarnation) => {
                begin(CONFIRM, &mut bytes);
                put_member_id(*id, &mut bytes);
                put_varint(u32::from(*incarnation), &mut bytes);
            }
        }
        bytes
    }

    /// The form that foca reads; `None` when it is not for foca.
    pub(super) fn to_foca(&self) -> Option<Vec<u8>> {
        let Body::Swim(..) = self.body else {
            return None;
        };
        let mut bytes = Vec::with_capacity(ENVELOPE_BYTES + 32);
        bytes.put_u64_le(self.from.node);
        bytes.put_u64_le(self.to.node);
        bytes.extend_from_slice(&self.to_bytes());
        Some(bytes)
    }
}

/// What travels of something that foca wrote.
pub(super) fn strip(foca: &[u8]) -> &[u8] {
    foca.get(ENVELOPE_BYTES..).unwrap_or_default()
}

/// Reads and writes the form that foca sees.
#[derive(Debug)]
pub(super) struct Codec;

impl foca::Codec<Id> for Codec {
    type Error = Malformed;

    fn encode_header(
        &mut self,
        header: &Header<Id>,
        mut buffer: impl BufMut,
    ) -> Result<(), Malformed> {
        let mut bytes = Vec::with_capacity(ENVELOPE_BYTES + 32);
        bytes.put_u64_le(header.src.node);
        bytes.put_u64_le(header.dst.node);
        put_kind(kind_of(&header.message), &mut bytes);
        put_begin(
            header.src.boot,
            header.src_incarnation,
            header.dst.boot,
            &mut bytes,
        );
        put_message(&header.message, &mut bytes);
        put_whole(&bytes, &mut buffer)
    }

    fn decode_header(&mut self, mut bytes: impl Buf) -> Result<Header<Id>, Malformed> {
        let from = short_id(&mut bytes)?;
        let me = short_id(&mut bytes)?;
        let kind = kind(&mut bytes)?;
        let (src, src_incarnation, dst) = begin(from, me, &mut bytes)?;
        let message = message(kind, &mut bytes)?;
        Ok(Header {
            src,
            src_incarnation,
            dst,
            message,
        })
    }

    fn encode_member(
        &mut self,
        member: &Member<Id>,
        mut buffer: impl BufMut,
    ) -> Result<(), Malformed> {
        let mut bytes = Vec::with_capacity(16);
        put_member(member, &mut bytes);
        put_whole(&bytes, &mut buffer)
    }

    fn decode_member(&mut self, mut bytes: impl Buf) -> Result<Member<Id>, Malformed> {
        member(&mut bytes)
    }
}

fn put_whole(bytes: &[u8], buffer: &mut impl BufMut) -> Result<(), Malformed> {
    if buffer.remaining_mut() < bytes.len() {
        return Err(Malformed("the datagram is full"));
    }
    buffer.put_slice(bytes);
    Ok(())
}

fn carries_updates(message: &Message<Id>) -> bool {
    !matches!(
        message,
        Message::Announce | Message::TurnUndead | Message::Broadcast
    )
}

fn kind_of(message: &Message<Id>) -> u8 {
    match message {
        Message::Ping(_) => PING,
        Message::Ack(_) => ACK,
        Message::PingReq { .. } => PING_REQUEST,
        Message::IndirectPing { .. } => INDIRECT_PING,
        Message::IndirectAck { .. } => INDIRECT_ACK,
        Message::ForwardedAck { .. } => FORWARDED_ACK,
        Message::Announce => ANNOUNCE,
        Message::Feed => FEED,
        // Broadcasts of foca's own are never made; gossip is the same without them.
        Message::Gossip | Message::Broadcast => GOSSIP,
        Message::TurnUndead => TURN_UNDEAD,
    }
}

fn put_kind(kind: u8, bytes: &mut Vec<u8>) {
    bytes.put_u8(VERSION << 4 | kind);
}

fn put_begin(from_boot: u32, incarnation: u16, to_boot: u32, bytes: &mut Vec<u8>) {
    put_varint(from_boot, bytes);
    put_varint(u32::from(incarnation), bytes);
    put_varint(to_boot, bytes);
}

fn put_message(message: &Message<Id>, bytes: &mut Vec<u8>) {
    match message {
        Message::Ping(number) | Message::Ack(number) => bytes.put_u8(*number),
        Message::PingReq {
            target: id,
            probe_number,
        }
        | Message::IndirectPing {
            origin: id,
            probe_number,
        }
        | Message::IndirectAck {
            target: id,
            probe_number,
        }
        | Message::ForwardedAck {
            origin: id,
            probe_number,
        } => {
            bytes.put_u8(*probe_number);
            put_member_id(*id, bytes);
        }
        Message::Announce
        | Message::Feed
        | Message::Gossip
        | Message::Broadcast
        | Message::TurnUndead => {}
    }
}

fn put_updates(updates: &[Member<Id>], bytes: &mut Vec<u8>) {
    let count = u16::try_from(updates.len()).unwrap_or(u16::MAX);
    bytes.put_u16(count);
    for update in updates.iter().take(usize::from(count)) {
        put_member(update, bytes);
    }
}

fn put_member(member: &Member<Id>, bytes: &mut Vec<u8>) {
    put_member_id(*member.id(), bytes);
    let state = match member.state() {
        State::Alive => 0,
        State::Suspect => 1,
        State::Down => 2,
    };
    put_varint(u32::from(member.incarnation()) << 2 | state, bytes);
}

fn put_member_id(id: Id, bytes: &mut Vec<u8>) {
    bytes.put_u64_le(id.node);
    put_varint(id.boot, bytes);
}

/// Seven bits a byte, lowest first, the high bit says that more follow.
fn put_varint(mut value: u32, bytes: &mut Vec<u8>) {
    while value >= 0x80 {
        let [low, ..] = value.to_le_bytes();
        bytes.put_u8(low | 0x80);
        value >>= 7;
    }
    let [low, ..] = value.to_le_bytes();
    bytes.put_u8(low);
}

fn kind(bytes: &mut impl Buf) -> Result<u8, Malformed> {
    let first = byte(bytes)?;
    if first >> 4 != VERSION {
        return Err(Malformed("it has another version"));
    }
    Ok(first & 0x0f)
}

fn begin(from: u64, me: u64, bytes: &mut impl Buf) -> Result<(Id, u16, Id), Malformed> {
    let from = Id {
        node: from,
        boot: varint(bytes)?,
    };
    let incarnation = incarnation(bytes)?;
    let to = Id {
        node: me,
        boot: varint(bytes)?,
    };
    Ok((from, incarnation, to))
}

fn message(kind: u8, bytes: &mut impl Buf) -> Result<Message<Id>, Malformed> {
    Ok(match kind {
        PING => Message::Ping(byte(bytes)?),
        ACK => Message::Ack(byte(bytes)?),
        PING_REQUEST => Message::PingReq {
            probe_number: byte(bytes)?,
            target: member_id(bytes)?,
        },
        INDIRECT_PING => Message::IndirectPing {
            probe_number: byte(bytes)?,
            origin: member_id(bytes)?,
        },
        INDIRECT_ACK => Message::IndirectAck {
            probe_number: byte(bytes)?,
            target: member_id(bytes)?,
        },
        FORWARDED_ACK => Message::ForwardedAck {
            probe_number: byte(bytes)?,
            origin: member_id(bytes)?,
        },
        ANNOUNCE => Message::Announce,
        FEED => Message::Feed,
        GOSSIP => Message::Gossip,
        TURN_UNDEAD => Message::TurnUndead,
        _ => return Err(Malformed("it is of no known kind")),
    })
}

fn updates(bytes: &mut impl Buf) -> Result<Vec<Member<Id>>, Malformed> {
    if bytes.remaining() < 2 {
        return Err(Malformed("it was cut off"));
    }
    let count = bytes.get_u16();
    // No member takes less than ten bytes, so a lying count reserves no memory.
    let mut updates = Vec::with_capacity(usize::from(count).min(bytes.remaining() / 10));
    for _ in 0..count {
        updates.push(member(bytes)?);
    }
    Ok(updates)
}

fn member(bytes: &mut impl Buf) -> Result<Member<Id>, Malformed> {
    let id = member_id(bytes)?;
    let packed = varint(bytes)?;
    let state = match packed & 3 {
        0 => State::Alive,
        1 => State::Suspect,
        2 => State::Down,
        _ => return Err(Malformed("a member is in no known state")),
    };
    let incarnation =
        u16::try_from(packed >> 2).map_err(|_beyond| Malformed("an incarnation is too high"))?;
    Ok(Member::new(id, incarnation, state))
}

fn member_id(bytes: &mut impl Buf) -> Result<Id, Malformed> {
    Ok(Id {
        node: short_id(bytes)?,
        boot: varint(bytes)?,
    })
}

fn incarnation(bytes: &mut impl Buf) -> Result<u16, Malformed> {
    u16::try_from(varint(bytes)?).map_err(|_beyond| Malformed("an incarnation is too high"))
}

fn short_id(bytes: &mut impl Buf) -> Result<u64, Malformed> {
    if bytes.remaining() < 8 {
        return Err(Malformed("it was cut off"));
    }
    Ok(bytes.get_u64_le())
}

fn byte(bytes: &mut impl Buf) -> Result<u8, Malformed> {
    if !bytes.has_remaining() {
        return Err(Malformed("it was cut off"));
    }
    Ok(bytes.get_u8())
}

fn varint(bytes: &mut impl Buf) -> Result<u32, Malformed> {
    let mut value = 0_u32;
    for shift in [0, 7, 14, 21, 28] {
        let next = byte(bytes)?;
        let bits = u32::from(next & 0x7f);
        if shift == 28 && bits > 0x0f {
            return Err(Malformed("a number is too high"));
        }
        value |= bits << shift;
        if next & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed("a number is too long"))
}

/// The incarnation of the sender in something that foca wrote.
pub(super) fn incarnation_in(mut travelling: &[u8]) -> Option<u16> {
    let bytes = &mut travelling;
    kind(bytes).ok()?;
    varint(bytes).ok()?;
    incarnation(bytes).ok()
}

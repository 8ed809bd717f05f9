//! One caller of a shim: frames in, frames out, both bounded, never blocking.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use wire::DecodeError;
use wire::call::{Problem, ProblemCode};
use wire::driver::ShimReport;
use wire::fact::ExitReason;
use wire::stream::{Frame, HEADER_BYTES, Kind};

use crate::limits::{CHUNK_BYTES, INBOX_BYTES_MAX, OUTBOX_BYTES};
use crate::log::Reader;

/// What a caller wants, once it has said so.
#[derive(Debug)]
pub(super) enum Role {
    /// It has not said anything yet.
    New,
    /// It asks and watches.
    Control { is_watching: bool },
    /// It is shown the log.
    Follow(Box<Follow>),
    /// It has a program or a copy of its own inside the object.
    Session,
    /// The last frame is in its outbox.
    Closing,
}

/// A position in the log that moves as fast as the caller reads.
#[derive(Debug)]
pub(super) struct Follow {
    pub(super) reader: Reader,
    /// `Stdout` and `Stderr` frames rather than `Log` ones, and the program's exit at the end.
    pub(super) is_attached: bool,
    /// Goes on until the object has ended.
    pub(super) goes_on: bool,
    /// Its `Stdin` frames go to the program.
    pub(super) has_stdin: bool,
    /// The log had nothing more when this much had been written to it.
    pub(super) caught_up: Option<u64>,
    /// Where the log ended when it was opened, for one that does not go on.
    pub(super) end: Option<(u64, u64)>,
    /// When it was last shown something.
    pub(super) shown_at: Instant,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: UnixStream,
    pub(super) role: Role,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    /// The caller will send nothing more.
    pub(super) has_ended: bool,
    /// The caller does not even read any more.
    pub(super) is_gone: bool,
    /// Its frames must wait until the program reads.
    pub(super) is_stalled: bool,
    /// There is more for it than its outbox takes.
    pub(super) is_hungry: bool,
}

impl Connection {
    pub(super) fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            role: Role::New,
            inbox: Vec::new(),
            outbox: Vec::new(),
            has_ended: false,
            is_gone: false,
            is_stalled: false,
            is_hungry: false,
        }
    }

    pub(super) fn wants_to_read(&self) -> bool {
        !self.has_ended && !self.is_stalled && self.inbox.len() < INBOX_BYTES_MAX - CHUNK_BYTES
    }

    /// Whether it says nothing any more, and all that it said was taken: whoever left a terminal
    /// does so long before it is known that nobody reads there either.
    pub(super) fn has_said_all(&self) -> bool {
        self.is_gone || (self.has_ended && self.inbox.is_empty())
    }

    pub(super) fn wants_to_write(&self) -> bool {
        self.is_hungry || !self.outbox.is_empty()
    }

    /// Whether more may be made for it.
    pub(super) fn has_room(&self) -> bool {
        self.outbox.len() < OUTBOX_BYTES
    }

    /// Reads what is there, once.
    pub(super) fn read(&mut self, chunk: &mut [u8]) {
        match self.socket.read(chunk) {
            Ok(0) => self.has_ended = true,
            Ok(length) => self.inbox.extend_from_slice(&chunk[..length]),
            Err(error) if is_not_now(&error) => {}
            Err(_) => self.is_gone = true,
        }
    }

    /// The next whole frame.
    pub(super) fn next_frame(&mut self) -> Result<Option<Frame>, DecodeError> {
        let Some((frame, taken)) = Frame::decode(&self.inbox)? else {
            return Ok(None);
        };
        self.inbox.drain(..taken);
        if self.inbox.is_empty() {
            self.inbox = Vec::new();
        }
        Ok(Some(frame))
    }

    pub(super) fn push(&mut self, kind: Kind, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let header = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        self.outbox.reserve(HEADER_BYTES + length);
        self.outbox.push(kind as u8);
        self.outbox.extend_from_slice(&header);
        parts
            .iter()
            .for_each(|part| self.outbox.extend_from_slice(part));
    }

    pub(super) fn report(&mut self, report: &ShimReport) {
        match wire::encode(report) {
            Ok(bytes) => self.push(Kind::ShimReport, &[&bytes]),
            Err(_) => self.is_gone = true,
        }
    }

    /// Says how it ended and closes once that is sent.
    pub(super) fn finish(&mut self, reason: &ExitReason) {
        self.push(Kind::Exit, &[&json(reason)]);
        self.role = Role::Closing;
    }

    /// Says what was wrong and closes once that is sent.
    pub(super) fn refuse(&mut self, code: ProblemCode, detail: &str) {
        let problem = Problem::new(code, detail);
        self.push(Kind::Failure, &[&json(&problem)]);
        self.role = Role::Closing;
    }

    /// Sends what the socket takes.
    pub(super) fn flush(&mut self) {
        while !self.outbox.is_empty() {
            match self.socket.write(&self.outbox) {
                Ok(sent) => drop(self.outbox.drain(..sent)),
                Err(error) if is_not_now(&error) => return,
                Err(_) => {
                    self.is_gone = true;
                    return;
                }
            }
        }
        self.outbox = Vec::new();
    }

    /// Whether nothing is left to be done for it.
    pub(super) fn is_over(&self) -> bool {
        let is_done = matches!(self.role, Role::Closing) && self.outbox.is_empty();
        is_done || self.is_gone
    }
}

/// These types always have a JSON form; an empty payload would only lose the sentence.
fn json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

pub(super) fn is_not_now(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

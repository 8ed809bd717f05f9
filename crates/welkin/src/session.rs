//! A person at a program: input, output, signals and the size of the terminal, until it ends.
//!
//! ```text
//! standard input ── Stdin, StdinEnd ──►
//! signals ───────── Signal ───────────►  object
//! SIGWINCH ──────── Resize ───────────►
//! standard output ◄─ Stdout ──────────
//! standard error ◄── Stderr ──────────
//! exit code ◄─────── Exit | Failure ───
//! ```
//!
//! The four directions go on at once: a program that does not read its input must still be able
//! to write, and to be interrupted.

use std::future::pending;
use std::io::IsTerminal;

use client::{Client, Reader, Stream, Writer};
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;
use wire::call::{Kill, Problem, ProblemCode, StopApp};
use wire::fact::ExitReason;
use wire::id::ObjectId;
use wire::stream::{Frame, Kind};

use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use crate::signals::{self, Signals};
use crate::terminal::{self, RawMode};

/// Pieces in which standard input is read.
const INPUT_BYTES: usize = 16 * 1024;

/// Whom signals are for when the stream itself is busy with input that nobody reads.
#[derive(Debug, Clone)]
pub(crate) enum Addressee {
    /// The program of an object, of this app: the node can be asked to send the signal.
    Object(ObjectId, String),
    /// A further program: only the stream leads to it.
    Stream,
}

/// What a session is made of.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    /// Pass standard input on.
    pub(crate) stdin: bool,
    /// The program has a terminal.
    pub(crate) terminal: bool,
    /// For signals.
    pub(crate) addressee: Addressee,
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The program ended.
    Exit(ExitReason),
    /// The caller left with the detach keys; the program goes on.
    Detached,
    /// The caller insisted on leaving.
    Interrupted,
}

impl Session {
    /// Runs the session to its end.
    pub(crate) async fn run(
        &self,
        context: &Context,
        stream: Stream,
        signals: &mut Signals,
    ) -> Result<Ending, Failure> {
        let (mut reader, writer) = stream.split();
        let writer = Mutex::new(writer);
        let raw = if self.terminal && self.stdin {
            RawMode::begin()?
        } else {
            None
        };
        let detachable = raw.is_some() && matches!(self.addressee, Addressee::Object(..));
        let ending = tokio::select! {
            ending = copy_output(&mut reader) => ending,
            () = copy_input(&writer, self.stdin, detachable) => Ok(Ending::Detached),
            () = self.forward(&context.client, &writer, signals) => Ok(Ending::Interrupted),
            () = follow_size(&writer, self.terminal) => pending().await,
        };
        drop(raw);
        ending
    }

    /// Passes signals on; ends when the caller insists on leaving.
    async fn forward(&self, client: &Client, writer: &Mutex<Writer>, signals: &mut Signals) {
        let mut interrupts = 0;
        loop {
            let mut number = signals.next().await;
            if number == signals::INTERRUPT {
                interrupts += 1;
            }
            if interrupts == 2 && number == signals::INTERRUPT {
                number = signals::KILL;
            }
            if interrupts > 2 {
                self.give_up(client).await;
                return;
            }
            self.deliver(client, writer, number).await;
        }
    }

    async fn deliver(&self, client: &Client, writer: &Mutex<Writer>, signal: u8) {
        if let Ok(mut writer) = writer.try_lock() {
            // A stream that has closed is noticed by whoever reads it.
            drop(writer.send(Frame::new(Kind::Signal, &[signal])).await);
            return;
        }
        if let Addressee::Object(object, _) = &self.addressee {
            let target = object.to_string();
            drop(client.call(Kill { target, signal }).await);
        }
    }

    async fn give_up(&self, client: &Client) {
        if let Addressee::Object(_, app) = &self.addressee {
            let stop = StopApp {
                target: app.clone(),
                grace_ms: Some(0),
            };
            drop(client.call(stop).await);
        }
    }
}

async fn copy_output(reader: &mut Reader) -> Result<Ending, Failure> {
    while let Some(frame) = reader
        .next()
        .await
        .map_err(|error| lost(&error.to_string()))?
    {
        match frame.kind {
            Kind::Stdout => output::write(&frame.payload)?,
            Kind::Stderr => output::write_err(&frame.payload)?,
            Kind::Exit => {
                let reason = serde_json::from_slice(&frame.payload);
                return reason.map(Ending::Exit).map_err(|e| lost(&e.to_string()));
            }
            Kind::Failure => return Err(failure(&frame)),
            Kind::Open
            | Kind::Stdin
            | Kind::StdinEnd
            | Kind::Resize
            | Kind::Signal
            | Kind::Log
            | Kind::Data
            | Kind::DataEnd
            | Kind::Event
            | Kind::ShimRequest
            | Kind::ShimReport => {}
        }
    }
    Err(lost("the node closed it"))
}

fn lost(why: &str) -> Failure {
    Failure::new(format!("the connection to the program was lost: {why}")).remedy("welkin ps -a")
}

/// What a [`Kind::Failure`] frame says.
pub(crate) fn failure(frame: &Frame) -> Failure {
    match serde_json::from_slice::<Problem>(&frame.payload) {
        Ok(problem) => problem.into(),
        Err(_unknown) => Failure::new(String::from_utf8_lossy(&frame.payload)),
    }
}

/// Copies standard input to the program; returns only when the detach keys were pressed.
async fn copy_input(writer: &Mutex<Writer>, wanted: bool, detachable: bool) {
    if !wanted {
        return pending().await;
    }
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; INPUT_BYTES];
    let mut keys = DetachKeys::default();
    loop {
        let read = stdin.read(&mut buffer).await.unwrap_or(0);
        let mut bytes = buffer.get(..read).unwrap_or_default().to_vec();
        let detach = detachable && keys.scan(&mut bytes);
        let frame = if read == 0 {
            Frame::new(Kind::StdinEnd, &[])
        } else {
            Frame::new(Kind::Stdin, &bytes)
        };
        let empty = frame.payload.is_empty() && frame.kind == Kind::Stdin;
        let sent = empty || writer.lock().await.send(frame).await.is_ok();
        if detach {
            return;
        }
        if read == 0 || !sent {
            return pending().await;
        }
    }
}

/// Tells the program the size of the terminal, now and at each change. Never returns.
async fn follow_size(writer: &Mutex<Writer>, wanted: bool) {
    let changes = signal(SignalKind::window_change());
    let (true, Ok(mut changes)) = (wanted && std::io::stdout().is_terminal(), changes) else {
        return pending().await;
    };
    loop {
        if let Some((rows, columns)) = terminal::size() {
            let mut payload = rows.to_be_bytes().to_vec();
            payload.extend_from_slice(&columns.to_be_bytes());
            let frame = Frame::new(Kind::Resize, &payload);
            if writer.lock().await.send(frame).await.is_err() {
                return pending().await;
            }
        }
        changes.recv().await;
    }
}

/// Finds Ctrl-P Ctrl-Q in what is typed: leave, and let the program go on.
#[derive(Debug, Default)]
struct DetachKeys {
    /// Ctrl-P was typed and held back.
    armed: bool,
}

impl DetachKeys {
    const FIRST: u8 = 0x10;
    const SECOND: u8 = 0x11;

    /// Whether the keys were typed; takes them, and what follows, out of `bytes`.
    fn scan(&mut self, bytes: &mut Vec<u8>) -> bool {
        let mut passed = Vec::with_capacity(bytes.len() + 1);
        let mut found = false;
        for byte in bytes.drain(..) {
            if self.armed && byte == Self::SECOND {
                found = true;
                break;
            }
            if self.armed {
                passed.push(Self::FIRST);
            }
            self.armed = byte == Self::FIRST;
            if !self.armed {
                passed.push(byte);
            }
        }
        *bytes = passed;
        found
    }
}

/// The exit code of a session; what a code cannot say is said.
pub(crate) fn conclude(context: &Context, ending: &Ending, name: &str) -> Result<u8, Failure> {
    match ending {
        Ending::Exit(ExitReason::NotStarted { code, message }) => {
            let code = ProblemCode::NotStarted { exit: *code };
            Err(Problem::new(code, message).into())
        }
        Ending::Exit(reason) => {
            match reason {
                ExitReason::OutOfMemory => output::warn(
                    context.screen,
                    "the program was killed: it needed more memory than its limit (--memory)",
                ),
                ExitReason::Lost => output::warn(
                    context.screen,
                    "the program ended without a word: its node or its shim was lost",
                ),
                ExitReason::Code(_) | ExitReason::Signal(_) | ExitReason::NotStarted { .. } => {}
            }
            Ok(reason.code())
        }
        Ending::Detached => {
            output::say(&format!("\r\nleft {name}; it goes on"));
            output::hint(context.screen, &format!("welkin attach {name}"));
            Ok(0)
        }
        Ending::Interrupted => Ok(128 + signals::INTERRUPT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pieces: &[&[u8]], expected: &[u8], detached: bool) {
        let mut keys = DetachKeys::default();
        let mut passed = Vec::new();
        let mut found = false;
        for piece in pieces {
            let mut bytes = piece.to_vec();
            found = keys.scan(&mut bytes);
            passed.extend(bytes);
        }
        assert_eq!((passed.as_slice(), found), (expected, detached));
    }

    #[test]
    fn the_detach_keys_are_found_and_all_else_passes() {
        check(&[b"ls\r"], b"ls\r", false);
        check(&[b"a\x10\x11b"], b"a", true);
        check(&[b"a\x10", b"\x11"], b"a", true);
        check(&[b"a\x10", b"b"], b"a\x10b", false);
        check(&[b"\x10\x10\x11"], b"\x10", true);
    }
}

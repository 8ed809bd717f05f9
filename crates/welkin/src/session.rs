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
use std::time::Duration;

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

/// How long a program whose output nobody reads has to end of itself.
const UNREAD_GRACE: Duration = Duration::from_secs(1);
/// Exit code of a program that wrote where nobody reads: 128 + SIGPIPE.
const EXIT_UNREAD: u8 = 141;

/// What the program is to this session. The object is the one whose program it is.
#[derive(Debug, Clone)]
pub(crate) enum Program {
    /// It was started for this session and ends with it, at the latest when the caller insists.
    Own(ObjectId),
    /// It was there before and goes on. Signals end the visit, unless they are to be passed on.
    Visited {
        /// The object.
        object: ObjectId,
        /// Pass signals on.
        signals: bool,
    },
    /// A further program in an object: it hangs on the stream, and only that leads to it.
    Further,
}

/// What a session is made of.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    /// Pass standard input on.
    pub(crate) stdin: bool,
    /// The program has a terminal.
    pub(crate) terminal: bool,
    /// What the program is to the session.
    pub(crate) program: Program,
    /// What people call the object.
    pub(crate) name: String,
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The program ended.
    Exit(ExitReason),
    /// The caller left; what was there before goes on.
    Left,
    /// The caller insisted on leaving.
    Interrupted,
    /// What the program wrote cannot be written here.
    Unread(Failure),
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
        let ending = tokio::select! {
            ending = copy_output(&mut reader) => ending,
            () = copy_input(&writer, self.stdin, raw.is_some()) => Ok(Ending::Left),
            ending = self.heed(&context.client, &writer, signals) => Ok(ending),
            () = follow_size(&writer, self.terminal) => pending().await,
        };
        drop(raw);
        if let (Ok(Ending::Unread(_)), Program::Own(object)) = (&ending, &self.program) {
            end_unread(&context.client, &mut reader, *object).await;
        }
        ending
    }

    /// Does what signals ask for; returns when one of them ends the session.
    async fn heed(&self, client: &Client, writer: &Mutex<Writer>, signals: &mut Signals) -> Ending {
        let mut interrupts = 0;
        loop {
            let mut number = signals.next().await;
            match &self.program {
                Program::Visited { signals: false, .. } => return Ending::Left,
                Program::Visited { signals: true, .. } | Program::Further => {}
                Program::Own(object) if number == signals::INTERRUPT => {
                    interrupts += 1;
                    if interrupts == 2 {
                        number = signals::KILL;
                    }
                    if interrupts > 2 {
                        stop(client, *object).await;
                        return Ending::Interrupted;
                    }
                }
                Program::Own(_) => {}
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
        // The stream is busy with input that nobody reads: the node can be asked.
        match &self.program {
            Program::Own(object) | Program::Visited { object, .. } => {
                let target = object.to_string();
                drop(client.call(Kill { target, signal }).await);
            }
            Program::Further => {}
        }
    }

    /// The exit code of the session; what a code cannot say is said.
    pub(crate) fn conclude(&self, context: &Context, ending: Ending) -> Result<u8, Failure> {
        match ending {
            Ending::Exit(reason) => ended(context, &self.name, &reason),
            Ending::Left => {
                // What the program wrote last may not have ended its line.
                let gap = if self.terminal { "\n" } else { "" };
                match &self.program {
                    Program::Own(_) | Program::Visited { .. } => {
                        output::say(&format!("{gap}left {}; it goes on", self.name));
                        output::hint(context.screen, &format!("welkin attach {}", self.name));
                    }
                    Program::Further => {
                        output::say(&format!("{gap}left; the program was hung up"));
                    }
                }
                Ok(0)
            }
            Ending::Interrupted => Ok(128 + signals::INTERRUPT),
            Ending::Unread(failure) => Err(match &self.program {
                Program::Own(_) if failure.detail.is_empty() => Failure::silent(EXIT_UNREAD),
                Program::Own(_) | Program::Visited { .. } | Program::Further => failure,
            }),
        }
    }
}

/// Ends a program that lives for this session and whose output nobody reads, as a pipe would: with
/// SIGPIPE, and if it does not mind that, with more.
async fn end_unread(client: &Client, reader: &mut Reader, object: ObjectId) {
    let kill = Kill {
        target: object.to_string(),
        signal: signals::PIPE,
    };
    let ended = async {
        drop(client.call(kill).await);
        while let Ok(Some(frame)) = reader.next().await {
            if frame.kind == Kind::Exit {
                return;
            }
        }
    };
    let _late = tokio::time::timeout(UNREAD_GRACE, ended).await;
    // Also when it has ended: it might be started again.
    stop(client, object).await;
}

/// Ends an object at once.
async fn stop(client: &Client, object: ObjectId) {
    let stop = StopApp {
        target: object.to_string(),
        grace_ms: Some(0),
    };
    // Whoever leaves has no use for an answer.
    drop(client.call(stop).await);
}

/// How the program of an object ended, for whoever waited for it.
fn ended(context: &Context, name: &str, reason: &ExitReason) -> Result<u8, Failure> {
    match reason {
        ExitReason::NotStarted { code, message } => {
            let code = ProblemCode::NotStarted { exit: *code };
            return Err(Problem::new(code, message).into());
        }
        ExitReason::OutOfMemory => {
            output::warn(
                context.screen,
                "the program was killed: it needed more memory than its limit",
            );
            output::hint(context.screen, "welkin run --memory BYTES …, with more");
        }
        ExitReason::Lost => {
            output::warn(
                context.screen,
                "the program ended without a word: its node or its shim was lost",
            );
            output::hint(context.screen, &format!("welkin logs {name}; welkin nodes"));
        }
        ExitReason::Lapsed => {
            output::warn(
                context.screen,
                "the program was killed: its node had lost sight of most guardians of the app, \
                 which must never run twice",
            );
            output::hint(
                context.screen,
                &format!("welkin explain {name}; welkin nodes"),
            );
        }
        ExitReason::Overdue => {
            output::warn(
                context.screen,
                "the program was ended: it ran longer than its deadline",
            );
            output::hint(
                context.screen,
                "welkin run --deadline DURATION …, with more",
            );
        }
        ExitReason::Unhealthy(why) => {
            output::warn(
                context.screen,
                &format!("the program was ended: its health check failed: {why}"),
            );
            output::hint(context.screen, &format!("welkin inspect {name}"));
        }
        ExitReason::Code(_) | ExitReason::Signal(_) => {}
    }
    Ok(reason.code())
}

async fn copy_output(reader: &mut Reader) -> Result<Ending, Failure> {
    while let Some(frame) = reader
        .next()
        .await
        .map_err(|error| lost(&error.to_string()))?
    {
        match frame.kind {
            Kind::Stdout | Kind::Stderr => {
                let written = if frame.kind == Kind::Stdout {
                    output::write(&frame.payload)
                } else {
                    output::write_err(&frame.payload)
                };
                if let Err(failure) = written {
                    return Ok(Ending::Unread(failure));
                }
            }
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

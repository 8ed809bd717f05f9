//! What callers ask of a shim and how they are served.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::sys::socket::{Shutdown, shutdown};
use wire::call::ProblemCode;
use wire::driver::{ShimReport, ShimRequest};
use wire::fact::ExitReason;
use wire::stream::{Frame, Kind, Open, PAYLOAD_BYTES_MAX, What};

use super::connection::{Connection, Follow, Role};
use super::session::{Input, Inside, Session, Work};
use super::{Phase, Shim};
use crate::clock;
use crate::limits::{CONNECTIONS_MAX, LAG, LAG_SEGMENTS, SESSIONS_MAX};
use crate::log::{Reader, Record, Start, Stream};
use crate::sandbox::Message;

impl Shim {
    pub(super) fn accept(&mut self) {
        while let Some(Ok((socket, _address))) = self.listener.as_ref().map(UnixListener::accept) {
            if self.connections.len() >= CONNECTIONS_MAX && !self.evict() {
                continue;
            }
            if socket.set_nonblocking(true).is_ok() {
                self.connections_made += 1;
                self.connections
                    .insert(self.connections_made, Connection::new(socket));
            }
        }
    }

    /// Lets in who is at the door and refuses whoever comes later, who then looks into the files:
    /// somebody who was connected when the shim ended would hear nothing at all.
    pub(super) fn close_door(&mut self) {
        if let Some(listener) = &self.listener {
            // If it fails, they come in or are refused a moment later.
            let _refusing = shutdown(listener.as_raw_fd(), Shutdown::Read);
            self.accept();
            self.listener = None;
        }
    }

    /// Forgets a follower who says nothing more and was shown nothing for the longest time: it may
    /// have gone without a word, which only something to show would tell. False when there is none.
    fn evict(&mut self) -> bool {
        let silent = self.connections.iter().filter_map(|(id, c)| match &c.role {
            Role::Follow(follow) if c.has_ended => Some((follow.shown_at, *id)),
            Role::Follow(_) | Role::New | Role::Control { .. } => None,
            Role::Session | Role::Closing => None,
        });
        let longest = silent.min().map(|(_, id)| id);
        longest.is_some_and(|id| self.connections.remove(&id).is_some())
    }

    /// Reads from a caller and does what it says.
    pub(super) fn read_caller(&mut self, id: u64) {
        let mut chunk = std::mem::take(&mut self.chunk);
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.read(&mut chunk);
        }
        self.chunk = chunk;
        self.serve(id);
    }

    /// Handles the frames that have arrived, as far as the program takes them.
    pub(super) fn serve(&mut self, id: u64) {
        let Some(mut connection) = self.connections.remove(&id) else {
            return;
        };
        connection.is_stalled = false;
        while !matches!(connection.role, Role::Closing) {
            if !self
                .input_of(id, &connection)
                .is_none_or(|input| input.has_room())
            {
                connection.is_stalled = true;
                break;
            }
            match connection.next_frame() {
                Ok(Some(frame)) => self.handle(id, &mut connection, &frame),
                Ok(None) => break,
                Err(error) => {
                    connection.refuse(ProblemCode::Invalid, &format!("a frame {error}"));
                }
            }
        }
        connection.flush();
        self.connections.insert(id, connection);
    }

    fn handle(&mut self, id: u64, connection: &mut Connection, frame: &Frame) {
        match frame.kind {
            Kind::ShimRequest if matches!(connection.role, Role::New | Role::Control { .. }) => {
                self.handle_request(connection, &frame.payload);
            }
            Kind::Open if matches!(connection.role, Role::New) => {
                match serde_json::from_slice::<Open>(&frame.payload) {
                    Ok(open) => self.open(id, connection, open.what),
                    Err(error) => connection.refuse(ProblemCode::Invalid, &error.to_string()),
                }
            }
            Kind::Stdin | Kind::Data => {
                if let Some(input) = self.input_mut(id, connection) {
                    input.push(&frame.payload);
                }
            }
            Kind::StdinEnd | Kind::DataEnd => {
                if let Some(input) = self.input_mut(id, connection) {
                    input.end();
                }
            }
            Kind::Resize => self.resize(id, connection, &frame.payload),
            Kind::Signal => {
                let signal = frame.payload.first().copied().map_or(0, i32::from);
                match self.sessions.get_mut(&id) {
                    Some(session) => session.signal(signal),
                    None if matches!(connection.role, Role::Follow(_)) => self.signal(signal),
                    None => {}
                }
            }
            Kind::ShimRequest
            | Kind::Open
            | Kind::Stdout
            | Kind::Stderr
            | Kind::Exit
            | Kind::Failure
            | Kind::Log
            | Kind::Event
            | Kind::ShimReport => {
                connection.refuse(ProblemCode::Invalid, "this frame has no meaning here");
            }
        }
    }

    fn handle_request(&mut self, connection: &mut Connection, payload: &[u8]) {
        let is_watching = matches!(connection.role, Role::Control { is_watching: true });
        connection.role = Role::Control { is_watching };
        match wire::decode(payload, PAYLOAD_BYTES_MAX) {
            Ok(ShimRequest::Watch) => {
                connection.role = Role::Control { is_watching: true };
                self.state_reports()
                    .iter()
                    .for_each(|report| connection.report(report));
            }
            Ok(ShimRequest::Signal { signal }) => self.signal(i32::from(signal)),
            Ok(ShimRequest::Stop { grace_ms }) => self.stop(grace_ms),
            Ok(ShimRequest::Tenure(tenure)) => self.renew(tenure),
            Ok(ShimRequest::Usage) => connection.report(&ShimReport::Usage(self.group.usage())),
            Err(error) => connection.refuse(ProblemCode::Invalid, &error.to_string()),
        }
    }

    fn open(&mut self, id: u64, connection: &mut Connection, what: What) {
        let (directory, end) = (self.directory.path(), self.log.position());
        let follow = |reader: io::Result<Reader>, is_attached, goes_on: bool, has_stdin| {
            let shown_at = clock::now();
            let end = (!goes_on).then_some(end);
            let follow = |reader| Follow {
                reader,
                is_attached,
                goes_on,
                has_stdin,
                caught_up: None,
                end,
                shown_at,
            };
            reader.map(|reader| Role::Follow(Box::new(follow(reader))))
        };
        let role = match what {
            What::Attach { stdin, replay } => {
                if stdin && self.has_stdin_caller() {
                    let busy = "somebody else already types into this program";
                    return connection.refuse(ProblemCode::Conflict, busy);
                }
                let start = if replay { Start::Oldest } else { Start::End };
                follow(Reader::open(directory, start), true, true, stdin)
            }
            What::Logs {
                follow: goes_on,
                tail_lines,
                since_ms,
            } => {
                let start = tail_lines.map_or(Start::Oldest, Start::TailLines);
                let since_us = since_ms.unwrap_or(0).saturating_mul(1000);
                let reader = Reader::open(directory, start).map(|reader| reader.since(since_us));
                follow(reader, false, goes_on, false)
            }
            What::Exec { program } => {
                return self.start_session(id, connection, Work::Program(Box::new(program)));
            }
            What::Probe { program } => {
                return self.start_session(id, connection, Work::Probe(Box::new(program)));
            }
            What::Read { path } => return self.start_session(id, connection, Work::Read(path)),
            What::Write { path } => return self.start_session(id, connection, Work::Write(path)),
            What::Events { .. } => {
                let detail = "a shim knows no events; ask the node";
                return connection.refuse(ProblemCode::Invalid, detail);
            }
        };
        match role {
            Ok(role) => connection.role = role,
            Err(error) => {
                connection.refuse(
                    ProblemCode::Internal,
                    &format!("the log cannot be read: {error}"),
                );
            }
        }
    }

    fn has_stdin_caller(&self) -> bool {
        self.connections.values().any(|other| match &other.role {
            Role::Follow(follow) => follow.has_stdin && !other.has_said_all(),
            Role::New | Role::Control { .. } | Role::Session | Role::Closing => false,
        })
    }

    fn start_session(&mut self, id: u64, connection: &mut Connection, mut work: Work) {
        let init = match (self.phase, &self.init_process) {
            (Phase::Running | Phase::Stopping, Some(init)) => init,
            (Phase::Preparing, _) => {
                return connection
                    .refuse(ProblemCode::Conflict, "the object is still being started");
            }
            (_, _) => return connection.refuse(ProblemCode::Conflict, "the object has ended"),
        };
        if self.sessions.len() >= SESSIONS_MAX {
            return connection.refuse(
                ProblemCode::Busy,
                "too many programs are run inside the object",
            );
        }
        if let Work::Program(program) | Work::Probe(program) = &mut work {
            let own = &self.launch.program;
            program.user = program.user.take().or_else(|| own.user.clone());
            program.directory = program.directory.take().or_else(|| own.directory.clone());
        }
        let (launch, group) = (&self.launch, &self.group);
        let inside = Inside {
            launch,
            isolation: self.isolation,
            group,
            init,
        };
        match Session::start(work, inside) {
            Ok(session) => {
                self.sessions.insert(id, session);
                connection.role = Role::Session;
            }
            Err(error) => {
                let detail = format!("one more process cannot be made in the object: {error}");
                connection.refuse(ProblemCode::Internal, &detail);
            }
        }
    }

    fn input_of(&self, id: u64, connection: &Connection) -> Option<&Input> {
        match &connection.role {
            Role::Session => self.sessions.get(&id).map(|session| &session.ends.input),
            Role::Follow(follow) if follow.has_stdin => Some(&self.ends.input),
            Role::Follow(_) | Role::New | Role::Control { .. } | Role::Closing => None,
        }
    }

    fn input_mut(&mut self, id: u64, connection: &Connection) -> Option<&mut Input> {
        match &connection.role {
            Role::Session => self
                .sessions
                .get_mut(&id)
                .map(|session| &mut session.ends.input),
            Role::Follow(follow) if follow.has_stdin => Some(&mut self.ends.input),
            Role::Follow(_) | Role::New | Role::Control { .. } | Role::Closing => None,
        }
    }

    fn resize(&mut self, id: u64, connection: &Connection, payload: &[u8]) {
        let Ok([a, b, c, d]) = <[u8; 4]>::try_from(payload) else {
            return;
        };
        let size = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        if let Some(session) = self.sessions.get_mut(&id) {
            session.ends.resize(size);
        } else if matches!(connection.role, Role::Follow(_)) {
            self.ends.resize(size);
        }
    }

    /// Gives a caller what there is for it, sends it, and forgets it when that was all.
    pub(super) fn pump(&mut self, id: u64) {
        if self
            .connections
            .get(&id)
            .is_some_and(|connection| connection.is_stalled && !connection.is_gone)
        {
            // First makes the room that the caller's frames wait for.
            self.sessions
                .entry(id)
                .and_modify(|session| session.ends.input.pump());
            self.serve(id);
        }
        let Some(mut connection) = self.connections.remove(&id) else {
            return;
        };
        match connection.role {
            Role::Follow(_) => self.pump_follow(&mut connection),
            Role::Session => self.pump_session(id, &mut connection),
            Role::New | Role::Control { .. } | Role::Closing => {}
        }
        connection.flush();
        let is_control = matches!(connection.role, Role::New | Role::Control { .. });
        let has_left = connection.has_ended && is_control && !connection.wants_to_write();
        if connection.is_over() || has_left {
            if let Some(session) = self.sessions.get_mut(&id) {
                session.hang_up();
            }
        } else {
            self.connections.insert(id, connection);
        }
    }

    fn pump_follow(&self, connection: &mut Connection) {
        let is_complete = self.is_complete();
        connection.is_hungry = false;
        while connection.has_room() {
            let Role::Follow(follow) = &mut connection.role else {
                return;
            };
            let has_all = follow
                .end
                .is_some_and(|end| follow.reader.position() >= end);
            if follow.caught_up == Some(self.log_bytes) && !is_complete {
                return;
            }
            let next = if has_all {
                Ok(None)
            } else {
                follow.reader.next_record()
            };
            match next {
                Ok(_) | Err(_) if follow.reader.gaps() > 0 => {
                    let detail = "the log was cut off before you had read it";
                    return connection.refuse(ProblemCode::Busy, detail);
                }
                Ok(Some(record)) => {
                    let is_attached = follow.is_attached;
                    follow.shown_at = clock::now();
                    show(connection, is_attached, &record);
                }
                Ok(None) if is_complete || has_all => {
                    let reason = match &self.exit {
                        Some(exit) if follow.goes_on => exit.reason.clone(),
                        Some(_) | None => ExitReason::Code(0),
                    };
                    return connection.finish(&reason);
                }
                Ok(None) => follow.caught_up = Some(self.log_bytes),
                Err(error) => {
                    let detail = format!("the log cannot be read: {error}");
                    return connection.refuse(ProblemCode::Internal, &detail);
                }
            }
        }
        connection.is_hungry = true;
    }

    fn pump_session(&mut self, id: u64, connection: &mut Connection) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let is_copy = matches!(session.work, Work::Read(_) | Work::Write(_));
        for (which, kind) in [(0, Kind::Stdout), (1, Kind::Stderr)] {
            let kind = if is_copy { Kind::Data } else { kind };
            while connection.has_room() {
                if let Some(bytes) = session.ends.read(which, &mut self.chunk) {
                    connection.push(kind, &[bytes]);
                    continue;
                }
                // When it has ended, all it wrote was read: whoever else still holds the other
                // end does not write for this caller.
                session.ends.outputs[which].take_if(|_| session.status.is_some());
                break;
            }
        }
        session.ends.input.pump();
        let (Some(status), true) = (&session.status, session.is_drained()) else {
            return;
        };
        match (&session.work, &session.failure, status) {
            (Work::Program(_) | Work::Probe(_), Some((code, message)), _) => {
                let reason = ExitReason::NotStarted {
                    code: *code,
                    message: message.clone(),
                };
                connection.finish(&reason);
            }
            (Work::Read(_) | Work::Write(_), Some((code, message)), _) => {
                let missing = *code == 127;
                let kind = if missing {
                    ProblemCode::NotFound
                } else {
                    ProblemCode::Internal
                };
                connection.refuse(kind, message);
            }
            (Work::Read(_), None, ExitReason::Code(0)) => {
                connection.push(Kind::DataEnd, &[]);
                connection.finish(status);
            }
            (Work::Program(_) | Work::Probe(_), None, _)
            | (Work::Write(_), None, ExitReason::Code(0)) => {
                connection.finish(status);
            }
            (Work::Read(_) | Work::Write(_), None, _) => {
                connection.refuse(ProblemCode::Internal, "the copy was interrupted");
            }
        }
        self.sessions.remove(&id);
    }

    /// Listens to the process that a session has made.
    pub(super) fn hear_session(&mut self, id: u64) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        while let Some(setup) = &session.setup {
            match setup.receive() {
                Ok(Some((Message::Terminal(terminal), _))) => {
                    // Without it the program's output is lost, which its caller will notice.
                    let _lost = session.ends.set_terminal(terminal);
                }
                Ok(Some((Message::Failed { code, text }, _))) => {
                    session.failure = Some((code, text));
                }
                Ok(Some((Message::Off(_) | Message::Starting, _))) => {}
                Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => return,
                Ok(None) | Err(_) => session.setup = None,
            }
        }
    }

    /// Kills the sessions whose callers have gone long enough ago; forgets those that ended.
    pub(super) fn tend_sessions(&mut self) {
        let now = clock::now();
        for session in self.sessions.values_mut() {
            if session.kill_at.is_some_and(|at| at <= now) {
                session.signal_group(Signal::SIGKILL);
                session.kill_at = Some(now + crate::limits::HANGUP_GRACE);
            }
        }
        let connections = &self.connections;
        self.sessions
            .retain(|id, s| s.status.is_none() || connections.contains_key(id));
    }

    /// Shows output to attached callers although the disk did not take it.
    pub(super) fn show_unlogged(&mut self, record: &Record) {
        for connection in self.connections.values_mut().filter(|c| c.has_room()) {
            let Role::Follow(follow) = &connection.role else {
                continue;
            };
            if follow.goes_on && follow.caught_up == Some(self.log_bytes) {
                let is_attached = follow.is_attached;
                show(connection, is_attached, record);
            }
        }
    }

    /// Until when the program has to wait for its only caller, who is about to lose output that
    /// is deleted from the log. With two callers nobody waits: neither may delay the other.
    pub(super) fn waits_until(&self) -> Option<Instant> {
        let mut followers = self.connections.values().filter_map(|c| match &c.role {
            Role::Follow(follow) if follow.goes_on && !c.is_gone => Some(follow),
            Role::Follow(_) | Role::New | Role::Control { .. } => None,
            Role::Session | Role::Closing => None,
        });
        let (Some(only), None) = (followers.next(), followers.next()) else {
            return None;
        };
        let is_behind = only.reader.position().0 + LAG_SEGMENTS <= self.log.position().0;
        let until = only.shown_at + LAG;
        (only.is_attached && is_behind && until > clock::now()).then_some(until)
    }

    pub(super) fn tell_watchers(&mut self, report: &ShimReport) {
        for connection in self.connections.values_mut() {
            if matches!(connection.role, Role::Control { is_watching: true }) {
                connection.report(report);
                connection.flush();
            }
        }
    }
}

fn show(connection: &mut Connection, is_attached: bool, record: &Record) {
    let kind = match record.stream {
        Stream::Stdout => Kind::Stdout,
        Stream::Stderr => Kind::Stderr,
    };
    if is_attached {
        connection.push(kind, &[&record.payload]);
    } else {
        let time = record.time_us.to_be_bytes();
        connection.push(Kind::Log, &[&[record.stream as u8], &time, &record.payload]);
    }
}

/// Whether a socket of ours can be used; a listener that was handed over must be one.
pub(super) fn listener_of(descriptor: std::os::fd::OwnedFd) -> io::Result<UnixListener> {
    let listener = UnixListener::from(descriptor);
    listener.set_nonblocking(true)?;
    listener.local_addr()?;
    Ok(listener)
}

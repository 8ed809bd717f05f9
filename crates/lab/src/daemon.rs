//! A lab that goes on after the command that started it: a process in the background that holds the
//! lab and answers requests, one at a time. It is not a service; it ends with its lab.
//!
//! It ends when asked to (`lab down`), and on SIGTERM, SIGINT or SIGHUP, always taking the lab down.
//! If it crashes, the kernel ends the hosts, and the next `lab` command takes away what is left.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{ForkResult, dup2_stderr, dup2_stdin, dup2_stdout, fork, setsid};

use crate::builder::Builder;
use crate::control::{Answer, LINE_BYTES_MAX, Request, SOCKET};
use crate::lab::{Lab, Ways};

/// The longest request: two lists of 250 names.
const REQUEST_BYTES_MAX: u64 = 64 << 10;
const _: () = assert!(REQUEST_BYTES_MAX < LINE_BYTES_MAX);
/// How long a client may take over its request.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);

/// Which process has returned from [`start_in_background`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The caller; the lab is up.
    Caller,
    /// The daemon; the lab is down again. There is nothing left to do but to end.
    Daemon,
}

/// Starts a lab in a process of its own. Returns in both: in the caller when the lab is up, in the
/// daemon when it is down again. The error is a sentence, and only the caller sees it.
///
/// It forks, so the calling process must have one thread only; otherwise this is an error.
pub fn start_in_background(builder: Builder) -> Result<Side, String> {
    if threads() != 1 {
        return Err("a program with threads cannot start a lab in the background".to_owned());
    }
    let io = |error: io::Error| format!("the lab cannot go to the background: {error}");
    let (ours, theirs) = UnixStream::pair().map_err(io)?;
    match fork_single_threaded().map_err(io)? {
        ForkResult::Parent { .. } => {
            drop(theirs);
            let mut said = String::new();
            (&ours).read_to_string(&mut said).map_err(io)?;
            serde_json::from_str::<Result<(), String>>(&said)
                .unwrap_or_else(|_| Err("the lab's daemon has crashed while it started".to_owned()))
                .map(|()| Side::Caller)
        }
        ForkResult::Child => {
            drop(ours);
            run(builder, theirs);
            Ok(Side::Daemon)
        }
    }
}

/// The daemon, from its first moment to its last.
fn run(builder: Builder, caller: UnixStream) {
    let started = prepare()
        .map_err(|error| error.to_string())
        .and_then(|signals| {
            let lab = builder.start().map_err(|error| error.to_string())?;
            let listener = open_socket(&lab).map_err(|error| error.to_string())?;
            Ok((signals, lab, listener))
        });
    let word = started.as_ref().map(|_| ()).map_err(Clone::clone);
    // If the caller has gone, the lab is up all the same, and `lab down` ends it.
    serde_json::to_writer(&caller, &word).ok();
    drop(caller);
    if let Ok((signals, lab, listener)) = started {
        serve(&signals, lab, &listener);
    }
}

/// Leaves the terminal; signals become something to wait for.
fn prepare() -> io::Result<SignalFd> {
    setsid()?;
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGHUP);
    signals.thread_block()?;
    std::env::set_current_dir("/")?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    Ok(SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC)?)
}

/// Opens the control socket, and the log in which panics and notices end.
fn open_socket(lab: &Lab) -> io::Result<UnixListener> {
    let log = File::create(lab.run_directory().join("daemon.log"))?;
    let listener = UnixListener::bind(lab.run_directory().join(SOCKET))?;
    dup2_stderr(&log)?;
    Ok(listener)
}

fn serve(signals: &SignalFd, lab: Lab, listener: &UnixListener) {
    loop {
        let mut watched = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(listener.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut watched, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => panic!("the daemon cannot wait for requests: {error}"),
        }
        if watched[0].any() == Some(true) {
            return;
        }
        if watched[1].any() != Some(true) {
            continue;
        }
        let Ok((client, _)) = listener.accept() else {
            continue;
        };
        // A client that goes away or talks nonsense harms only itself.
        match read_request(&client) {
            Ok(Request::Down) => {
                let done = lab.down().map(|()| Answer::Done);
                reply(client, &done.map_err(|error| error.to_string())).ok();
                return;
            }
            Ok(request) => reply(client, &answer(&lab, request)).ok(),
            Err(error) => reply(client, &Err(format!("not a request: {error}"))).ok(),
        };
    }
}

fn read_request(client: &UnixStream) -> io::Result<Request> {
    client.set_read_timeout(Some(REQUEST_LIMIT))?;
    client.set_write_timeout(Some(REQUEST_LIMIT))?;
    let mut line = String::new();
    BufReader::new(client.take(REQUEST_BYTES_MAX)).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

fn reply(mut client: UnixStream, answer: &Result<Answer, String>) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    client.write_all(&line)
}

fn answer(lab: &Lab, request: Request) -> Result<Answer, String> {
    match request {
        Request::Status => return Ok(Answer::Status(Box::new(lab.status()))),
        Request::Door(host) => {
            let host = lab.find(&host).map_err(|error| error.to_string())?;
            return Ok(Answer::Door(host.door_record()));
        }
        Request::Link {
            left,
            right,
            change,
            one_way,
        } => lab.change_link(&left, &right, ways(one_way), change),
        Request::Cut {
            left,
            right,
            one_way,
        } => lab.cut(&left, &or_others(lab, &left, right), ways(one_way)),
        Request::Heal { links } => lab.heal().and_then(|()| match links {
            true => lab.reset_links(),
            false => Ok(()),
        }),
        Request::Kill(host) => {
            let host = lab.find(&host).map_err(|error| error.to_string())?;
            return done(host.kill());
        }
        Request::Start(host) => {
            let host = lab.find(&host).map_err(|error| error.to_string())?;
            return done(
                host.start()
                    .map_err(|error| format!("{}: {error}", host.name())),
            );
        }
        Request::Move { host, address } => {
            let host = lab.find(&host).map_err(|error| error.to_string())?;
            let moved = host.move_to(address);
            return done(moved.map_err(|error| format!("{}: {error}", host.name())));
        }
        Request::Down => unreachable!("the caller takes the lab down itself"),
    }
    .map(|()| Answer::Done)
    .map_err(|error| error.to_string())
}

fn done(result: Result<(), impl ToString>) -> Result<Answer, String> {
    result
        .map(|()| Answer::Done)
        .map_err(|error| error.to_string())
}

/// `right`, or all hosts that are not on the left.
fn or_others(lab: &Lab, left: &[String], right: Vec<String>) -> Vec<String> {
    if !right.is_empty() {
        return right;
    }
    let names = lab.hosts().iter().map(|host| host.name().to_owned());
    names.filter(|name| !left.contains(name)).collect()
}

fn ways(one_way: bool) -> Ways {
    match one_way {
        true => Ways::LeftToRight,
        false => Ways::Both,
    }
}

#[expect(unsafe_code, reason = "fork has no safe form")]
fn fork_single_threaded() -> io::Result<ForkResult> {
    // SAFETY: the caller has checked that there is one thread, so no lock can be held by another
    // and the child may do everything.
    Ok(unsafe { fork() }?)
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

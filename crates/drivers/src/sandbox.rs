//! What an object is wrapped in, and the processes that set it up.
//!
//! ```text
//! shim (host)                init (pid 1 of the object)            program
//!   fork ───────────────────►  namespaces, root, filter
//!   control groups, attach     …
//!   ── go ──────────────────►  fork ───────────────────────────►  streams, user, capabilities
//!   ◄──────────── Off(sentence)* ── Failed | Starting ──────────  …
//!   ◄──────────── end of the setup socket ──────────────────────  execve
//!   ◄── wait status ─────────  reaps everything                   exit
//! ```
//!
//! The shim stays outside. It has only detached its *children* into a new pid namespace, so that
//! what it forks later (one more program, a copy) is inside as well. The setup socket keeps
//! message boundaries and carries the sender's process id as the shim sees it; it is closed by a
//! successful `execve`, which is how the shim knows that the program runs. The control socket
//! lives as long as init does: when either side is gone, the other one notices.

pub(crate) mod files;
pub(crate) mod filter;
mod hidden;
pub(crate) mod init;
pub(crate) mod program;
mod root;
mod user;

use std::fs::{self, File};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType,
    UnixCredentials, recvmsg, sendmsg, setsockopt, socketpair, sockopt,
};
use nix::unistd::{Pid, getegid, geteuid};

use crate::limits::{HIERARCHIES_MAX, SENTENCE_BYTES_MAX};
use crate::sys;

/// What this machine lets us do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// Namespaces made with the privileges of the host.
    Full,
    /// Namespaces inside a user namespace, made without privileges.
    Unprivileged,
    /// No namespaces at all.
    None,
}

/// Detaches the future children of this process. The process itself stays where it is.
pub(crate) fn detach(off: &mut Vec<String>) -> Isolation {
    let Err(refusal) = unshare(CloneFlags::CLONE_NEWPID) else {
        return Isolation::Full;
    };
    let (user, group) = (geteuid(), getegid());
    let outcome = unshare(CloneFlags::CLONE_NEWUSER)
        .map_err(io::Error::from)
        .and_then(|()| fs::write("/proc/self/setgroups", "deny"))
        .and_then(|()| fs::write("/proc/self/uid_map", format!("{user} {user} 1")))
        .and_then(|()| fs::write("/proc/self/gid_map", format!("{group} {group} 1")))
        .and_then(|()| unshare(CloneFlags::CLONE_NEWPID).map_err(io::Error::from));
    match outcome {
        Ok(()) => Isolation::Unprivileged,
        Err(error) => {
            off.push(format!(
                "it has no namespaces of its own and sees the processes and files of the node: \
                 neither the node ({}) nor a user namespace ({error}) may make them",
                refusal.desc()
            ));
            Isolation::None
        }
    }
}

/// What is said about an object while it is set up.
#[derive(Debug)]
pub(crate) enum Message {
    /// A protection that could not be had.
    Off(String),
    /// The object, or the further program, cannot be started.
    Failed { code: u8, text: String },
    /// Everything is in place; the program is about to be executed.
    Starting,
    /// The other side of the program's terminal.
    Terminal(OwnedFd),
}

/// The inner side of a setup socket.
#[derive(Debug)]
pub(crate) struct Reporter(OwnedFd);

impl Reporter {
    pub(crate) fn descriptor(&self) -> i32 {
        self.0.as_raw_fd()
    }

    fn send(&self, tag: u8, text: &[u8], with: &[ControlMessage<'_>]) {
        let text = text.get(..SENTENCE_BYTES_MAX).unwrap_or(text);
        let tag = [tag];
        let parts = [IoSlice::new(&tag), IoSlice::new(text)];
        // When the shim is gone this process is about to be killed: nobody is left to tell.
        let flags = MsgFlags::MSG_NOSIGNAL;
        let _sent = sendmsg::<()>(self.0.as_raw_fd(), &parts, with, flags, None);
    }

    pub(crate) fn off(&self, sentence: &str) {
        self.send(b'o', sentence.as_bytes(), &[]);
    }

    pub(crate) fn starting(&self) {
        self.send(b's', &[], &[]);
    }

    pub(crate) fn terminal(&self, terminal: &OwnedFd) {
        let descriptors = [terminal.as_raw_fd()];
        self.send(b't', &[], &[ControlMessage::ScmRights(&descriptors)]);
    }

    /// Says why it does not work and ends this process.
    pub(crate) fn fail(&self, failure: &Failure) -> ! {
        let mut text = vec![failure.code];
        text.extend_from_slice(failure.text.as_bytes());
        self.send(b'f', &text, &[]);
        sys::exit_now(i32::from(failure.code))
    }
}

/// Why something could not be started: the code a shell would give, and a sentence.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn setup(what: &str, error: impl std::fmt::Display) -> Self {
        Self {
            code: 125,
            text: format!("{what}: {error}"),
        }
    }
}

/// The outer side of a setup socket; never blocks.
#[derive(Debug)]
pub(crate) struct Setup(pub(crate) OwnedFd);

impl Setup {
    pub(crate) fn pair() -> nix::Result<(Self, Reporter)> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (outer, inner) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        setsockopt(&outer, sockopt::PassCred, &true)?;
        Ok((Self(outer), Reporter(inner)))
    }

    /// The next message and its sender. `Ok(None)` at the end.
    pub(crate) fn receive(&self) -> nix::Result<Option<(Message, Pid)>> {
        let mut bytes = [0_u8; SENTENCE_BYTES_MAX + 2];
        let mut space = nix::cmsg_space!(UnixCredentials, [i32; 1]);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let received = recvmsg::<()>(self.0.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
        let length = received.bytes;
        let (mut sender, mut descriptor) = (Pid::from_raw(0), None);
        for control in received.cmsgs()? {
            if let ControlMessageOwned::ScmCredentials(credentials) = &control {
                sender = Pid::from_raw(credentials.pid());
            } else if let ControlMessageOwned::ScmRights(descriptors) = control {
                descriptor = descriptors.into_iter().map(sys::adopt).next();
            }
        }
        let Some((tag, text)) = bytes.get(..length).and_then(<[u8]>::split_first) else {
            return Ok(None);
        };
        let sentence = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
        let message = match (tag, descriptor) {
            (b'o', _) => Message::Off(sentence(text)),
            (b's', _) => Message::Starting,
            (b't', Some(terminal)) => Message::Terminal(terminal),
            (b'f', _) => Message::Failed {
                code: text.first().copied().unwrap_or(125),
                text: sentence(text.get(1..).unwrap_or_default()),
            },
            (_, _) => return Err(Errno::EBADMSG),
        };
        Ok(Some((message, sender)))
    }
}

/// Says go to init, and hands it what it has to write to.
pub(crate) fn send_files(to: &UnixStream, files: &[File]) -> nix::Result<()> {
    let descriptors: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
    let control = [ControlMessage::ScmRights(&descriptors)];
    let control = if files.is_empty() {
        &[]
    } else {
        control.as_slice()
    };
    let flags = MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(to.as_raw_fd(), &[IoSlice::new(&[1])], control, flags, None).map(|_| ())
}

/// Waits for the shim to say go. Fails when it is gone.
pub(crate) fn receive_files(from: &UnixStream) -> nix::Result<Vec<OwnedFd>> {
    let mut byte = [0];
    let mut space = nix::cmsg_space!([RawFd; HIERARCHIES_MAX]);
    let mut parts = [IoSliceMut::new(&mut byte)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let received = recvmsg::<()>(from.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    if received.bytes == 0 {
        return Err(Errno::EPIPE);
    }
    let mut files = Vec::new();
    for control in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control {
            files.extend(descriptors.into_iter().map(sys::adopt));
        }
    }
    Ok(files)
}

/// Enters the namespaces of the object whose init this is. The pid namespace is entered by being
/// a child of the shim.
pub(crate) fn enter(isolation: Isolation, init: &OwnedFd) -> nix::Result<()> {
    if isolation == Isolation::None {
        return Ok(());
    }
    let kinds = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC;
    nix::sched::setns(init.as_fd(), kinds)
}

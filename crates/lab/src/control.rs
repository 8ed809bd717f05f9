//! Talking to a lab that another process holds. It is not for tests, which hold their labs
//! themselves.
//!
//! The conversation, over the Unix socket `control.sock` in the run directory (mode 0700):
//!
//! ```text
//! client  connects, sends one line of JSON: a request
//! daemon  sends one line of JSON: `{"Ok": ANSWER}` or `{"Err": "a sentence"}`, closes
//! ```

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cgroups::HostCgroups;
use crate::door::{self, Door};
use crate::link::LinkChange;
use crate::status::{DoorRecord, Status};
use crate::{fallback, process, rundir};

/// The name of the socket in the run directory.
pub(crate) const SOCKET: &str = "control.sock";
/// The longest request or answer: a status of 250 hosts has 62,250 links of 150 bytes.
pub(crate) const LINE_BYTES_MAX: u64 = 32 << 20;
/// How long a daemon may take; taking down many hosts is the slowest.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

/// What can be asked of a lab.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// [`crate::Lab::status`].
    Status,
    /// [`crate::Lab::change_link`].
    Link {
        /// One host.
        left: String,
        /// The other.
        right: String,
        /// What is to change.
        change: LinkChange,
        /// Only from left to right.
        one_way: bool,
    },
    /// [`crate::Lab::cut`].
    Cut {
        /// Hosts on one side.
        left: Vec<String>,
        /// Hosts on the other; if empty, all that are not on the left.
        right: Vec<String>,
        /// Only from left to right.
        one_way: bool,
    },
    /// [`crate::Lab::heal`].
    Heal {
        /// Also [`crate::Lab::reset_links`].
        links: bool,
    },
    /// [`crate::Host::kill`].
    Kill(String),
    /// [`crate::Host::start`].
    Start(String),
    /// [`crate::Host::move_to`].
    Move {
        /// The host.
        host: String,
        /// Where it is from now on.
        address: Ipv4Addr,
    },
    /// The way into a host.
    Door(String),
    /// [`crate::Lab::down`].
    Down,
}

/// What a daemon answers if all went well.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Done,
    Status(Box<Status>),
    Door(Option<DoorRecord>),
}

/// Why a request to a lab came to nothing.
#[derive(Debug)]
pub enum ControlError {
    /// No lab of this name is up; the second are the names of those that might be.
    NotUp(String, Vec<String>),
    /// The lab is held by a process that takes no requests (a test).
    Private(String),
    /// The host is down.
    HostDown(String),
    /// The lab has refused, in these words; nothing was changed.
    Refused(String),
    /// The conversation broke off; the request may have been carried out.
    Io(io::Error),
}

impl fmt::Display for ControlError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUp(name, others) => {
                write!(
                    formatter,
                    "no lab '{name}' is up; start it: lab up --name {name}"
                )?;
                if others.is_empty() {
                    return Ok(());
                }
                write!(formatter, " (labs that are there: {})", others.join(", "))
            }
            Self::Private(name) => {
                write!(
                    formatter,
                    "lab '{name}' belongs to a program and ends with it"
                )
            }
            Self::HostDown(host) => write!(formatter, "{host} is down; boot it: lab start {host}"),
            Self::Refused(reason) => write!(formatter, "{reason}"),
            Self::Io(error) => write!(formatter, "the lab does not answer: {error}"),
        }
    }
}

impl std::error::Error for ControlError {}

impl From<io::Error> for ControlError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A lab that another process holds, by its name.
#[derive(Clone, Debug)]
pub struct Remote {
    name: String,
}

impl Remote {
    /// The lab of this name, whether it is up or not.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    /// Asks for something that has no answer but "done".
    pub fn ask(&self, request: &Request) -> Result<(), ControlError> {
        self.exchange(request).map(|_| ())
    }

    /// [`crate::Lab::status`].
    pub fn status(&self) -> Result<Status, ControlError> {
        match self.exchange(&Request::Status)? {
            Answer::Status(status) => Ok(*status),
            Answer::Done | Answer::Door(_) => Err(confused()),
        }
    }

    /// [`crate::Host::command`], with the same promises.
    pub fn command(&self, host: &str, program: impl AsRef<OsStr>) -> Result<Command, ControlError> {
        let down = || ControlError::HostDown(host.to_owned());
        let program = program.as_ref();
        let record = match self.exchange(&Request::Door(host.to_owned()))? {
            Answer::Door(record) => record.ok_or_else(down)?,
            Answer::Done | Answer::Status(_) => return Err(confused()),
        };
        match record {
            DoorRecord::Mark(mark) => Ok(fallback::command(program, &mark)),
            DoorRecord::Init {
                pid,
                started,
                cgroups,
            } => {
                let door = Door {
                    init: process::open_same(pid, started).ok_or_else(down)?,
                    cgroups: HostCgroups::recorded(cgroups).doors()?,
                };
                Ok(door::command(program, Some(Arc::new(door))))
            }
        }
    }

    /// Takes the lab down, or takes away what it has left if its daemon has crashed.
    pub fn down(&self) -> Result<(), ControlError> {
        if !rundir::path_of(&self.name).exists() {
            return Err(self.not_up());
        }
        match self.exchange(&Request::Down) {
            Ok(_) => Ok(()),
            Err(ControlError::NotUp(..)) => match rundir::sweep_one(&self.name)? {
                true => Ok(()),
                false => Err(ControlError::Private(self.name.clone())),
            },
            Err(error) => Err(error),
        }
    }

    fn exchange(&self, request: &Request) -> Result<Answer, ControlError> {
        let mut stream = UnixStream::connect(self.socket()).or(Err(self.not_up()))?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        let mut line = serde_json::to_vec(request).map_err(io::Error::from)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let mut answer = String::new();
        BufReader::new(stream.take(LINE_BYTES_MAX)).read_line(&mut answer)?;
        if answer.is_empty() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let answer: Result<Answer, String> =
            serde_json::from_str(&answer).map_err(io::Error::from)?;
        answer.map_err(ControlError::Refused)
    }

    fn socket(&self) -> PathBuf {
        rundir::path_of(&self.name).join(SOCKET)
    }

    fn not_up(&self) -> ControlError {
        let mut others = rundir::names();
        others.retain(|name| *name != self.name);
        ControlError::NotUp(self.name.clone(), others)
    }
}

fn confused() -> ControlError {
    ControlError::Io(io::Error::new(
        io::ErrorKind::InvalidData,
        "an answer to another question",
    ))
}

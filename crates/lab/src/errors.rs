//! One error for each kind of operation; each says in its words what it did to the lab.

use std::fmt;
use std::io;

use crate::wan::WanError;

/// Why a lab did not start. Everything that it had made has been taken away again.
#[derive(Debug)]
pub enum StartError {
    /// A name is one to 32 lower-case letters, digits and hyphens.
    BadName(String),
    /// A lab has at least one host and at most [`crate::HOSTS_MAX`].
    BadCount(usize),
    /// No host that is to be behind a router has this name.
    NoSuchHost(String),
    /// A lab of this name is up.
    NameTaken(String),
    /// The matrix or its sites are wrong.
    Wan(WanError),
    /// A host did not start.
    Host(String, HostError),
    /// The system refused; the text says what.
    Io(&'static str, io::Error),
}

/// Why a host was not killed, started or moved. It is as it was, unless the system refused half-way; then
/// killing it again is safe.
#[derive(Debug)]
pub enum HostError {
    /// It is up already.
    AlreadyUp,
    /// It is down.
    Down,
    /// The hosts of this lab are loopback addresses: they cannot move.
    NoNetwork,
    /// The lab is down.
    Closed,
    /// The system refused.
    Io(io::Error),
}

/// Why the network was not changed.
#[derive(Debug)]
pub enum NetworkError {
    /// No host of this name is in the lab.
    NoSuchHost(String),
    /// A host has no link to itself.
    SameHost,
    /// A value is out of its range; says which.
    BadLink(String),
    /// Hosts of this lab are loopback addresses: there is no network to change.
    NoNetwork,
}

/// What could not be taken away when the lab went down. The next lab tries again.
#[derive(Debug)]
pub struct DownError(pub(crate) io::Error);

impl fmt::Display for StartError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadName(name) => write!(
                formatter,
                "'{name}' cannot be the name of a lab: use 1 to 32 of a-z, 0-9 and '-'"
            ),
            Self::BadCount(count) => {
                let most = crate::HOSTS_MAX;
                write!(formatter, "a lab of {count} hosts: it can have 1 to {most}")
            }
            Self::NoSuchHost(name) => write!(formatter, "there is no host '{name}'"),
            Self::NameTaken(name) => write!(
                formatter,
                "a lab '{name}' is up: take it down, or give this one another name"
            ),
            Self::Wan(error) => write!(formatter, "{error}"),
            Self::Host(host, error) => write!(formatter, "{host} does not start: {error}"),
            Self::Io(what, error) => write!(formatter, "the lab cannot {what}: {error}"),
        }
    }
}

impl fmt::Display for HostError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyUp => write!(formatter, "it is up already"),
            Self::Down => write!(formatter, "it is down"),
            Self::NoNetwork => {
                write!(
                    formatter,
                    "hosts are only loopback addresses here: none can move"
                )
            }
            Self::Closed => write!(formatter, "the lab is down"),
            Self::Io(error) => write!(formatter, "{error}"),
        }
    }
}

impl fmt::Display for NetworkError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchHost(name) => write!(formatter, "there is no host '{name}'"),
            Self::SameHost => write!(formatter, "a host has no link to itself"),
            Self::BadLink(reason) => write!(formatter, "{reason}"),
            Self::NoNetwork => write!(
                formatter,
                "hosts are only loopback addresses here: links cannot be changed"
            ),
        }
    }
}

impl fmt::Display for DownError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "not everything could be taken away: {}", self.0)
    }
}

impl std::error::Error for StartError {}
impl std::error::Error for HostError {}
impl std::error::Error for NetworkError {}
impl std::error::Error for DownError {}

impl From<WanError> for StartError {
    fn from(error: WanError) -> Self {
        Self::Wan(error)
    }
}

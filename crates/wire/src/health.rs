//! Whether an object does its work: how an app wants that to be found out, and what is known.
//!
//! The whole conversation is in `docs/protocols/health.md`.

use alloc::borrow::ToOwned;
use alloc::string::{String, ToString};
use core::fmt;
use core::ops::RangeInclusive;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest check as text.
pub const CHECK_BYTES_MAX: usize = 4096;
/// Shortest and longest [`Health::interval_ms`].
pub const INTERVAL_MS_RANGE: RangeInclusive<u32> = 1_000..=3_600_000;
/// Shortest and longest [`Health::timeout_ms`].
pub const TIMEOUT_MS_RANGE: RangeInclusive<u32> = 100..=60_000;
/// Fewest and most [`Health::retries`].
pub const RETRIES_RANGE: RangeInclusive<u32> = 1..=100;
/// Longest [`Health::start_period_ms`].
pub const START_PERIOD_MS_MAX: u32 = 3_600_000;
/// Longest reason of [`HealthState::Unhealthy`].
pub const WHY_BYTES_MAX: usize = 256;

/// How the health of an app's objects is found out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// What is tried: `http:PORT/PATH`, `tcp:PORT`, or a command for `sh -c` inside the object.
    pub check: Check,
    /// From the end of one probe to the begin of the next.
    #[serde(default = "interval_ms")]
    pub interval_ms: u32,
    /// A probe that takes longer has failed.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u32,
    /// So many failures in a row make it unhealthy.
    #[serde(default = "retries")]
    pub retries: u32,
    /// Failures so soon after the start of its program do not count.
    #[serde(default = "start_period_ms")]
    pub start_period_ms: u32,
}

fn interval_ms() -> u32 {
    10_000
}

fn timeout_ms() -> u32 {
    3_000
}

fn retries() -> u32 {
    3
}

fn start_period_ms() -> u32 {
    30_000
}

impl Health {
    /// This check with the usual times.
    #[must_use]
    pub fn new(check: Check) -> Self {
        Self {
            check,
            interval_ms: interval_ms(),
            timeout_ms: timeout_ms(),
            retries: retries(),
            start_period_ms: start_period_ms(),
        }
    }

    /// What is wrong with its numbers, as a sentence; nothing when nothing is.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        let of = |what: &str, range: RangeInclusive<u32>, value: u32| {
            let (least, most) = (range.start(), range.end());
            let fault = alloc::format!("the health {what} is {least} to {most}, not {value}");
            (!range.contains(&value)).then_some(fault)
        };
        let start_period_ms = 0..=START_PERIOD_MS_MAX;
        of("interval in ms", INTERVAL_MS_RANGE, self.interval_ms)
            .or_else(|| of("timeout in ms", TIMEOUT_MS_RANGE, self.timeout_ms))
            .or_else(|| of("number of retries", RETRIES_RANGE, self.retries))
            .or_else(|| of("start period in ms", start_period_ms, self.start_period_ms))
    }
}

/// What one probe tries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(try_from = "CheckText", into = "CheckText")]
pub enum Check {
    /// `sh -c` with this inside the object returns 0.
    Command(String),
    /// A request at this port of the node is answered with a status from 200 to 399.
    Http {
        /// The port.
        port: u16,
        /// Begins with a slash.
        path: String,
    },
    /// A connection to this port of the node is accepted.
    Tcp {
        /// The port.
        port: u16,
    },
}

/// A check as people write it; its form in JSON and between nodes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct CheckText(String);

impl TryFrom<CheckText> for Check {
    type Error = CheckError;
    fn try_from(text: CheckText) -> Result<Self, CheckError> {
        text.0.parse()
    }
}

impl From<Check> for CheckText {
    fn from(check: Check) -> Self {
        Self(check.to_string())
    }
}

/// Why a text is not a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckError(String);

impl fmt::Display for CheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is no health check: write http:8080/path, tcp:8080 or a command",
            self.0
        )
    }
}

impl core::error::Error for CheckError {}

impl FromStr for Check {
    type Err = CheckError;
    fn from_str(text: &str) -> Result<Self, CheckError> {
        let wrong = || CheckError(text.chars().take(64).collect());
        let port = |digits: &str| match digits.parse() {
            Ok(port) if port != 0_u16 => Ok(port),
            Ok(_) | Err(_) => Err(wrong()),
        };
        if text.trim().is_empty() || text.len() > CHECK_BYTES_MAX || text.contains('\0') {
            return Err(wrong());
        }
        if let Some(rest) = text.strip_prefix("tcp:") {
            return port(rest).map(|port| Self::Tcp { port });
        }
        let Some(rest) = text.strip_prefix("http:") else {
            return Ok(Self::Command(text.to_owned()));
        };
        let (digits, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        // What is put into a request line must not end it.
        if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong());
        }
        let path = if path.is_empty() { "/" } else { path }.to_owned();
        port(digits).map(|port| Self::Http { port, path })
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(command) => f.write_str(command),
            Self::Http { port, path } => write!(f, "http:{port}{path}"),
            Self::Tcp { port } => write!(f, "tcp:{port}"),
        }
    }
}

/// What is known of an object whose app has a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum HealthState {
    /// Its program has not been seen to work since it started.
    Starting,
    /// It works.
    Healthy,
    /// Its probes fail.
    Unhealthy {
        /// What the last one said.
        why: String,
    },
}

impl HealthState {
    /// The word for it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy { .. } => "unhealthy",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_read_as_it_is_written() {
        for text in [
            "http:8080/",
            "http:80/a?b=c",
            "tcp:5432",
            "test -e /ready",
            "https:1",
        ] {
            let check: Check = text.parse().unwrap();
            assert_eq!(check.to_string(), text);
        }
        assert_eq!(
            "http:8080".parse::<Check>().unwrap().to_string(),
            "http:8080/"
        );
    }

    #[test]
    fn what_is_no_check_is_refused() {
        for text in [
            "",
            " ",
            "tcp:",
            "tcp:0",
            "tcp:65536",
            "http:/x",
            "http:80/a b",
            "http:80/\r\n",
            "a\0b",
        ] {
            assert!(text.parse::<Check>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn numbers_out_of_range_are_faults() {
        let usual = Health::new(Check::Tcp { port: 80 });
        assert_eq!(usual.fault(), None);
        let fault = |edit: fn(&mut Health)| {
            let mut health = usual.clone();
            edit(&mut health);
            health.fault().is_some()
        };
        assert!(fault(|it| it.interval_ms = 999));
        assert!(fault(|it| it.timeout_ms = 60_001));
        assert!(fault(|it| it.retries = 0));
        assert!(fault(|it| it.start_period_ms = START_PERIOD_MS_MAX + 1));
    }
}

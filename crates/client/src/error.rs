//! Why a call has no answer.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use wire::call::Problem;

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallError {
    /// Nobody listens on the socket: nothing was asked.
    NotUp {
        /// The socket.
        path: PathBuf,
    },
    /// Somebody listens on the socket and says nothing: the call may have had its effect, now or
    /// later.
    Silent {
        /// The socket.
        path: PathBuf,
        /// The process that listens, when it is known.
        pid: Option<u32>,
        /// For how long it was waited.
        waited: Duration,
    },
    /// The node understood and refused: nothing was done, unless the problem says otherwise.
    Problem(Problem),
    /// The connection broke or the answer makes no sense; the call may have had its effect.
    Protocol(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUp { path } => write!(
                f,
                "this node is not up (no answer at {}); welkin up",
                path.display()
            ),
            Self::Silent { path, pid, waited } => {
                f.write_str("the node ")?;
                if let Some(pid) = pid {
                    write!(f, "(process {pid}) ")?;
                }
                write!(
                    f,
                    "takes calls at {} but has not answered for {} s",
                    path.display(),
                    waited.as_secs()
                )
            }
            Self::Problem(problem) => problem.fmt(f),
            Self::Protocol(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for CallError {}

impl From<Problem> for CallError {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

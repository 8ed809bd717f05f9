//! Why a verb did not do what it was asked to: what to say, and with which code to exit.

use std::io;

use client::CallError;
use wire::call::{Problem, ProblemCode};

use crate::context::daemon_log;

/// Exit code of a failure of any verb.
pub(crate) const EXIT_FAILED: u8 = 1;
/// Exit code of wrong usage.
pub(crate) const EXIT_USAGE: u8 = 2;
/// Exit code of `run` and `exec` when it was Welkin that failed and not the program.
pub(crate) const EXIT_OURS: u8 = 125;

/// What went wrong, in words, and the exit code that says so to scripts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// A sentence; nothing is shown when it is empty.
    pub(crate) detail: String,
    /// What to do next; may be empty.
    pub(crate) remedy: String,
    /// The exit code.
    pub(crate) exit: u8,
    /// A program was to be started and the node said why it was not: `exit` is final.
    not_started: bool,
}

impl Failure {
    /// A failure with nothing to do about it.
    pub(crate) fn new(detail: impl Into<String>) -> Self {
        Self {
            detail: detail.into(),
            remedy: String::new(),
            exit: EXIT_FAILED,
            not_started: false,
        }
    }

    /// Says what to do next.
    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }

    /// The flags contradict each other or a value makes no sense.
    pub(crate) fn usage(detail: impl Into<String>) -> Self {
        Self {
            exit: EXIT_USAGE,
            ..Self::new(detail)
        }
    }

    /// Ends with this code and says nothing more.
    pub(crate) fn silent(exit: u8) -> Self {
        Self {
            exit,
            ..Self::new("")
        }
    }

    /// The same for verbs that pass the exit code of a program on: 125 tells ours from its.
    pub(crate) fn beside_a_program(mut self) -> Self {
        if self.exit == EXIT_FAILED && !self.not_started {
            self.exit = EXIT_OURS;
        }
        self
    }

    /// The same where 1 says that there is a difference, as diff(1) has it.
    pub(crate) fn beside_a_difference(mut self) -> Self {
        if self.exit == EXIT_FAILED {
            self.exit = EXIT_USAGE;
        }
        self
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        match error {
            CallError::NotUp { path } => Self::new(format!(
                "this node is not up (no answer at {})",
                path.display()
            ))
            .remedy("welkin up"),
            CallError::Silent { ref path, pid, .. } => {
                let log = daemon_log(path);
                let process = pid.map_or("its process".to_owned(), |pid| pid.to_string());
                let remedy = format!(
                    "less {}; when it hangs: kill -9 {process} (objects go on), then welkin up",
                    log.display()
                );
                Self::new(error.to_string()).remedy(remedy)
            }
            CallError::Problem(problem) => problem.into(),
            CallError::Protocol(why) => Self::new(why).remedy("welkin doctor"),
        }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let remedy = if problem.remedy.is_empty() {
            usual_remedy(&problem.code).to_owned()
        } else {
            problem.remedy
        };
        let failure = Self::new(problem.detail).remedy(remedy);
        if let ProblemCode::NotStarted { exit } = problem.code {
            Self {
                exit,
                not_started: true,
                ..failure
            }
        } else {
            failure
        }
    }
}

/// What to do about something that is not there, when no better is known.
pub(crate) const REMEDY_NOT_FOUND: &str = "welkin ps -a; welkin nodes";

/// What to do about a problem whose finder says nothing of it.
fn usual_remedy(code: &ProblemCode) -> &'static str {
    match code {
        ProblemCode::Invalid => "welkin --help",
        ProblemCode::NotFound => REMEDY_NOT_FOUND,
        ProblemCode::Conflict => "welkin ps -a",
        ProblemCode::Ambiguous => "write more of the name",
        ProblemCode::NoFit => "welkin nodes -o wide, to see what there is",
        ProblemCode::Busy => "the same again in a moment",
        ProblemCode::Unreachable | ProblemCode::TimedOut => "welkin nodes, then the same again",
        ProblemCode::Forbidden => "sudo welkin …",
        ProblemCode::BadTicket => "welkin invite, on a machine of the cloud, for a new ticket",
        ProblemCode::NotStarted { exit: 127 } => {
            "welkin run -- sh -c 'ls /usr/bin', to see what its node has; \
             --host or --constraint chooses the node"
        }
        ProblemCode::NotStarted { exit: 126 } => {
            "chmod +x FILE, or run it by its interpreter: welkin run -- sh FILE"
        }
        ProblemCode::NotStarted { .. } | ProblemCode::Internal => "welkin doctor",
    }
}

/// For what is written to standard output: whoever read it and went away wants to hear no more.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::silent(0)
        } else {
            Self::new(error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_and_exec_tell_their_own_failures_from_the_programs() {
        let ours = Failure::from(Problem::not_found("node", "x")).beside_a_program();
        assert_eq!(ours.exit, EXIT_OURS);
        let not_found = Problem::new(ProblemCode::NotStarted { exit: 127 }, "no such program");
        assert_eq!(Failure::from(not_found).beside_a_program().exit, 127);
        assert_eq!(Failure::usage("x").beside_a_program().exit, EXIT_USAGE);
    }

    #[test]
    fn a_silent_node_is_named_by_its_process() {
        let failure = Failure::from(CallError::Silent {
            path: "/x/welkin.sock".into(),
            pid: Some(812),
            waited: std::time::Duration::from_secs(60),
        });
        let expected = "the node (process 812) takes calls at /x/welkin.sock but has not answered \
                        for 60 s";
        assert_eq!(failure.detail, expected);
        assert!(failure.remedy.starts_with("less /x/daemon.log; "));
        assert!(failure.remedy.contains("kill -9 812 "));
    }

    #[test]
    fn a_reader_that_left_is_no_failure() {
        let left = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(left, Failure::silent(0));
    }
}

//! Calls that change something, until they are answered: once, also when the disk takes no writes.
//!
//! ```text
//! open ──── it is done, and durable ────────► answered
//!    │ the disk refuses for PATIENCE
//!    └───────────────────────────────────────► given up: the caller hears why, the change goes on
//! ```

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::time::Duration;

use wire::call::{Problem, ProblemCode, Response};
use wire::peer::{Ask, ObjectFilter};

use super::waiting::forwarded_for;
use super::{Kernel, Origin};
use crate::calls::changes_something;
use crate::outbox::Basis;

/// How long a call waits for a disk that refuses: long enough that two tries of the disk go by, so
/// that a moment without room is not noticed.
const PATIENCE: Duration = Duration::from_secs(3);

/// Which calls that change something are not answered yet.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    open: BTreeSet<Origin>,
    /// Told that it takes longer; what comes of it is not said any more.
    given_up: BTreeSet<Origin>,
}

impl Pending {
    /// Whether all that began was answered.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.given_up.is_empty()
    }

    /// It has begun.
    pub(crate) fn open(&mut self, origin: Origin) {
        self.given_up.remove(&origin);
        self.open.insert(origin);
    }

    /// It is about to be answered, or nobody waits for it. Says whether it was answered already.
    pub(super) fn close(&mut self, origin: Origin) -> bool {
        self.open.remove(&origin);
        self.given_up.remove(&origin)
    }
}

impl Kernel {
    /// Whoever waits for a change that waits for the disk is told so after a while.
    pub(super) fn give_up_changes(&mut self) {
        let Some(reason) = self.outbox.refuses_for(self.now, PATIENCE) else {
            return;
        };
        let detail = alloc::format!(
            "the node's disk takes no writes ({reason}); the change waits for it, and is made when \
             there is room, unless the node is stopped before"
        );
        let problem = Problem::new(ProblemCode::TimedOut, detail)
            .remedy("make room on the disk; welkin doctor says when it takes writes again");
        for origin in self.outbox.give_up_changes() {
            self.reply_now(origin, Err(problem.clone()));
        }
        let here: Vec<Origin> = self.pending.open.iter().copied().collect();
        for origin in here {
            // What another node does needs nothing of this disk.
            if self
                .questions
                .any(|task| forwarded_for(task) == Some(origin))
            {
                continue;
            }
            self.reply_now(origin, Err(problem.clone()));
            let waiting = self.waiters.len();
            self.waiters.retain(|waiter| waiter.origin != origin);
            if self.waiters.len() == waiting {
                self.pending.given_up.insert(origin);
            }
        }
    }
}

/// What the answer to a call rests on. Only what says that something was done is a promise; a
/// refusal is none.
pub(super) fn basis_of_reply(origin: Origin, result: &Result<Response, Problem>) -> Basis {
    let Ok(response) = result else {
        return Basis::Hearsay;
    };
    match response {
        Response::Invite(_)
        | Response::NodeDrain(_)
        | Response::NodeResume(_)
        | Response::NodeLabel(_)
        | Response::NodeRemove(_)
        | Response::Run(_)
        | Response::Apply(_)
        | Response::StopApp(_)
        | Response::StartApp(_)
        | Response::Remove(_)
        | Response::Scale(_) => Basis::Change(origin),
        Response::NodeDown(_) | Response::Wait(_) => Basis::Durable,
        Response::CloudInfo(_)
        | Response::NodeList(_)
        | Response::NodeInspect(_)
        | Response::Doctor(_)
        | Response::AppList(_)
        | Response::Inspect(_)
        | Response::Locate(_)
        | Response::Kill(_)
        | Response::Stats(_)
        | Response::Explain(_)
        | Response::Resolve(_) => Basis::Hearsay,
    }
}

/// Whether a question to another node says nothing that must be durable here first. A call that
/// changes something may rest on what was written here; one that asks rests on nothing.
pub(super) fn tells_nothing(ask: &Ask) -> bool {
    match ask {
        Ask::Call(request) => !changes_something(request),
        Ask::Objects { .. }
        | Ask::Apps
        | Ask::Usage { .. }
        | Ask::Reserve { .. }
        | Ask::Seat { .. }
        | Ask::Standing(_) => true,
        Ask::Release { .. }
        | Ask::Launch { .. }
        | Ask::StopObject { .. }
        | Ask::StartObject { .. }
        | Ask::SignalObject { .. }
        | Ask::StoreRecord(_)
        | Ask::FetchRecord(_)
        | Ask::SetRestart { .. }
        | Ask::TakeSeat { .. } => false,
    }
}

/// What the answer to a question of another node rests on. What is asked for to be shown is
/// hearsay; a supervisor that asks for the objects of an app decides by the answer.
pub(super) fn basis_of_answer(ask: &Ask) -> Basis {
    let is_shown = matches!(
        ask,
        Ask::Apps
            | Ask::Objects {
                filter: ObjectFilter::Every | ObjectFilter::Prefix(_),
                ..
            }
    );
    if is_shown {
        Basis::Hearsay
    } else {
        Basis::Durable
    }
}

//! The desk where callers wait for the kernel's answers.
//!
//! What it is not: it does not understand calls. It numbers them, hands them to the loop, and
//! hands answers back. A caller that goes away is told to the kernel.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kernel::limits::CALLS_MAX;
use kernel::world::{CallId, Input};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;
use wire::call::{Problem, ProblemCode, Request, Response};

type Answer = Result<Response, Problem>;

/// The desk. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Calls {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    inputs: mpsc::Sender<Input>,
    tasks: TaskTracker,
}

impl Calls {
    pub(crate) fn new(inputs: mpsc::Sender<Input>) -> Self {
        let shared = Shared {
            next: AtomicU64::new(1),
            waiting: Mutex::default(),
            inputs,
            tasks: TaskTracker::new(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Asks the kernel. Dropping the future tells the kernel that nobody waits any more.
    pub(crate) async fn ask(&self, request: Request) -> Answer {
        let stopped = || {
            Problem::new(ProblemCode::Unreachable, "the node is being stopped")
                .remedy("ask another node, or start this one again: welkin up")
        };
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        {
            let mut waiting = self.waiting();
            if waiting.len() >= CALLS_MAX {
                let text = format!("{CALLS_MAX} calls are already being answered");
                return Err(Problem::new(ProblemCode::Busy, text).remedy("try again in a moment"));
            }
            waiting.insert(id, answer);
        }
        let _place = Place { calls: self, id };
        let call = CallId(id);
        let request = Box::new(request);
        let input = Input::Call { call, request };
        self.shared
            .inputs
            .send(input)
            .await
            .map_err(|_ended| stopped())?;
        answered.await.unwrap_or_else(|_ended| Err(stopped()))
    }

    /// Answers a caller, if it still waits.
    pub(crate) fn answer(&self, call: CallId, answer: Answer) {
        let caller = self.waiting().remove(&call.0);
        if caller.is_some_and(|caller| caller.send(answer).is_err()) {
            tracing::debug!(call = call.0, "the caller went away just before its answer");
        }
    }

    /// Everybody who still waits is told that the node stops.
    pub(crate) fn close(&self) {
        self.waiting().clear();
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Answer>>> {
        self.shared
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of a caller that waits.
struct Place<'a> {
    calls: &'a Calls,
    id: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.calls.waiting().remove(&self.id).is_none() {
            return;
        }
        let call = CallId(self.id);
        let shared = Arc::clone(&self.calls.shared);
        // A destructor cannot wait for room in the queue; a task can.
        self.calls.shared.tasks.spawn(async move {
            if shared.inputs.send(Input::Abandoned { call }).await.is_err() {
                tracing::debug!(
                    call = call.0,
                    "a call was abandoned after the end of the kernel"
                );
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use wire::call::{CloudInfo, Doctor, Findings};

    use super::*;

    #[tokio::test]
    async fn an_answer_finds_its_caller() {
        let (inputs, mut told) = mpsc::channel(4);
        let calls = Calls::new(inputs);
        let asking = calls.ask(Doctor {}.into());
        let answering = async {
            let Some(Input::Call { call, .. }) = told.recv().await else {
                panic!("a call was expected");
            };
            calls.answer(call, Ok(Response::Doctor(Findings { findings: vec![] })));
        };
        let (answer, ()) = tokio::join!(asking, answering);
        assert_eq!(answer, Ok(Response::Doctor(Findings { findings: vec![] })));
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_is_told_to_the_kernel() {
        let (inputs, mut told) = mpsc::channel(4);
        let calls = Calls::new(inputs);
        {
            let asking = calls.ask(CloudInfo {}.into());
            tokio::pin!(asking);
            tokio::select! {
                biased;
                _ = &mut asking => panic!("nobody answers"),
                input = told.recv() => assert!(matches!(input, Some(Input::Call { .. }))),
            }
        }
        assert_eq!(
            told.recv().await,
            Some(Input::Abandoned { call: CallId(1) })
        );
    }

    #[tokio::test]
    async fn callers_of_a_node_that_stops_are_told_so() {
        let (inputs, told) = mpsc::channel(4);
        drop(told);
        let problem = Calls::new(inputs)
            .ask(CloudInfo {}.into())
            .await
            .unwrap_err();
        assert_eq!(problem.code, ProblemCode::Unreachable);
    }
}

//! Questions to other nodes that are open, and when to stop waiting for their answers.
//!
//! What it is not: it neither sends nor understands them. The hub gives each question a task `T`,
//! which says what the answer is for, and gets the task back exactly once: with the answer, at the
//! deadline, or when the node is lost.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use wire::id::NodeId;

use crate::instant::Instant;
use crate::limits::QUESTIONS_MAX;

/// The open questions of one node.
#[derive(Debug)]
pub(crate) struct Questions<T> {
    last: u64,
    open: BTreeMap<u64, Question<T>>,
    deadlines: BTreeMap<(Instant, u64), ()>,
}

#[derive(Debug)]
struct Question<T> {
    to: NodeId,
    deadline: Instant,
    task: T,
}

impl<T> Questions<T> {
    /// Numbers begin at `first`, which should differ from one life of the node to the next, so
    /// that a late answer to a former life is not taken for one to this.
    pub(crate) fn new(first: u64) -> Self {
        Self {
            last: first,
            open: BTreeMap::new(),
            deadlines: BTreeMap::new(),
        }
    }

    /// A new question; the task comes back at once when too many are open.
    ///
    /// # Errors
    /// The task.
    pub(crate) fn open(&mut self, to: NodeId, deadline: Instant, task: T) -> Result<u64, T> {
        if self.open.len() >= QUESTIONS_MAX {
            return Err(task);
        }
        self.last = self.last.wrapping_add(1);
        self.open.insert(self.last, Question { to, deadline, task });
        self.deadlines.insert((deadline, self.last), ());
        Ok(self.last)
    }

    /// Whether a few more can be asked.
    pub(crate) fn has_room(&self) -> bool {
        self.open.len() + 16 < QUESTIONS_MAX
    }

    /// The answer to a question came from `from`.
    pub(crate) fn close(&mut self, number: u64, from: NodeId) -> Option<T> {
        if self
            .open
            .get(&number)
            .is_none_or(|question| question.to != from)
        {
            return None;
        }
        let question = self.open.remove(&number)?;
        self.deadlines.remove(&(question.deadline, number));
        Some(question.task)
    }

    /// Tasks of questions to a node that is lost.
    pub(crate) fn close_all_to(&mut self, node: NodeId) -> Vec<T> {
        let to_it =
            |(number, question): (&u64, &Question<T>)| (question.to == node).then_some(*number);
        let numbers: Vec<u64> = self.open.iter().filter_map(to_it).collect();
        numbers
            .into_iter()
            .filter_map(|number| self.close(number, node))
            .collect()
    }

    /// Tasks whose time is over, with the nodes that did not answer.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<(NodeId, T)> {
        let mut expired = Vec::new();
        while let Some((&(at, number), ())) = self.deadlines.first_key_value() {
            if at > now {
                break;
            }
            self.deadlines.pop_first();
            if let Some(question) = self.open.remove(&number) {
                expired.push((question.to, question.task));
            }
        }
        expired
    }

    /// Numbers and receivers of the open questions whose task fits.
    pub(crate) fn find(&self, fits: impl Fn(&T) -> bool) -> Vec<(u64, NodeId)> {
        let open = self
            .open
            .iter()
            .filter(|(_, question)| fits(&question.task));
        open.map(|(number, question)| (*number, question.to))
            .collect()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.keys().next().map(|(at, _)| *at)
    }
}

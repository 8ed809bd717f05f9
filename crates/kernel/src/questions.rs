//! Questions to other nodes that are open, and when to stop waiting for their answers.
//!
//! What it is not: it neither sends nor understands them. The hub gives each question a task `T`,
//! which says what the answer is for, and gets the task back exactly once: with the answer, at the
//! deadline, or when the node is lost.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

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
    asked: Instant,
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
    pub(crate) fn open(
        &mut self,
        asked: Instant,
        to: NodeId,
        deadline: Instant,
        task: T,
    ) -> Result<u64, T> {
        if self.open.len() >= QUESTIONS_MAX {
            return Err(task);
        }
        self.last = self.last.wrapping_add(1);
        let question = Question {
            to,
            asked,
            deadline,
            task,
        };
        self.open.insert(self.last, question);
        self.deadlines.insert((deadline, self.last), ());
        Ok(self.last)
    }

    /// Whether one of such a task is open.
    pub(crate) fn any(&self, is_it: impl Fn(&T) -> bool) -> bool {
        self.open.values().any(|question| is_it(&question.task))
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

    /// The question may wait longer.
    pub(crate) fn extend(&mut self, number: u64, from: NodeId, deadline: Instant) {
        if let Some(question) = self.open.get_mut(&number).filter(|it| it.to == from) {
            self.deadlines.remove(&(question.deadline, number));
            self.deadlines.insert((deadline, number), ());
            question.deadline = deadline;
        }
    }

    /// No question to that node that was asked before may wait longer than until then.
    pub(crate) fn hurry(&mut self, node: NodeId, before: Instant, soon: Instant) {
        for (number, question) in &mut self.open {
            if question.to == node && question.asked < before && question.deadline > soon {
                self.deadlines.remove(&(question.deadline, *number));
                self.deadlines.insert((soon, *number), ());
                question.deadline = soon;
            }
        }
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

    /// What the open questions are for.
    pub(crate) fn tasks(&self) -> impl Iterator<Item = &T> {
        self.open.values().map(|question| &question.task)
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

/// Pause before an answer that came back is sent again.
const RESEND_PAUSE: Duration = Duration::from_secs(1);
/// How often it is sent again.
const RESENDS_MAX: u8 = 10;
/// One that has not come back for so long has arrived.
const ARRIVED_AFTER: Duration = Duration::from_secs(60);
/// Answers that are remembered for it.
const RETURNED_MAX: usize = 256;

/// Answers that could not be delivered, though their asker may still wait: a link broke under
/// them. Each is sent again a few times.
#[derive(Debug)]
pub(crate) struct Returned<A> {
    answers: Vec<(Instant, Parcel<A>)>,
}

#[derive(Debug)]
struct Parcel<A> {
    to: NodeId,
    question: u64,
    /// Absent while it is on its way again.
    answer: Option<A>,
    resends: u8,
}

impl<A> Default for Returned<A> {
    fn default() -> Self {
        Self {
            answers: Vec::new(),
        }
    }
}

impl<A> Returned<A> {
    /// It came back.
    pub(crate) fn push(&mut self, now: Instant, to: NodeId, question: u64, answer: A) {
        let is_it = |(_, it): &(Instant, Parcel<A>)| it.to == to && it.question == question;
        let resends = match self.answers.iter().position(is_it) {
            Some(at) => self.answers.swap_remove(at).1.resends,
            None => 0,
        };
        if resends < RESENDS_MAX && self.answers.len() < RETURNED_MAX {
            let parcel = Parcel {
                to,
                question,
                answer: Some(answer),
                resends,
            };
            self.answers.push((now + RESEND_PAUSE, parcel));
        }
    }

    /// Those that are to be sent again now.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<(NodeId, u64, A)> {
        self.answers
            .retain(|(at, it)| it.answer.is_some() || *at + ARRIVED_AFTER > now);
        let mut due = Vec::new();
        for (at, it) in self.answers.iter_mut().filter(|(at, _)| *at <= now) {
            if let Some(answer) = it.answer.take() {
                it.resends += 1;
                *at = now;
                due.push((it.to, it.question, answer));
            }
        }
        due
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let waiting = self.answers.iter().filter(|(_, it)| it.answer.is_some());
        waiting.map(|(at, _)| *at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_came_back_is_sent_again_a_few_times() {
        let mut returned = Returned::default();
        let to = NodeId([1; 32]);
        let mut sent = 0;
        returned.push(Instant::default(), to, 7, "yes");
        while let Some(now) = returned.poll_timeout() {
            for (to, question, answer) in returned.due(now) {
                sent += 1;
                returned.push(now, to, question, answer);
            }
        }
        assert_eq!(sent, RESENDS_MAX);
    }
}

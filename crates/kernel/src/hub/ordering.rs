//! Apps that wait for others: who is asked, who answers, and which circles are refused.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use wire::call::{Problem, ProblemCode, Request};
use wire::id::AppId;
use wire::peer::{Answer, AppRecord, Ask};
use wire::spec::AppSpec;

use super::{Kernel, Origin, Task};
use crate::limits::SCATTER_DEADLINE;
use crate::order::{self, Heard, Inquiry, Scope};
use crate::supervisor::Step;

/// What a round of questions is for.
#[derive(Debug)]
pub(crate) enum Purpose {
    /// An app that waits.
    Gate(AppId),
    /// A call that makes or changes an app, which must not come after itself.
    Call {
        origin: Origin,
        request: Box<Request>,
    },
}

impl Purpose {
    /// Whether it is for the call of this caller.
    pub(super) fn is_of(&self, caller: Origin) -> bool {
        self.origin() == Some(caller)
    }

    /// Who waits for it.
    pub(super) fn origin(&self) -> Option<Origin> {
        match self {
            Self::Gate(_) => None,
            Self::Call { origin, .. } => Some(*origin),
        }
    }
}

impl Kernel {
    /// What is to be done for an app of all that is planned: nothing is placed while it waits.
    pub(super) fn heed_order(&mut self, app: AppId, mut steps: Vec<Step>) -> Vec<Step> {
        let Some(record) = self.directory.get(app) else {
            return steps;
        };
        if order::has_begun_unnoted(record) {
            self.note_begun(app);
        } else if order::waits(record) {
            steps.retain(|step| !matches!(step, Step::Place { .. }));
            self.ask_round(app);
            return steps;
        }
        self.order.forget(app);
        steps
    }

    /// Puts the next round of questions, if it is time.
    fn ask_round(&mut self, app: AppId) {
        let Some(record) = self.directory.get_mut(app) else {
            return;
        };
        let wanted = &record.wanted;
        let (wish, revised) = (wanted.version, wanted.revised);
        let round = wanted.spec.as_ref();
        let Some(round) = round.map(|spec| Inquiry::new(spec, Scope::Waiting)) else {
            return;
        };
        // There is nothing yet that a change of what its objects run could replace.
        if record.settled != revised {
            record.settled = revised;
            self.save_record(app);
        }
        if self.order.is_due(app, wish) {
            let number = self.inquire(round, Purpose::Gate(app));
            self.order.begin(app, number);
            self.go_on_inquiring(number);
        }
    }

    /// A call that makes or changes an app which comes after others: it goes on once it is known that
    /// the app does not come after itself.
    pub(crate) fn check_order(&mut self, origin: Origin, spec: &AppSpec, request: Request) {
        let request = Box::new(request);
        let inquiry = Inquiry::new(spec, Scope::Specified);
        let number = self.inquire(inquiry, Purpose::Call { origin, request });
        self.go_on_inquiring(number);
    }

    fn inquire(&mut self, inquiry: Inquiry, purpose: Purpose) -> u64 {
        let number = self.next_task();
        self.inquiries.insert(number, (inquiry, purpose));
        number
    }

    fn go_on_inquiring(&mut self, number: u64) {
        while let Some((inquiry, _)) = self.inquiries.get_mut(&number)
            && let Some(name) = inquiry.poll_question()
        {
            let app = AppId::of_name(&name);
            let (supervisor, deadline) = (self.supervisor_of(app), self.now + SCATTER_DEADLINE);
            let task = Task::Standing { number, name };
            self.ask_until(supervisor, Ask::Standing(app), task, deadline);
        }
        let is_over = self.inquiries.get(&number);
        if is_over.is_some_and(|(inquiry, _)| inquiry.is_over())
            && let Some((inquiry, purpose)) = self.inquiries.remove(&number)
        {
            self.inquired(number, inquiry, purpose);
        }
    }

    /// What a supervisor says of an app, if it says anything.
    pub(super) fn standing_told(&mut self, number: u64, name: &str, answer: Option<Answer>) {
        let heard = match answer {
            Some(Answer::Standing(None)) => Heard::Absent,
            Some(Answer::Standing(Some(standing))) => Heard::Is(*standing),
            Some(_) | None => Heard::Silence,
        };
        if let Some((inquiry, _)) = self.inquiries.get_mut(&number) {
            inquiry.handle_answer(name, heard);
            self.go_on_inquiring(number);
        }
    }

    fn inquired(&mut self, number: u64, inquiry: Inquiry, purpose: Purpose) {
        match purpose {
            Purpose::Call { origin, request } => match inquiry.circle() {
                Some(circle) => self.reply(origin, Err(in_circle(&circle))),
                None => self.make_ordered(origin, *request),
            },
            Purpose::Gate(app) => {
                let is_clear = inquiry.is_clear();
                let summary = inquiry.summary();
                let Some(is_first) = self.order.handle_round(self.now, app, (number, inquiry))
                else {
                    return;
                };
                if is_clear {
                    self.note_begun(app);
                } else if is_first {
                    self.event("app.waiting", self.app_name(app), summary);
                    self.check_waiters(app);
                }
            }
        }
    }

    /// An app does not wait any more, whatever becomes of it and of those that it named.
    fn note_begun(&mut self, app: AppId) {
        if let Some(record) = self.directory.get_mut(app) {
            record.begun = record.wanted.born;
            self.save_record(app);
        }
    }

    /// How far an app is, for one that waits for it.
    pub(super) fn answer_standing(&self, app: AppId) -> Result<Answer, Problem> {
        if self.supervisor_of(app) != self.me || self.is_unsettled(app) {
            let detail = "it is not known here how far the app is";
            return Err(Problem::new(ProblemCode::Busy, detail));
        }
        let record = self.directory.get(app);
        let standing = record.and_then(|it| order::standing(it, |node| self.is_reachable(node)));
        Ok(Answer::Standing(standing.map(Box::new)))
    }

    /// Which apps an app waits for, as half a sentence; `say` says it in few words or in more.
    pub(crate) fn waiting(
        &self,
        record: &AppRecord,
        say: impl Fn(&Inquiry) -> String,
    ) -> Option<String> {
        let spec = record.wanted.spec.as_ref()?;
        order::waits(record).then(|| match self.order.last(record.app) {
            Some(last) => say(last),
            None => say(&Inquiry::new(spec, Scope::Waiting)),
        })
    }
}

/// The refusal of an app that would come after itself.
fn in_circle(circle: &[String]) -> Problem {
    let name = circle.first().map_or("it", String::as_str);
    let links = order::links(circle);
    Problem::new(
        ProblemCode::Conflict,
        alloc::format!("{name} would wait for itself for ever: {links}"),
    )
    .remedy("take one of these names out of `after`")
}

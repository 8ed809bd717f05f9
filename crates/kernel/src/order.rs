//! Start order: which apps wait for others before their first object is placed.
//!
//! What it is not: it sends nothing, and it stops nothing. The hub puts its questions, and leaves
//! steps out of a plan while an app waits.
//!
//! The record of a named app lies with other guardians, so the supervisor of the app that waits asks
//! theirs. It asks again and again, because that needs nothing to be remembered by anybody: a word
//! that is lost is said again, and whoever takes over from a supervisor that died begins to ask.
//!
//! ```text
//! waiting ── each named app has come up ──► begun (written in the record: it never waits again)
//!    │ one has not, or does not answer
//!    └──────► waiting, asked again after 0.25 s, doubling to 3 s
//! ```
//!
//! One round is an [`Inquiry`]. It also follows the names for which the named apps wait themselves,
//! so that apps which wait for each other in a circle are told so.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use wire::fact::{ObjectFacts, Phase};
use wire::id::{AppId, NodeId, Version};
use wire::peer::{AppRecord, Goal, Standing};
use wire::spec::{AppSpec, Restart};

use crate::instant::Instant;
use crate::limits::ORDER_APPS_MAX;

/// First pause before the others are asked again; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// Longest pause: what a person who waits hardly notices, and a few small questions for each app.
const PAUSE_MAX: Duration = Duration::from_secs(3);

/// Whether an app waits for others: it names some, no object of it was ever placed, and they have
/// not all come up since it was made.
pub(crate) fn waits(record: &AppRecord) -> bool {
    let spec = record.wanted.spec.as_ref();
    spec.is_some_and(|spec| !spec.after.is_empty() && spec.replicas > 0)
        && !record.wanted.stopped
        && record.begun < record.wanted.born
        && record.objects.is_empty()
}

/// Whether an app has an object although its record does not say that it has begun: the names were
/// added later, or that was lost in a join.
pub(crate) fn has_begun_unnoted(record: &AppRecord) -> bool {
    let spec = record.wanted.spec.as_ref();
    spec.is_some_and(|spec| !spec.after.is_empty())
        && record.begun < record.wanted.born
        && !record.objects.is_empty()
}

/// How far an app is that others wait for; nothing when it was removed.
pub(crate) fn standing(
    record: &AppRecord,
    is_reachable: impl Fn(NodeId) -> bool,
) -> Option<Standing> {
    let spec = record.wanted.spec.as_ref()?;
    let goal = goal(spec);
    let counts = |it: &ObjectFacts| {
        let has_succeeded = it
            .last_exit
            .as_ref()
            .is_some_and(|it| it.reason.is_success());
        let is_done = it.phase == Phase::Ended && has_succeeded && spec.restart != Restart::Always;
        let serves = it.serves() && is_reachable(it.node);
        match goal {
            Goal::End => is_done,
            Goal::Run => serves || is_done,
            Goal::Healthy => serves,
        }
    };
    let slots: BTreeSet<u32> = record
        .objects
        .iter()
        .filter(|it| it.index < spec.replicas && counts(it))
        .map(|it| it.index)
        .collect();
    Some(Standing {
        goal,
        reached: u32::try_from(slots.len()).unwrap_or(u32::MAX),
        wanted: spec.replicas,
        stopped: record.wanted.stopped,
        waits: waits(record),
        after: spec.after.clone(),
    })
}

/// What never runs again and is not checked is there for what it does until it ends.
fn goal(spec: &AppSpec) -> Goal {
    match (&spec.health, spec.restart) {
        (Some(_), _) => Goal::Healthy,
        (None, Restart::No) => Goal::End,
        (None, Restart::OnFailure { .. } | Restart::Always) => Goal::Run,
    }
}

/// What was heard of an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Its supervisor does not answer, or does not know yet.
    Silence,
    /// There is no such app.
    Absent,
    /// How far it is.
    Is(Standing),
}

impl Heard {
    fn has_come_up(&self) -> bool {
        match self {
            Self::Silence | Self::Absent => false,
            Self::Is(it) => !it.stopped && it.reached >= it.wanted,
        }
    }
}

/// Which names an inquiry follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Those of every app: is there a circle in what people have specified?
    Specified,
    /// Those of apps that wait now: does anything go on?
    Waiting,
}

/// One round of questions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inquiry {
    name: String,
    after: BTreeSet<String>,
    scope: Scope,
    heard: BTreeMap<String, Heard>,
    /// Asked, and not answered yet.
    open: BTreeSet<String>,
    /// To be asked.
    next: BTreeSet<String>,
}

impl Inquiry {
    pub(crate) fn new(spec: &AppSpec, scope: Scope) -> Self {
        Self {
            name: spec.name.clone(),
            after: spec.after.clone(),
            scope,
            heard: BTreeMap::new(),
            open: BTreeSet::new(),
            next: spec.after.clone(),
        }
    }

    /// Whose supervisor is to be asked next.
    pub(crate) fn poll_question(&mut self) -> Option<String> {
        let name = self.next.pop_first()?;
        self.open.insert(name.clone());
        Some(name)
    }

    /// An answer, or that there is none.
    pub(crate) fn handle_answer(&mut self, name: &str, heard: Heard) {
        self.open.remove(name);
        self.heard.insert(name.to_string(), heard);
        let others: Vec<String> = self.names_of(name).cloned().collect();
        for other in others {
            let known = self.heard.len() + self.open.len() + self.next.len();
            let is_new = !self.heard.contains_key(&other) && !self.open.contains(&other);
            if is_new && other != self.name && known < ORDER_APPS_MAX {
                self.next.insert(other);
            }
        }
    }

    /// Whether all that were asked have answered, or will not.
    pub(crate) fn is_over(&self) -> bool {
        self.open.is_empty() && self.next.is_empty()
    }

    /// Whether every named app has come up.
    pub(crate) fn is_clear(&self) -> bool {
        let has_come_up = |name| self.heard.get(name).is_some_and(Heard::has_come_up);
        self.after.iter().all(has_come_up)
    }

    /// The shortest circle of names that leads back to the app, the app first.
    pub(crate) fn circle(&self) -> Option<Vec<String>> {
        let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
        let mut queue = VecDeque::from([self.name.as_str()]);
        while let Some(name) = queue.pop_front() {
            for other in self.names_of(name) {
                if *other == self.name {
                    let before = |at: &&str| came_from.get(at).copied();
                    let way = core::iter::successors(Some(name), before);
                    let mut circle: Vec<String> = way.map(ToString::to_string).collect();
                    circle.reverse();
                    return Some(circle);
                }
                if !came_from.contains_key(other.as_str()) {
                    came_from.insert(other, name);
                    queue.push_back(other);
                }
            }
        }
        None
    }

    fn names_of(&self, name: &str) -> impl Iterator<Item = &String> {
        let own = (name == self.name).then_some(&self.after);
        let others = match self.heard.get(name) {
            Some(Heard::Is(it)) if self.scope == Scope::Specified || it.waits => Some(&it.after),
            Some(Heard::Is(_) | Heard::Silence | Heard::Absent) | None => None,
        };
        own.or(others).into_iter().flatten()
    }

    /// What the app waits for, as half a sentence, in a few words.
    pub(crate) fn summary(&self) -> String {
        if let Some(circle) = self.circle() {
            return in_circle(&circle);
        }
        let word = |name: &String| match self.heard.get(name) {
            Some(it) if it.has_come_up() => None,
            Some(Heard::Absent) => Some(alloc::format!("{name}, which is not there")),
            Some(Heard::Silence | Heard::Is(_)) | None => Some(name.clone()),
        };
        for_each(self.after.iter().filter_map(word))
    }

    /// The same, with what is known of each.
    pub(crate) fn details(&self) -> String {
        if let Some(circle) = self.circle() {
            return in_circle(&circle);
        }
        let word = |name: &String| match self.heard.get(name) {
            Some(it) if it.has_come_up() => None,
            Some(Heard::Absent) => Some(alloc::format!("{name}, which is not there")),
            Some(Heard::Silence) => Some(alloc::format!("{name}, of which nothing is heard")),
            Some(Heard::Is(it)) => Some(alloc::format!("{name}: {}", figures(it))),
            None => Some(name.clone()),
        };
        for_each(self.after.iter().filter_map(word))
    }
}

fn for_each(words: impl Iterator<Item = String>) -> String {
    let words: Vec<String> = words.collect();
    alloc::format!("waiting for {}", words.join("; for "))
}

fn in_circle(circle: &[String]) -> String {
    alloc::format!("waiting for itself: {}", links(circle))
}

/// Who comes after whom in a circle of names.
pub(crate) fn links(circle: &[String]) -> String {
    let next = circle.iter().cycle().skip(1);
    let links = circle.iter().zip(next);
    let links: Vec<String> = links
        .map(|(one, other)| alloc::format!("{one} comes after {other}"))
        .collect();
    links.join(", ")
}

fn figures(standing: &Standing) -> String {
    let Standing {
        reached, wanted, ..
    } = standing;
    match (standing.stopped, standing.goal) {
        (true, _) => "it is stopped".to_string(),
        (false, Goal::Run) => alloc::format!("{reached} of {wanted} run"),
        (false, Goal::Healthy) => alloc::format!("{reached} of {wanted} are healthy"),
        (false, Goal::End) => alloc::format!("{reached} of {wanted} have ended with 0"),
    }
}

/// The apps that wait and are supervised here.
#[derive(Debug, Default)]
pub(crate) struct Order {
    gates: BTreeMap<AppId, Gate>,
}

#[derive(Debug)]
struct Gate {
    /// The wish that is asked for.
    wish: Version,
    /// The round that goes on.
    round: Option<u64>,
    /// The one before.
    last: Option<Inquiry>,
    /// When the next one begins.
    at: Option<Instant>,
    pause: Duration,
}

impl Order {
    /// Whether a round of questions is to begin for an app that waits.
    pub(crate) fn is_due(&mut self, app: AppId, wish: Version) -> bool {
        let gate = self.gates.entry(app).or_insert(Gate {
            wish,
            round: None,
            last: None,
            at: None,
            pause: PAUSE_MIN,
        });
        if gate.wish != wish {
            *gate = Gate {
                wish,
                round: None,
                last: None,
                at: None,
                pause: PAUSE_MIN,
            };
        }
        gate.round.is_none() && gate.at.is_none()
    }

    /// A round of this number has begun.
    pub(crate) fn begin(&mut self, app: AppId, round: u64) {
        if let Some(gate) = self.gates.get_mut(&app) {
            gate.round = Some(round);
        }
    }

    /// A round is over; says whether that was the one, and whether it was the first.
    pub(crate) fn handle_round(
        &mut self,
        now: Instant,
        app: AppId,
        (round, inquiry): (u64, Inquiry),
    ) -> Option<bool> {
        let gate = self.gates.get_mut(&app)?;
        gate.round.take_if(|it| *it == round)?;
        gate.at = Some(now + gate.pause);
        gate.pause = (gate.pause * 2).min(PAUSE_MAX);
        Some(gate.last.replace(inquiry).is_none())
    }

    /// What the last round has brought.
    pub(crate) fn last(&self, app: AppId) -> Option<&Inquiry> {
        self.gates.get(&app)?.last.as_ref()
    }

    /// It does not wait any more, or is somebody else's.
    pub(crate) fn forget(&mut self, app: AppId) {
        self.gates.remove(&app);
    }

    /// Apps for which the next round is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Vec<AppId> {
        let due = |(app, gate): (&AppId, &mut Gate)| {
            gate.at.take_if(|at| *at <= now)?;
            Some(*app)
        };
        self.gates.iter_mut().filter_map(due).collect()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.gates.values().filter_map(|gate| gate.at).min()
    }
}

#[cfg(test)]
mod tests;

//! What people asked for and were told, and so what each app may be.
//!
//! An app is a set of wishes: all that it may be by what its callers know. An acknowledged call
//! leaves one, applied to all that the app was; a call that was not answered adds one, because it
//! may be done late. While nodes do not see each other, somebody may have changed an app as it once
//! was, and while clocks are not steady, an older word may win.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kernel::instant::Instant;
use rand::RngExt;
use rand::seq::IndexedRandom;
use wire::call::{ProblemCode, Response};

use super::deed::{self, Deed};
use crate::invariants::survey::{Kind, Survey, Wish};
use crate::world::{Call, MachineId, Outcome, World};

/// Names of apps: few, so that calls meet.
const APPS: usize = 5;
/// How long something that nobody answered may still be on its way.
const ECHO: Duration = Duration::from_secs(35);
/// Clocks that are steady differ by less: what was said so long ago is older for everybody.
const SKEW: Duration = Duration::from_secs(6);

/// What is known of the world while something is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct View {
    /// Nothing was wrong for so long that everybody knows everything.
    pub(super) is_calm: bool,
    /// Nobody can have acted on what was old.
    pub(super) is_sighted: bool,
    /// No clock was set.
    pub(super) is_steady: bool,
}

/// A call that is open.
#[derive(Debug)]
struct Open {
    call: Call,
    deed: Deed,
    view: View,
    began: Instant,
    /// The caller goes away then.
    abandon_at: Option<Instant>,
}

#[derive(Debug)]
struct App {
    wishes: BTreeSet<Wish>,
    /// All that it ever was: what a node may believe that could not be reached.
    past: BTreeSet<Wish>,
    open: Option<Open>,
    /// What was not answered, and until when it may still be done.
    echoes: Vec<(Instant, Deed)>,
    /// What is asked next, and when.
    next: Option<(Instant, Deed)>,
    /// When the last call was over.
    last: Option<Instant>,
    /// The last thing that was done, was done while nodes did not see each other: one of them alone
    /// may know of it.
    is_private: bool,
    /// The name was given to another app, and whoever was away or cut off may know only an older one.
    is_renewed: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Model {
    apps: BTreeMap<String, App>,
    waits: Vec<(String, Call)>,
    /// Answers that no caller should have got.
    pub(super) wrong: Vec<String>,
    pub(super) acknowledged: u64,
    pub(super) refused: u64,
}

impl Model {
    pub(super) fn new() -> Self {
        let app = |number: usize| (format!("app{number}"), App::new());
        Self {
            apps: (0..APPS).map(app).collect(),
            waits: Vec::new(),
            wrong: Vec::new(),
            acknowledged: 0,
            refused: 0,
        }
    }

    /// What each app may be. A node that was removed may have been the only one that knew what was
    /// said while it was cut off; so may one that somebody has stopped, until it is back.
    pub(super) fn expected(
        &self,
        has_removed: bool,
        has_stopped: bool,
    ) -> BTreeMap<String, BTreeSet<Wish>> {
        let wishes = |(name, app): (&String, &App)| {
            let mut wishes = app.wishes.clone();
            if has_removed || (has_stopped && app.is_private) {
                wishes.extend(&app.past);
            }
            // An app that removes itself may have done so.
            if wishes.iter().any(|it| it.kind() == Some(Kind::Once)) {
                wishes.insert(Wish::Absent);
            }
            (name.clone(), wishes)
        };
        self.apps.iter().map(wishes).collect()
    }

    /// Nothing is asked that is not answered.
    pub(super) fn is_idle(&self) -> bool {
        self.apps.values().all(|app| app.open.is_none())
    }

    /// Whether something is to be done within moments.
    pub(super) fn is_hasty(&self) -> bool {
        let hasty = |app: &App| {
            let abandons = app.open.as_ref().is_some_and(|it| it.abandon_at.is_some());
            abandons || app.next.is_some()
        };
        self.apps.values().any(hasty)
    }

    /// Nobody begins anything more.
    pub(super) fn rest(&mut self) {
        self.apps.values_mut().for_each(|app| app.next = None);
    }

    /// Asks for something, of an app of which nothing is being asked.
    pub(super) fn ask(&mut self, world: &mut World, at: MachineId, view: View) {
        let names: Vec<String> = self.apps.keys().cloned().collect();
        let Some(name) = names.choose(world.random()) else {
            return;
        };
        let Some(app) = self.apps.get_mut(name).filter(|it| it.open.is_none()) else {
            return;
        };
        let deed = deed::choose(world, (&app.wishes, &app.past));
        if deed == Deed::Wait {
            let request = deed::request(world, name, deed);
            let call = world.call(at, request);
            self.waits.push((name.clone(), call));
            return;
        }
        app.begin(world, name, at, (deed, view));
    }

    /// What comes right after something else.
    pub(super) fn go_on(&mut self, world: &mut World, at: MachineId, view: View) {
        for (name, app) in &mut self.apps {
            let is_due = |(due, _): &mut (Instant, Deed)| *due <= world.now();
            if app.open.is_none()
                && let Some((_, deed)) = app.next.take_if(is_due)
            {
                app.begin(world, name, at, (deed, view));
            }
        }
    }

    /// Takes in answers that came.
    pub(super) fn collect(&mut self, world: &mut World, view: View) {
        let now = world.now();
        for (name, app) in &mut self.apps {
            let Some(open) = &app.open else {
                continue;
            };
            let (call, deed) = (open.call, open.deed);
            let mut outcome = world.outcome(call).clone();
            if outcome == Outcome::Open {
                if open.abandon_at.is_none_or(|at| at > now) {
                    continue;
                }
                world.abandon(call);
                outcome = Outcome::Broken;
            }
            let began = open.began;
            let open = app.open.take().map_or(view, |it| it.view);
            app.echoes.retain(|(until, _)| *until > began);
            // What the clocks say of when it was done is between its beginning and now.
            let is_quiet = app.last.is_none_or(|last| began.since(last) > SKEW);
            let is_known = view.is_calm && open.is_calm
                || view.is_sighted && open.is_sighted && view.is_steady;
            let is_last = is_known || (is_quiet && view.is_steady);
            app.last = Some(now);
            match Told::by(&outcome) {
                Told::Done => {
                    self.acknowledged += 1;
                    app.done(deed, is_last, view.is_sighted && open.is_sighted);
                    app.plan_next(world, deed);
                    if app.echoes.is_empty() {
                        self.wrong.extend(answers_wrongly(name, deed, &outcome));
                    }
                }
                Told::Refused => self.refused += 1,
                Told::Nothing => {
                    self.refused += 1;
                    app.echoes.push((now + ECHO, deed));
                    if matches!(deed, Deed::Run { .. }) {
                        app.echoes.push((now + ECHO, Deed::Remove { force: true }));
                    }
                    app.done(deed, false, view.is_sighted && open.is_sighted);
                    app.plan_next(world, deed);
                }
            }
        }
    }

    /// Waits that should be over by what the survey found; the others are broken off.
    pub(super) fn judge_waits(&mut self, world: &mut World, survey: &Survey) -> Vec<String> {
        let mut wrong = Vec::new();
        // What runs on a machine that is away, nobody can know.
        let all_are_up = survey.expected.up == survey.expected.members;
        for (name, call) in std::mem::take(&mut self.waits) {
            if all_are_up && *world.outcome(call) == Outcome::Open && survey.is_over(&name) {
                wrong.push(format!(
                    "answered: nothing of {name} runs, and a wait for it was not answered"
                ));
            }
            world.abandon(call);
        }
        wrong
    }
}

/// What a caller knows after an answer.
enum Told {
    /// It is done.
    Done,
    /// It was not done.
    Refused,
    /// It was done, or not, or is being done.
    Nothing,
}

impl Told {
    fn by(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Open | Outcome::Broken => Self::Nothing,
            Outcome::Answered(result) => match &**result {
                Ok(_) => Self::Done,
                Err(problem) => match problem.code {
                    ProblemCode::Invalid
                    | ProblemCode::NotFound
                    | ProblemCode::Ambiguous
                    | ProblemCode::Conflict
                    | ProblemCode::Busy
                    | ProblemCode::Forbidden
                    | ProblemCode::BadTicket => Self::Refused,
                    ProblemCode::NoFit
                    | ProblemCode::Unreachable
                    | ProblemCode::TimedOut
                    | ProblemCode::NotStarted { .. }
                    | ProblemCode::Internal => Self::Nothing,
                },
            },
        }
    }
}

/// What an answer says that it must not.
fn answers_wrongly(name: &str, deed: Deed, outcome: &Outcome) -> Option<String> {
    let Outcome::Answered(result) = outcome else {
        return None;
    };
    let Deed::Run { replicas, .. } = deed else {
        return None;
    };
    let Ok(Response::Run(started)) = &**result else {
        return None;
    };
    let has = |index: u32| started.objects.iter().any(|it| it.index == index);
    // It runs later.
    if started.waiting.is_some() || started.next.is_some() {
        return None;
    }
    let missing = (0..replicas).find(|index| !has(*index))?;
    Some(format!(
        "answered: run says that {name} runs, without {name}/{missing}"
    ))
}

impl App {
    fn new() -> Self {
        Self {
            wishes: BTreeSet::from([Wish::Absent]),
            past: BTreeSet::from([Wish::Absent]),
            open: None,
            echoes: Vec::new(),
            next: None,
            last: None,
            is_private: false,
            is_renewed: false,
        }
    }

    fn begin(&mut self, world: &mut World, name: &str, at: MachineId, (deed, view): (Deed, View)) {
        let deed = self.without_gap(deed);
        let request = deed::request(world, name, deed);
        let call = world.call(at, request);
        let patience = match world.random().random_range(0..24) {
            0 => Some(0..30),
            1 => Some(0..3000),
            _ => None,
        };
        let abandon_at = patience.map(|millis| {
            let millis = world.random().random_range(millis);
            world.now() + Duration::from_millis(millis)
        });
        self.open = Some(Open {
            call,
            deed,
            view,
            began: world.now(),
            abandon_at,
        });
    }

    /// One object may yet be stopped, of whatever app has the name by then: a policy that does not
    /// start it again would leave a gap.
    fn without_gap(&self, mut deed: Deed) -> Deed {
        let is_stop = |(_, echo): &(Instant, Deed)| matches!(echo, Deed::StopOne(_));
        if let Deed::Run { kind, .. } = &mut deed
            && *kind == Kind::Retried
            && self.echoes.iter().any(is_stop)
        {
            *kind = Kind::Always;
        }
        deed
    }

    /// People do not wait before they undo what they did.
    fn plan_next(&mut self, world: &mut World, deed: Deed) {
        if world.random().random_range(0..2) == 0 {
            return;
        }
        let next = match deed {
            Deed::Remove { .. } => Some(deed::any_run(world)),
            Deed::Stop => Some(Deed::Start),
            Deed::Run { .. } if world.random().random_range(0..8) == 0 => {
                Some(Deed::Remove { force: true })
            }
            Deed::Run { .. }
            | Deed::Scale(_)
            | Deed::Update { .. }
            | Deed::StopOne(_)
            | Deed::Start
            | Deed::Kill { .. }
            | Deed::Wait => None,
        };
        let pause = match world.random().random_range(0..2) {
            0 => 0,
            _ => world.random().random_range(0..3000),
        };
        let at = world.now() + Duration::from_millis(pause);
        self.next = next.map(|deed| (at, deed));
    }

    fn done(&mut self, deed: Deed, is_last: bool, is_sighted: bool) {
        self.is_private = !is_sighted;
        let before = if is_sighted { &self.wishes } else { &self.past };
        let mut after: BTreeSet<Wish> = before.iter().map(|wish| apply(*wish, deed)).collect();
        if before.iter().any(|it| it.kind() == Some(Kind::Once)) {
            after.insert(apply(Wish::Absent, deed));
        }
        for (_, echo) in &self.echoes {
            // Whoever does it late may know only what was before: the newest wish wins.
            let known = after.iter().chain(&self.past);
            let late: Vec<Wish> = known.map(|wish| apply(*wish, *echo)).collect();
            after.extend(late);
        }
        let is_run = matches!(deed, Deed::Run { .. });
        if !is_sighted && self.is_renewed && !is_run && !matches!(deed, Deed::Remove { .. }) {
            // It may have been done to an older app of the name. The newer one stays as it is.
            let newer = self.wishes.iter().filter(|it| **it != Wish::Absent);
            after.extend(newer);
        }
        self.is_renewed |= is_run;
        if is_last && is_sighted && self.echoes.is_empty() {
            self.past.clone_from(&after);
            self.is_renewed = false;
        }
        self.past.extend(&after);
        if is_last {
            self.wishes = after;
        } else {
            self.wishes.extend(after);
        }
    }
}

fn apply(wish: Wish, deed: Deed) -> Wish {
    match (deed, wish) {
        (Deed::Run { replicas, kind, .. }, Wish::Absent) => Wish::Present {
            replicas,
            stopped: false,
            kind,
        },
        (Deed::Remove { .. }, _) => Wish::Absent,
        (Deed::Scale(replicas), Wish::Present { stopped, kind, .. }) => Wish::Present {
            replicas,
            stopped,
            kind,
        },
        (Deed::Stop | Deed::Start, Wish::Present { replicas, kind, .. }) => Wish::Present {
            replicas,
            stopped: deed == Deed::Stop,
            kind,
        },
        (_, wish) => wish,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(replicas: u32) -> Deed {
        Deed::Run {
            replicas,
            kind: Kind::Always,
            starts: true,
        }
    }

    fn present(replicas: u32, stopped: bool) -> Wish {
        Wish::Present {
            replicas,
            stopped,
            kind: Kind::Always,
        }
    }

    /// What an app may be after these, each with whether nodes saw each other.
    fn after(deeds: &[(Deed, bool)]) -> BTreeSet<Wish> {
        let mut app = App::new();
        for (deed, is_sighted) in deeds {
            app.done(*deed, true, *is_sighted);
        }
        app.wishes
    }

    /// On one side of a cut, an app was removed and another one got its name; on the other side, the
    /// former one was stopped. The newer app runs after the heal, and the stop was not for it.
    #[test]
    fn a_stop_during_a_cut_may_be_of_an_app_that_lost_its_name() {
        let remove = Deed::Remove { force: true };
        let first = [(run(1), true)];
        let second = [(remove, false), (run(2), false)];
        let stop = [(Deed::Stop, false)];
        let replaced = after(&[&first[..], &second, &stop].concat());
        assert!(replaced.contains(&present(2, false)), "{replaced:?}");
        let kept = after(&[&first[..], &stop].concat());
        assert_eq!(kept, [present(1, true)].into());
        let healed = [(Deed::Start, true), (Deed::Stop, false)];
        let healed = after(&[&first[..], &second, &healed].concat());
        assert!(!healed.contains(&present(2, false)), "{healed:?}");
    }
}

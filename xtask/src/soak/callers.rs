//! Callers of a soak: random verbs, and what became of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use end_to_end::wishes::{Caller, Dice, Wish, Wishes};
use end_to_end::{LabCloud, Ran, words};

use crate::bench::now;

/// A verb that takes longer hangs: the longest deadline of a call is half of it.
const HANGS: Duration = Duration::from_secs(60);

/// What became of one call.
pub(super) struct Call {
    verb: &'static str,
    took: Duration,
    went_well: bool,
}

/// What became of all calls.
#[derive(Default)]
pub(super) struct Tally {
    inner: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    /// In this minute, by verb: how many, and how many of them failed.
    minute: BTreeMap<&'static str, (u32, u32)>,
    slowest: BTreeMap<&'static str, Duration>,
    faults: Vec<String>,
    wrong: Vec<String>,
}

impl Tally {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, call: &Call) {
        let mut counts = self.counts();
        let (all, failed) = counts.minute.entry(call.verb).or_default();
        *all += 1;
        *failed += u32::from(!call.went_well);
        let slowest = counts.slowest.entry(call.verb).or_default();
        *slowest = call.took.max(*slowest);
    }

    /// Something went wrong that no fault excuses.
    fn note_wrong(&self, what: String) {
        println!("  wrong: {what}");
        self.counts().wrong.push(what);
    }

    /// A fault began.
    pub(super) fn note_fault(&self, what: String) {
        self.counts().faults.push(what);
    }

    /// What happened since this was last asked, in words.
    pub(super) fn minute(&self) -> String {
        let mut counts = self.counts();
        let verbs = std::mem::take(&mut counts.minute);
        let faults = std::mem::take(&mut counts.faults);
        let verbs = verbs
            .iter()
            .map(|(verb, (all, failed))| format!("{verb} {all} ({failed})"));
        let verbs: Vec<String> = verbs.collect();
        format!(
            "calls (failed): {}\n  faults: {}",
            verbs.join(", "),
            faults.join("; ")
        )
    }

    /// The longest that each verb took, in words.
    pub(super) fn slowest(&self) -> String {
        let counts = self.counts();
        let slowest = counts.slowest.iter();
        let slowest = slowest.map(|(verb, took)| format!("{verb} {:.1} s", took.as_secs_f32()));
        let slowest: Vec<String> = slowest.collect();
        format!("slowest: {}", slowest.join(", "))
    }

    /// All that went wrong.
    pub(super) fn wrong(&self) -> Vec<String> {
        self.counts().wrong.clone()
    }
}

/// Calls until it is over.
pub(super) fn call(
    cloud: &LabCloud,
    wishes: &Wishes,
    tally: &Tally,
    number: u32,
    mut dice: Dice,
    is_over: &AtomicBool,
) {
    let hosts = cloud.names();
    let host = hosts[number as usize % hosts.len()].clone();
    // No beginning of an id, which is hexadecimal.
    let apps = vec![format!("web{number}"), format!("work{number}")];
    let mut caller = Caller {
        cloud,
        host,
        wishes,
        apps,
        dice: dice.clone(),
    };
    while !is_over.load(Ordering::Relaxed) {
        if !cloud.host(&caller.host).is_up() {
            crate::bench::rest(Duration::from_millis(100));
            continue;
        }
        let began = now();
        let (verb, ran) = match dice.below(3) {
            0 => ("change", caller.change_something()),
            1 => ("update", update(&mut caller)),
            _ => look(&mut caller),
        };
        let took = began.elapsed();
        let went_well = ran.code == 0;
        if took > HANGS {
            tally.note_wrong(format!(
                "{verb} on {} took {took:?}: {}",
                caller.host, ran.stderr
            ));
        }
        tally.count(&Call {
            verb,
            took,
            went_well,
        });
    }
}

/// Changes an app in a way that leaves it what it is to be, or does nothing.
fn update(caller: &mut Caller<'_>) -> Ran {
    let app = caller.dice.choose(&caller.apps).clone();
    let call = |line: &str| caller.cloud.welkin(&caller.host, line);
    let [wish @ Wish::Kept { .. }] = caller.wishes.of(&app)[..] else {
        return call("nodes");
    };
    let line = format!(
        "update -d --no-rollback {app} --env ROUND={}",
        caller.dice.below(1000)
    );
    caller.wishes.change(&app, wish, || call(&line))
}

/// Asks for something, or does what changes no app.
fn look(caller: &mut Caller<'_>) -> (&'static str, Ran) {
    let app = caller.dice.choose(&caller.apps).clone();
    let (verb, line) = match caller.dice.below(12) {
        0 => ("ps", "ps -a".to_string()),
        1 => ("inspect", format!("inspect {app}")),
        2 => ("logs", format!("logs {app}")),
        3 => ("exec", format!("exec {app}/0 -- echo here")),
        4 => ("cp", format!("cp /etc/hostname {app}/0:/tmp/")),
        5 => ("events", "events --since 1m".to_string()),
        6 => ("explain", format!("explain {app}")),
        7 => ("stats", "stats --no-stream".to_string()),
        8 => ("run", "run --memory 16M -- echo done".to_string()),
        9 => ("doctor", "doctor".to_string()),
        10 => ("resolve", format!("name resolve {app}")),
        _ => ("wait", format!("run -d --name once-{app} -- true")),
    };
    let ran = caller.cloud.welkin_with(&caller.host, &words(&line), b"");
    if verb == "wait" {
        let once = format!("once-{app}");
        let waited = caller.cloud.welkin(&caller.host, &format!("wait {once}"));
        let remove = format!("rm -f {once}");
        let _removed = caller.cloud.welkin(&caller.host, &remove);
        return (verb, waited);
    }
    (verb, ran)
}

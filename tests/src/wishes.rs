//! Callers who change apps while something goes wrong, and what must be there in the end: of each
//! app what was last acknowledged, or what was asked for since and not answered.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::{LabCloud, Ran, running_of, until};

/// What an app is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// There is none.
    Removed,
    /// It is there.
    Kept {
        /// How many objects it has.
        replicas: u32,
        /// They are not to run.
        stopped: bool,
    },
}

/// What is known of all wishes. Only one caller at a time may change an app, through one node.
#[derive(Debug, Default)]
pub struct Wishes {
    /// By app: what was last acknowledged, then what was tried since without success.
    apps: Mutex<BTreeMap<String, Vec<Wish>>>,
}

impl Wishes {
    fn apps(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Wish>>> {
        self.apps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What an app may be; it is not there when nobody ever wished for it.
    #[must_use]
    pub fn of(&self, app: &str) -> Vec<Wish> {
        let known = self.apps().get(app).cloned();
        known.unwrap_or_else(|| vec![Wish::Removed])
    }

    /// Wishes something of an app; `call` says so to the cloud.
    pub fn change(&self, app: &str, wish: Wish, call: impl FnOnce() -> Ran) -> Ran {
        let mut possible = self.of(app);
        if !possible.contains(&wish) {
            possible.push(wish);
        }
        self.apps().insert(app.to_string(), possible);
        let ran = call();
        if ran.code == 0 {
            self.apps().insert(app.to_string(), vec![wish]);
        }
        ran
    }

    /// Each app that is not, as `host` tells, what it may be, in words.
    #[must_use]
    pub fn broken(&self, cloud: &LabCloud, host: &str) -> Vec<String> {
        let apps = self.apps().clone();
        let broken = apps.iter().filter_map(|(app, possible)| {
            let (wish, running) = seen(cloud, host, app)?;
            let wanted = match wish {
                Wish::Kept {
                    replicas,
                    stopped: false,
                } => replicas as usize,
                Wish::Removed | Wish::Kept { stopped: true, .. } => 0,
            };
            let is_right = possible.contains(&wish) && running == wanted;
            let text = format!("{app} on {host} is {wish:?}, {running} run; may be {possible:?}");
            (!is_right).then_some(text)
        });
        broken.collect()
    }

    /// Waits until each node tells of each app what it may be.
    pub fn await_kept(&self, cloud: &LabCloud, patience: Duration) {
        for host in cloud.names() {
            until("each app is as it was wished", patience, || {
                let broken = self.broken(cloud, &host);
                broken.iter().for_each(|it| eprintln!("still: {it}"));
                broken.is_empty().then_some(())
            });
        }
    }
}

/// What an app is, and how many of its objects run; nothing when the node does not say.
fn seen(cloud: &LabCloud, host: &str, app: &str) -> Option<(Wish, usize)> {
    let told = cloud.welkin(host, &format!("inspect {app} -o json"));
    let objects = cloud.objects(host, app);
    let running = running_of(objects).len();
    if told.code != 0 {
        return Some((Wish::Removed, running));
    }
    let told = told.json();
    let replicas = told[0]["spec"]["replicas"].as_u64();
    let wish = Wish::Kept {
        replicas: u32::try_from(replicas?).ok()?,
        stopped: told[0]["stopped"].as_bool()?,
    };
    Some((wish, running))
}

/// One who owns some apps and changes them at one node, one after the other.
#[derive(Debug)]
pub struct Caller<'a> {
    /// Where it is.
    pub cloud: &'a LabCloud,
    /// At which node it asks.
    pub host: String,
    /// Where all wishes are written down.
    pub wishes: &'a Wishes,
    /// Its apps.
    pub apps: Vec<String>,
    /// Its chance.
    pub dice: Dice,
}

impl Caller<'_> {
    /// Changes one of its apps.
    pub fn change_something(&mut self) -> Ran {
        let app = self.dice.choose(&self.apps).clone();
        let replicas = self.dice.below(4) + 1;
        let run = format!(
            "run -d --name {app} --restart always --replicas {replicas} --memory 16M -- sleep 1000"
        );
        let scale = format!("scale {app}={replicas}");
        let kept = |replicas, stopped| Wish::Kept { replicas, stopped };
        let (wish, line) = match (self.wishes.of(&app).as_slice(), self.dice.below(8)) {
            ([Wish::Kept { .. }], 0) => (Wish::Removed, format!("rm -f {app}")),
            ([Wish::Kept { replicas, .. }], 1 | 2) => {
                (kept(*replicas, true), format!("stop -t 1 {app}"))
            }
            ([Wish::Kept { replicas, .. }], 3 | 4) => {
                (kept(*replicas, false), format!("start {app}"))
            }
            ([Wish::Kept { stopped, .. }], _) => (kept(replicas, *stopped), scale),
            ([Wish::Removed], _) | (_, 0..4) => (kept(replicas, false), run),
            // What of it was done is not known: it begins anew.
            _ => (Wish::Removed, format!("rm -f {app}")),
        };
        let call = || self.cloud.welkin(&self.host, &line);
        self.wishes.change(&app, wish, call)
    }
}

/// Chance from a seed: `SplitMix64` (Steele, Lea and Flood 2014).
#[derive(Debug, Clone)]
pub struct Dice(pub u64);

impl Dice {
    /// A number below `limit`.
    pub fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let scaled = (u128::from(mixed) * u128::from(limit)) >> 64;
        u32::try_from(scaled).unwrap_or(0)
    }

    /// One of several.
    ///
    /// # Panics
    /// When there is none.
    pub fn choose<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        let count = u32::try_from(among.len()).unwrap_or(u32::MAX);
        &among[self.below(count) as usize]
    }
}

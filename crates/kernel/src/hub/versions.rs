//! Which of two writes is newer: a clock that only goes forward, made of the wall clock and a
//! counter (hybrid logical clocks, Kulkarni et al. 2014), and what is believed of others.
//!
//! The wall clock of a node may be wrong. Whoever writes with one that is years ahead would win
//! against everybody for as long: so what is more than [`AHEAD_MAX_MS`] ahead is not taken from
//! others. A node that finds out that it was years ahead itself begins its clock anew, and writes
//! its records again as of now.

use alloc::string::String;
use alloc::vec::Vec;

use wire::id::{AppId, UnixMillis, Version};
use wire::peer::{AppRecord, Wanted};

use super::Kernel;
use crate::alarm::Alarm;
use crate::calls::check_spec;

/// How far ahead of this node's wall clock a version may be: a year, far more than clocks differ
/// that anybody has set.
const AHEAD_MAX_MS: u64 = 365 * 86_400 * 1000;
/// A wall clock before 2025 was never set: it proves nothing against the versions on this disk.
pub(super) const SET_AFTER: UnixMillis = UnixMillis(1_735_689_600_000);

/// Why a record is not taken.
#[derive(Debug)]
pub(super) struct Unfit {
    /// The alarm about it.
    pub(super) alarm: Alarm,
    /// What is wrong with it.
    pub(super) why: String,
}

impl Kernel {
    /// Wall-clock time, as far as it is known.
    pub(crate) fn wall(&self) -> UnixMillis {
        let (at, wall) = self.wall;
        let elapsed = u64::try_from(self.now.since(at).as_millis()).unwrap_or(u64::MAX);
        UnixMillis(wall.0.saturating_add(elapsed))
    }

    /// A version that is larger than all that were given out or seen here.
    pub(crate) fn tick(&mut self) -> Version {
        let millis = self.wall().0;
        if millis > self.clock.millis {
            self.clock.millis = millis;
            self.clock.counter = 0;
        } else if let Some(next) = self.clock.counter.checked_add(1) {
            self.clock.counter = next;
        } else {
            self.clock.millis = self.clock.millis.saturating_add(1);
            self.clock.counter = 0;
        }
        self.clock
    }

    /// The smallest version above that one which this node can write.
    pub(super) fn just_above(&self, version: Version) -> Version {
        let (millis, counter) = match version.counter.checked_add(1) {
            Some(counter) => (version.millis, counter),
            None => (version.millis.saturating_add(1), 0),
        };
        Version {
            millis,
            counter,
            node: self.clock.node,
        }
    }

    /// Goes on above a version that another node gave out, unless that is from the future.
    pub(crate) fn observe(&mut self, version: Version) {
        if !self.is_future(version) {
            self.go_on_above(version);
        }
    }

    fn go_on_above(&mut self, version: Version) {
        if (version.millis, version.counter) > (self.clock.millis, self.clock.counter) {
            self.clock.millis = version.millis;
            self.clock.counter = version.counter;
        }
    }

    /// Whether nobody with a right clock can have written that yet.
    pub(super) fn is_future(&self, version: Version) -> bool {
        let wall = self.wall();
        let now = if wall < SET_AFTER {
            wall.0.max(self.clock.millis)
        } else {
            wall.0
        };
        version.millis > now.saturating_add(AHEAD_MAX_MS)
    }

    /// What can be known to be wrong with a record before it is joined with what is kept here.
    pub(super) fn check_record(&self, record: &AppRecord) -> Result<(), Unfit> {
        let newest = record.version.max(record.wanted.version);
        if self.is_future(newest) {
            return Err(Unfit {
                alarm: Alarm::RecordFuture,
                why: "it claims to be of next year".into(),
            });
        }
        check_wish(record.app, &record.wanted)
    }

    /// Takes back what the disk kept. Its versions were given out or believed in a former life.
    pub(super) fn restore_record(&mut self, record: AppRecord) {
        let app = record.app;
        if let Err(unfit) = check_wish(app, &record.wanted) {
            self.alarm(
                unfit.alarm,
                alloc::format!("{}: {}", app.short(), unfit.why),
            );
            return;
        }
        let versions = (record.version, record.wanted.version);
        self.go_on_above(versions.0.max(versions.1));
        self.directory.join(record);
        self.directory.note_copy(app, self.me, versions);
        if self.auth.member_count() > 1 {
            let settled = self.now + super::region::SETTLE;
            self.unsettled.insert(app, settled);
        }
        self.supervision.touch(app);
    }

    /// The wall clock was set. When it was years ahead, so are versions that were given out here:
    /// others refuse them, and nothing newer could be written here for years.
    pub(super) fn heed_wall(&mut self) {
        if self.wall() < SET_AFTER || !self.is_future(self.clock) {
            return;
        }
        self.clock = Version {
            node: self.clock.node,
            ..Version::default()
        };
        let versions = |record: &AppRecord| [record.version, record.wanted.version];
        let seen: Vec<Version> = self.directory.iter().flat_map(versions).collect();
        seen.iter().for_each(|version| self.observe(*version));
        let is_ahead = |record: &&AppRecord| {
            versions(record)
                .iter()
                .any(|version| self.is_future(*version))
        };
        let ahead: Vec<AppRecord> = self.directory.iter().filter(is_ahead).cloned().collect();
        let message = alloc::format!(
            "the wall clock had been years ahead; {} records are of now",
            ahead.len()
        );
        let name = self.measurement.name(self.me);
        self.event("node.clock", name, message);
        for record in ahead {
            self.write_as_of_now(record);
        }
    }

    fn write_as_of_now(&mut self, mut record: AppRecord) {
        let app: AppId = record.app;
        if self.is_future(record.wanted.version) {
            record.wanted.version = self.tick();
        }
        if self.is_future(record.version) {
            record.version = self.tick();
        }
        // Who has the former one does not have this one.
        self.directory.remove(app);
        self.directory.join(record);
        self.keep_record(app);
        self.supervision.touch(app);
    }
}

/// A wish that no node could have accepted does not come from one that means well.
fn check_wish(app: AppId, wanted: &Wanted) -> Result<(), Unfit> {
    let unfit = |why| Unfit {
        alarm: Alarm::RecordUnfit,
        why,
    };
    let Some(spec) = &wanted.spec else {
        return Ok(());
    };
    if AppId::of_name(&spec.name) != app {
        return Err(unfit("it is about an app of another name".into()));
    }
    let previous = wanted.previous.as_ref().map(|previous| &previous.spec);
    if previous.is_some_and(|previous| previous.name != spec.name) {
        return Err(unfit("it was an app of another name before".into()));
    }
    for spec in previous.into_iter().chain([spec]) {
        check_spec(spec).map_err(|problem| unfit(problem.detail))?;
    }
    Ok(())
}

//! The records that this node keeps: writing them, copying them to the other guardians, taking what
//! those have, and dropping what others keep.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use wire::call::{Problem, ProblemCode};
use wire::disk::Table;
use wire::id::{AppId, NodeId};
use wire::peer::{Answer, AppRecord, Ask};

use super::region::SETTLE;
use super::{Kernel, Task};
use crate::directory::{self, Joined};
use crate::limits::{GUARDIAN_WRITES, TOMBSTONE_TERM, TOMBSTONES_MAX};

/// How long a node keeps a record that it need not: until all others have noticed that, and will
/// bring it again when this node is a guardian again.
const SPARE_TERM: Duration = Duration::from_secs(30);

impl Kernel {
    /// Writes a record into which a host's word has come. That of a long app may wait for more.
    pub(super) fn save_heard(&mut self, app: AppId) {
        if self.pacing.waits(self.now, app) {
            self.supervision.touch(app);
        } else {
            self.save_record(app);
        }
    }

    /// Writes the records of long apps whose pause is over.
    pub(super) fn save_due(&mut self) {
        for app in self.pacing.handle_timeout(self.now) {
            self.save_record(app);
        }
    }

    /// Writes a record that this node, as its supervisor, has changed, and copies it.
    pub(crate) fn save_record(&mut self, app: AppId) {
        let version = self.tick();
        if let Some(record) = self.directory.get_mut(app) {
            record.version = version;
            self.pacing.written(self.now, app, record.objects.len());
        }
        self.keep_record(app);
        self.copy_record(app);
        self.supervision.touch(app);
    }

    /// Makes this node's copy durable.
    pub(super) fn keep_record(&mut self, app: AppId) {
        self.directory.trim(app);
        if let Some(record) = self.directory.get(app).cloned() {
            self.write_sealed(Table::Records, &app.0, &record);
            self.directory
                .note_copy(app, self.me, (record.version, record.wanted.version));
        }
    }

    /// Sends a record to the guardians that lack it.
    pub(super) fn copy_record(&mut self, app: AppId) {
        let guardians = directory::guardians(app, self.lasting());
        let lacking = self.directory.lacking(app, &guardians);
        let Some(record) = self.directory.get(app).cloned() else {
            return;
        };
        let versions = (record.version, record.wanted.version);
        for node in lacking {
            if node != self.me && self.is_reachable(node) {
                let task = Task::Store { app, versions };
                self.ask(node, Ask::StoreRecord(Box::new(record.clone())), task);
            }
        }
    }

    /// Copies every record to guardians that lack it.
    pub(super) fn spread_records(&mut self) {
        let apps: Vec<AppId> = self.directory.iter().map(|record| record.app).collect();
        for app in apps {
            // Whoever is no guardian may drop its copy.
            let guardians = directory::guardians(app, self.lasting());
            self.directory.forget_copies_but(app, &guardians);
            self.copy_record(app);
        }
    }

    pub(super) fn store_record(
        &mut self,
        from: NodeId,
        record: AppRecord,
    ) -> Result<Answer, Problem> {
        let app = record.app;
        let versions = (record.version, record.wanted.version);
        let runs = record.job.clone();
        let (code, detail) = match self.take_record(record) {
            Joined::Changed | Joined::Same => {
                self.directory.note_copy(app, from, versions);
                let mine = self.directory.get(app);
                let is_newer =
                    |it: &&AppRecord| (it.version, it.wanted.version) != versions || it.job != runs;
                let newer = mine.filter(is_newer);
                return Ok(newer.map_or(Answer::Done, |it| {
                    Answer::Record(Some(Box::new(it.clone())))
                }));
            }
            Joined::Full => (ProblemCode::Busy, "the node keeps no more records"),
            Joined::Refused => (ProblemCode::Invalid, "the record cannot be right"),
        };
        Err(Problem::new(code, detail))
    }

    /// Joins what another node keeps with what this node keeps, for good.
    pub(crate) fn take_record(&mut self, mut record: AppRecord) -> Joined {
        let app = record.app;
        if let Err(unfit) = self.check_record(&record) {
            self.alarm(
                unfit.alarm,
                alloc::format!("{}: {}", app.short(), unfit.why),
            );
            return Joined::Refused;
        }
        self.observe(record.version.max(record.wanted.version));
        self.prefer_newer_app(&mut record);
        // Whoever hears of an app for the first time while others are still to be heard may not be
        // the one who supervises it, and does not know all of it.
        let is_news = self.directory.get(app).is_none();
        if is_news && self.is_unsettled(app) {
            self.unsettled.insert(app, self.now + SETTLE);
        }
        let versions = (record.version, record.job.clone());
        let joined = self.directory.join(record);
        if joined == Joined::Changed {
            self.keep_record(app);
            self.supervision.touch(app);
        }
        // Whoever has that version does not know of all runs.
        let lacks_runs = |it: &AppRecord| it.version == versions.0 && it.job != versions.1;
        if self.directory.get(app).is_some_and(lacks_runs) && self.supervisor_of(app) == self.me {
            self.save_record(app);
        }
        joined
    }

    /// A node that was away may have changed an app whose name others had given to a newer app by
    /// then. The newer app stays: it is wished anew, so that the newest wish is about it.
    fn prefer_newer_app(&mut self, record: &mut AppRecord) {
        let Some(mine) = self.directory.get(record.app).map(|it| it.wanted.clone()) else {
            return;
        };
        let theirs = &record.wanted;
        let crosses = mine.born != theirs.born
            && (mine.born < theirs.born) != (mine.version < theirs.version);
        // A removal is about whatever has the name.
        if crosses && mine.spec.is_some() && theirs.spec.is_some() {
            if mine.born > theirs.born {
                record.wanted = mine;
            }
            record.wanted.version = self.tick();
        }
    }

    /// Whether as many guardians have the newest version as a promise needs.
    pub(super) fn is_safe(&self, app: AppId) -> bool {
        if self.pacing.is_due(app) {
            return false;
        }
        let guardians = directory::guardians(app, self.lasting());
        let up = guardians
            .iter()
            .filter(|node| self.is_reachable(**node) && !self.measurement.is_impaired(**node))
            .count();
        let lacking = self.directory.lacking(app, &guardians).len();
        guardians.len() - lacking >= GUARDIAN_WRITES.min(up)
    }

    /// Drops records that others keep, and tombstones whose time is over.
    pub(super) fn drop_spare_records(&mut self) {
        let wall = self.wall();
        let mut spare = BTreeMap::new();
        let mut drop = Vec::new();
        for record in self.directory.iter() {
            let app = record.app;
            let newest = record.version.max(record.wanted.version);
            let age_ms = wall.0.saturating_sub(newest.millis);
            let is_old = u128::from(age_ms) > TOMBSTONE_TERM.as_millis();
            if is_old && record.wanted.spec.is_none() {
                drop.push(app);
            } else if self.is_spare(app) {
                let since = self.spare_since.get(&app).copied().unwrap_or(self.now);
                if since + SPARE_TERM <= self.now {
                    drop.push(app);
                } else {
                    spare.insert(app, since);
                }
            }
        }
        self.spare_since = spare;
        let is_held = |app| {
            let guardians = directory::guardians(app, self.lasting());
            self.directory.lacking(app, &guardians).is_empty()
        };
        drop.extend(self.directory.spare_tombstones(TOMBSTONES_MAX, is_held));
        for app in drop {
            self.leave_seats_of(|of, _| of == app);
            self.directory.remove(app);
            self.write(Table::Records, &app.0, None);
        }
    }

    /// Whether all who should have the record of an app, and this node need not.
    fn is_spare(&self, app: AppId) -> bool {
        let guardians = directory::guardians(app, self.lasting());
        !self.needs_record(app) && self.directory.lacking(app, &guardians).is_empty()
    }

    /// Whether this node has a use for the record of an app.
    pub(super) fn needs_record(&self, app: AppId) -> bool {
        directory::guardians(app, self.lasting()).contains(&self.me)
            || self.votes_on(app)
            || self.supervisor_of(app) == self.me
            || self.waiters.iter().any(|it| it.app == app)
    }
}

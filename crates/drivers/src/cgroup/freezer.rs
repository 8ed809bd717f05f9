//! Stops everything in an object, so that it can go on later.
//!
//! Only by a group on v2, which every kernel that we support has, beside the controllers of v1
//! too. What it has stopped still dies when it is killed, and so with its shim. What the freezer of
//! v1 has stopped dies only once it is let go: an object whose shim was killed would be left for
//! ever. Where there is no group on v2, an object is killed when it should have been frozen.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::clock;
use crate::limits::FREEZE;

/// Longest `cgroup.events` that is understood: a few words and numbers.
const EVENTS_BYTES_MAX: usize = 256;

/// The files of one group, which are open so that a deadline has only to write to one.
#[derive(Debug)]
pub(crate) struct Freezer {
    freeze: File,
    events: File,
}

impl Freezer {
    pub(super) fn open(group: &Path) -> io::Result<Self> {
        let freeze = group.join("cgroup.freeze");
        Ok(Self {
            freeze: OpenOptions::new().write(true).open(freeze)?,
            events: File::open(group.join("cgroup.events"))?,
        })
    }

    /// Stops everything in the group and what comes into it, and waits a moment until that stands
    /// still. What is inside a long system call by then stops when it leaves it: from the moment
    /// when this was written nothing returns to its program.
    pub(crate) fn freeze(&self) -> io::Result<()> {
        self.freeze.write_all_at(b"1", 0)?;
        let until = clock::now() + FREEZE;
        while !self.is_still()? && self.wait(until) {}
        Ok(())
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) -> io::Result<()> {
        self.freeze.write_all_at(b"0", 0)
    }

    fn is_still(&self) -> io::Result<bool> {
        let mut bytes = [0; EVENTS_BYTES_MAX];
        let length = self.events.read_at(&mut bytes, 0)?;
        let text = bytes.get(..length).unwrap_or_default();
        Ok(text
            .split(|byte| *byte == b'\n')
            .any(|line| line == b"frozen 1"))
    }

    /// Waits for a change of what was read. False when it is too late for one.
    fn wait(&self, until: Instant) -> bool {
        let left = until.saturating_duration_since(clock::now());
        let mut watched = [PollFd::new(self.events.as_fd(), PollFlags::POLLPRI)];
        // Interrupted is as good as a change.
        let _changed = poll(
            &mut watched,
            PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO),
        );
        !left.is_zero()
    }
}

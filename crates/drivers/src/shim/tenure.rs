//! Keeps an object of an app that never runs twice to its tenure, with nobody's help: see
//! `docs/protocols/once.md`.
//!
//! ```text
//!             freeze_at                     kill_at
//!   runs ───────────────────► frozen ───────────────────► killed: ExitReason::Lapsed
//!        ◄───────────────────        and, where it cannot be frozen,
//!           a later tenure            already at freeze_at
//! ```
//!
//! A deadline is a timer of the kernel that fires also after the machine has slept. Meeting it is
//! one system call, which needs no memory, no disk and no daemon: writing a byte into an open
//! file, or killing init, which takes all others in its pid namespace with it.

use std::io;
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use wire::driver::Tenure;
use wire::fact::ExitReason;

use super::{Phase, Shim, complain};
use crate::cgroup::Freezer;
use crate::clock;

/// What is right at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Right {
    /// It may run until then.
    Run { until_us: u64 },
    /// It may exist until then, but not run.
    Exist { until_us: u64 },
    /// It may not exist.
    Nothing,
}

fn right(tenure: Tenure, can_freeze: bool, now_us: u64) -> Right {
    let freeze_at_us = tenure.freeze_at_us.min(tenure.kill_at_us);
    if now_us < freeze_at_us {
        Right::Run {
            until_us: freeze_at_us,
        }
    } else if can_freeze && now_us < tenure.kill_at_us {
        Right::Exist {
            until_us: tenure.kill_at_us,
        }
    } else {
        Right::Nothing
    }
}

/// What a shim needs to keep an object to its tenure.
#[derive(Debug)]
pub(super) struct Keeper {
    tenure: Tenure,
    pub(super) timer: TimerFd,
    /// Where there is none, the object is killed when it should have been frozen.
    pub(super) freezer: Option<Freezer>,
    is_frozen: bool,
}

impl Keeper {
    pub(super) fn new(tenure: Tenure) -> nix::Result<Self> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        Ok(Self {
            tenure,
            timer: TimerFd::new(ClockId::CLOCK_BOOTTIME, flags)?,
            freezer: None,
            is_frozen: false,
        })
    }

    /// Does what is due, up to killing. False when the object has no right to exist any more.
    fn meet(&mut self) -> io::Result<bool> {
        let now_us = clock::boot_micros();
        match right(self.tenure, self.freezer.is_some(), now_us) {
            Right::Run { until_us } => {
                self.set_frozen(false)?;
                self.wake(until_us)?;
            }
            Right::Exist { until_us } => {
                self.set_frozen(true)?;
                self.wake(until_us)?;
            }
            Right::Nothing => return Ok(false),
        }
        Ok(true)
    }

    fn set_frozen(&mut self, is_frozen: bool) -> io::Result<()> {
        match &self.freezer {
            Some(freezer) if is_frozen && !self.is_frozen => freezer.freeze()?,
            Some(freezer) if !is_frozen && self.is_frozen => freezer.thaw()?,
            Some(_) | None => {}
        }
        self.is_frozen = is_frozen;
        Ok(())
    }

    /// Sets the timer, which also takes back that it has fired.
    fn wake(&self, at_us: u64) -> io::Result<()> {
        let at = TimeSpec::from_duration(Duration::from_micros(at_us));
        let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME;
        Ok(self.timer.set(Expiration::OneShot(at), flags)?)
    }
}

impl Shim {
    /// A new tenure replaces the one before, also by less.
    pub(super) fn renew(&mut self, tenure: Tenure) {
        if let Some(keeper) = &mut self.keeper {
            keeper.tenure = tenure;
            self.keep_tenure();
        } else {
            complain("a tenure means nothing to an object that was launched without one");
        }
    }

    /// Does what is due by the object's tenure.
    pub(super) fn keep_tenure(&mut self) {
        let Some(keeper) = &mut self.keeper else {
            return;
        };
        let met = match self.phase {
            Phase::Preparing | Phase::Running | Phase::Stopping => keeper.meet(),
            Phase::Ending | Phase::Exited | Phase::Ended => Ok(false),
        };
        if matches!(met, Ok(true)) {
            return;
        }
        // It can only fail for a timer that is none.
        let _silent = keeper.timer.unset();
        self.end(ExitReason::Lapsed);
        if let Err(error) = met {
            complain(&format!("its tenure could not be kept: {error}"));
        }
    }

    /// Whether it stands still and does nothing that it is asked.
    pub(super) fn is_frozen(&self) -> bool {
        self.keeper.as_ref().is_some_and(|keeper| keeper.is_frozen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENURE: Tenure = Tenure {
        freeze_at_us: 700,
        kill_at_us: 900,
    };

    #[test]
    fn a_deadline_counts_from_its_own_microsecond_on() {
        let frozen = Right::Exist { until_us: 900 };
        let runs = Right::Run { until_us: 700 };
        let all = [0, 699, 700, 899, 900, u64::MAX].map(|now| right(TENURE, true, now));
        let nothing = Right::Nothing;
        assert_eq!(all, [runs, runs, frozen, frozen, nothing, nothing]);
    }

    #[test]
    fn what_cannot_be_frozen_is_killed_when_it_should_have_been() {
        assert_eq!(right(TENURE, false, 699), Right::Run { until_us: 700 });
        assert_eq!(right(TENURE, false, 700), Right::Nothing);
    }

    #[test]
    fn a_kill_before_the_freeze_is_still_met() {
        let odd = Tenure {
            freeze_at_us: 900,
            kill_at_us: 700,
        };
        assert_eq!(right(odd, true, 699), Right::Run { until_us: 700 });
        assert_eq!(right(odd, true, 700), Right::Nothing);
    }
}

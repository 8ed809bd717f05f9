//! What this node does when it hears that it runs twice.
//!
//! A copied state directory makes two machines one node. A member that has an open link to one of
//! the two refuses the other, and says so ([`crate::world::Input::Twice`]). The refused process
//! cannot know which of the two is the right one, so it only stops making changes, and says why.
//!
//! What it is not: it finds out nothing; links do.

use alloc::string::String;
use core::time::Duration;

use wire::call::{Problem, ProblemCode};

use crate::instant::Instant;

/// A refusal counts for so long. A node that runs twice hears of it again with every dial; one
/// whose twin has ended hears of it no more.
const HEEDED: Duration = Duration::from_secs(60);

/// What to do on the machine that should not be this node.
pub(crate) const REMEDY: &str = "decide which of the two stays; on the other one: welkin down, \
                                 move its state directory away, welkin join TICKET";

/// Where a member met this node's key when it refused this process.
#[derive(Debug, Default)]
pub(crate) struct Twice {
    refused: Option<(Instant, String)>,
}

impl Twice {
    /// A member refused this process, because the node lives there.
    pub(crate) fn note_refused(&mut self, now: Instant, elsewhere: String) {
        self.refused = Some((now, elsewhere));
    }

    /// Where the other process with this node's key is, as far as anybody said lately.
    pub(crate) fn elsewhere(&self, now: Instant) -> Option<&str> {
        let (at, elsewhere) = self.refused.as_ref()?;
        (now.since(*at) <= HEEDED).then_some(elsewhere)
    }

    /// Why a call that changes something is not taken.
    pub(crate) fn problem(&self, now: Instant) -> Option<Problem> {
        let elsewhere = self.elsewhere(now)?;
        let detail = alloc::format!(
            "another process with the key of this node runs at {elsewhere}, and members refuse \
             this one; nothing was changed"
        );
        Some(Problem::new(ProblemCode::Forbidden, detail).remedy(REMEDY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_heeded_until_nobody_repeats_it() {
        let mut twice = Twice::default();
        let start = Instant::from_micros(1);
        assert_eq!(twice.problem(start), None);
        twice.note_refused(start, "192.0.2.1:7117".into());
        let problem = twice.problem(start + HEEDED).expect("it is heeded");
        assert!(problem.detail.contains("192.0.2.1:7117"), "{problem:?}");
        let later = start + HEEDED + Duration::from_micros(1);
        assert_eq!(twice.problem(later), None);
        twice.note_refused(later, "192.0.2.1:7117".into());
        assert!(twice.problem(later).is_some());
    }
}

//! Which of several paths to a peer carries its links: the transport finds paths, this chooses.
//!
//! What it is not: it opens none and closes none. The transport closes what is not chosen.
//!
//! A path that begins at an address which this machine no longer has is dead, whatever was measured
//! on it: the one that was found from the new address must win, or a machine that moved would hold
//! on to the old one until it times out. A path through another member is the last choice that
//! lives.

use std::net::IpAddr;
use std::time::Duration;

use iroh::endpoint::transports::{
    FourTuple, PathSelection, PathSelectionContext, PathSelectionData, PathSelector,
};

use crate::addresses;

/// A path is left for another of its kind only when that is faster by this much, so that two of a
/// length do not alternate.
const FASTER: Duration = Duration::from_millis(5);

/// Chooses for the transport.
#[derive(Debug)]
pub(super) struct Preference;

impl PathSelector for Preference {
    fn select(&self, context: &PathSelectionContext<'_>) -> PathSelection {
        let open: Vec<(PathSelectionData<'_>, Duration)> = context
            .paths()
            .filter_map(|path| path.stats().map(|stats| (path, stats.rtt)))
            .collect();
        let candidates: Vec<Candidate> = open
            .iter()
            .map(|(path, round_trip)| Candidate {
                kind: kind(path.network_path()),
                round_trip: *round_trip,
                is_current: Some(path.network_path()) == context.current(),
            })
            .collect();
        let mut selection = PathSelection::none();
        if let Some((path, _)) = choose(&candidates).and_then(|index| open.get(index)) {
            selection.set(path);
        }
        selection
    }
}

/// What a path is, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// From an address that this machine has.
    Direct,
    /// Through another member.
    Relayed,
    /// From an address that it had.
    Lost,
}

#[derive(Debug)]
struct Candidate {
    kind: Kind,
    round_trip: Duration,
    is_current: bool,
}

fn kind(path: &FourTuple) -> Kind {
    match path {
        FourTuple::Ip { local, .. } if local.is_none_or(is_here) => Kind::Direct,
        FourTuple::Ip { .. } => Kind::Lost,
        FourTuple::Relay { .. } | FourTuple::Custom { .. } => Kind::Relayed,
    }
}

fn is_here(address: IpAddr) -> bool {
    addresses::is_own(address.to_canonical())
}

/// The index of the path to use.
fn choose(candidates: &[Candidate]) -> Option<usize> {
    let key = |index: &usize| (candidates[*index].kind, candidates[*index].round_trip);
    let best = (0..candidates.len()).min_by_key(key)?;
    let current = (0..candidates.len()).filter(|index| candidates[*index].is_current);
    let Some(current) = current.min_by_key(key) else {
        return Some(best);
    };
    let is_better = candidates[best].kind < candidates[current].kind
        || candidates[best].round_trip + FASTER <= candidates[current].round_trip;
    Some(if is_better { best } else { current })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kinds and round trips in milliseconds; the first is the one in use.
    fn check(paths: &[(Kind, u64)], expect: usize) {
        let candidate = |(index, (kind, milliseconds)): (usize, &(Kind, u64))| Candidate {
            kind: *kind,
            round_trip: Duration::from_millis(*milliseconds),
            is_current: index == 0,
        };
        let candidates: Vec<_> = paths.iter().enumerate().map(candidate).collect();
        assert_eq!(choose(&candidates), Some(expect), "{paths:?}");
    }

    /// The library held on to the path that was in use, and closed the new one as superfluous.
    #[test]
    fn a_path_from_an_address_that_is_gone_loses_to_any_other() {
        check(&[(Kind::Lost, 1), (Kind::Direct, 40)], 1);
        check(&[(Kind::Lost, 1), (Kind::Relayed, 80)], 1);
    }

    #[test]
    fn a_direct_path_is_taken_however_slow_it_is() {
        check(&[(Kind::Relayed, 10), (Kind::Direct, 90)], 1);
        check(&[(Kind::Direct, 90), (Kind::Relayed, 10)], 0);
    }

    #[test]
    fn paths_of_a_length_do_not_alternate() {
        check(&[(Kind::Direct, 20), (Kind::Direct, 16)], 0);
        check(&[(Kind::Direct, 20), (Kind::Direct, 15)], 1);
        assert_eq!(choose(&[]), None);
    }
}

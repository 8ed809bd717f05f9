//! By whom this node is reached when nobody can dial it.
//!
//! What it is not: it makes no line and carries nothing. It says to whom lines are to be held, and
//! which relays this node tells the others; the packets never come here.
//!
//! # The node's own side
//!
//! | state | means | becomes |
//! | --- | --- | --- |
//! | asking | nobody has said yet where it sees this node: a few members are asked by a line | open, or hidden |
//! | open | it is seen at an address of its own; it holds no line | hidden, when it cannot dial a member that others hear |
//! | hidden | it is seen elsewhere: a router translates. It holds lines to two members and tells them | open, when its addresses change and all see it there |
//! | helpless | it is hidden, and nobody carries for it | hidden |

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use wire::id::NodeId;

use crate::instant::Instant;

/// Relays that a hidden node has: when one dies, packets go by the other within a second.
const RELAYS: usize = 2;
/// Members that are asked where they see this node: some may be behind the same router.
const ASKED: usize = 3;
/// A member that gave no line is not asked again for so long.
const REFUSED: Duration = Duration::from_secs(10);
/// The same for one that does not carry.
const UNWILLING: Duration = Duration::from_secs(600);
/// A member that could not be dialled and is heard by others for so long is alive.
const SURE: Duration = Duration::from_secs(5);
/// A node that has had no relay for so long is helpless.
const HELPLESS: Duration = Duration::from_secs(30);

/// A member that answers, as far as it matters here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate {
    /// Who.
    pub(crate) node: NodeId,
    /// It tells relays itself: others cannot dial it.
    pub(crate) is_hidden: bool,
    /// How far it is, in microseconds.
    pub(crate) round_trip_us: Option<u64>,
}

/// What follows from all that is known.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// To whom lines are to be held, when that has changed.
    pub(crate) new_lines: Option<Vec<NodeId>>,
    /// Relays that this node tells.
    pub(crate) relays: Vec<NodeId>,
    /// It has just become helpless.
    pub(crate) is_helpless: bool,
}

/// A line that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Asked,
    /// It carries, and sees this node at another address than its own.
    Outside,
    /// It carries, and sees this node at its own address.
    Inside,
    Refuses,
}

/// Why this node may be hidden although it is seen at its own address.
#[derive(Debug, Clone, Copy)]
enum Sign {
    /// A dial was in vain, then.
    Undialled(Instant),
    /// It was alive all the same, or there is a link by way of a relay.
    Sure,
}

/// Where this node stands. Four kinds of methods: getters, `handle_*`, commands, `poll_*`.
#[derive(Debug, Default)]
pub(crate) struct Relaying {
    addresses: Vec<String>,
    lines: BTreeMap<NodeId, Line>,
    /// What the world was told last.
    told: Vec<NodeId>,
    /// Whom not to ask, and until when.
    refused: BTreeMap<NodeId, Instant>,
    /// Whether somebody sees it at an address that it does not have; nothing before an answer.
    is_translated: Option<bool>,
    signs: BTreeMap<NodeId, Sign>,
    /// By whom members are reached from here.
    ways: BTreeMap<NodeId, NodeId>,
    helpless: Option<Instant>,
    is_alarmed: bool,
    /// The lines that there are were made in another place.
    has_moved: bool,
    is_dirty: bool,
}

impl Relaying {
    pub(crate) fn new(addresses: &[String]) -> Self {
        Self {
            addresses: addresses.to_vec(),
            is_dirty: true,
            ..Self::default()
        }
    }

    /// By whom the link to a member goes, if not to itself.
    pub(crate) fn way(&self, node: NodeId) -> Option<NodeId> {
        self.ways.get(&node).copied()
    }

    /// A member came or went: that it could not be dialled says nothing any more.
    pub(crate) fn handle_member(&mut self, node: NodeId) {
        if !self.ways.contains_key(&node) {
            self.signs.remove(&node);
        }
        self.is_dirty = true;
    }

    /// A member tells relays, or none any more.
    pub(crate) fn handle_told(&mut self) {
        self.is_dirty = true;
    }

    /// This node is somewhere else: what others said of the former place is void.
    pub(crate) fn handle_addresses(&mut self, addresses: &[String]) {
        self.addresses = addresses.to_vec();
        self.is_translated = None;
        self.signs.clear();
        self.refused.clear();
        // Whoever is asked again has to make a new line.
        self.lines.clear();
        self.has_moved = true;
        self.is_dirty = true;
    }

    /// A member has taken a line, sees this node there, and carries or not.
    pub(crate) fn handle_open(&mut self, now: Instant, relay: NodeId, seen: &str, carries: bool) {
        let Some(line) = self.lines.get_mut(&relay) else {
            return;
        };
        let seen = seen.parse().ok().map(|seen: SocketAddr| seen.ip());
        let ip = |text: &String| text.parse().ok().map(|own: SocketAddr| own.ip());
        let is_inside = self.addresses.iter().any(|own| ip(own) == seen);
        *line = match (carries, is_inside) {
            (false, _) => Line::Refuses,
            (true, true) => Line::Inside,
            (true, false) => Line::Outside,
        };
        if !carries {
            self.refused.insert(relay, now + UNWILLING);
        }
        self.is_translated = Some(self.is_translated == Some(true) || !is_inside);
        self.is_dirty = true;
    }

    /// A line is gone, or could not be made.
    pub(crate) fn handle_closed(&mut self, now: Instant, relay: NodeId) {
        if self.lines.remove(&relay).is_some() {
            self.refused.entry(relay).or_insert(now + REFUSED);
            self.is_dirty = true;
        }
    }

    /// There is a link to a member, by way of another or not.
    pub(crate) fn handle_linked(&mut self, node: NodeId, via: Option<NodeId>) {
        match via {
            None => {
                self.signs.remove(&node);
                self.ways.remove(&node);
            }
            Some(via) => {
                self.signs.insert(node, Sign::Sure);
                self.ways.insert(node, via);
            }
        }
        self.is_dirty = true;
    }

    /// No address of a member answered, and no relay led to it.
    pub(crate) fn handle_undialled(&mut self, now: Instant, node: NodeId) {
        self.ways.remove(&node);
        // Since the first time.
        self.signs.entry(node).or_insert(Sign::Undialled(now));
        self.is_dirty = true;
    }

    /// A node that is no member any more.
    pub(crate) fn forget(&mut self, node: NodeId) {
        self.signs.remove(&node);
        self.ways.remove(&node);
        self.refused.remove(&node);
        self.is_dirty = true;
    }

    /// When to plan again, when nothing happens.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let refused = self.refused.values().copied();
        let sure = self.signs.values().filter_map(|sign| match sign {
            Sign::Undialled(at) => Some(*at + SURE),
            Sign::Sure => None,
        });
        let helpless = self.helpless.filter(|_| !self.is_alarmed);
        refused
            .chain(sure)
            .chain(helpless.map(|at| at + HELPLESS))
            .min()
    }

    /// What is to be now; nothing when nothing has changed. To be asked again until then.
    /// `candidates` are the members that answer.
    pub(crate) fn poll_plan(
        &mut self,
        now: Instant,
        candidates: impl FnOnce() -> Vec<Candidate>,
    ) -> Option<Plan> {
        if !self.is_dirty && self.poll_timeout().is_none_or(|at| at > now) {
            return None;
        }
        if core::mem::take(&mut self.has_moved) {
            self.told.clear();
            let new_lines = Some(Vec::new());
            return Some(Plan {
                new_lines,
                ..Plan::default()
            });
        }
        self.is_dirty = false;
        let mut candidates = candidates();
        candidates.sort_by_key(Candidate::rank);
        self.refused.retain(|_, until| *until > now);
        self.judge_signs(now, &candidates);
        let is_sign = |it: &Candidate| matches!(self.signs.get(&it.node), Some(Sign::Sure));
        // Whoever is hidden itself is no sign that this node is.
        let has_sign = candidates.iter().any(|it| is_sign(it) && !it.is_hidden);
        let is_hidden = self.is_translated == Some(true) || has_sign;
        self.choose(now, is_hidden, &candidates);
        let carriers = self.lines.iter().filter(|(_, line)| line.carries());
        let relays: Vec<NodeId> = match is_hidden {
            true => carriers.map(|(node, _)| *node).collect(),
            false => Vec::new(),
        };
        let lacks = self.is_translated == Some(true) && !candidates.is_empty();
        let lines: Vec<NodeId> = self.lines.keys().copied().collect();
        let is_new = self.told != lines;
        self.told.clone_from(&lines);
        Some(Plan {
            new_lines: is_new.then_some(lines),
            is_helpless: self.heed_lack(now, lacks && relays.is_empty()),
            relays,
        })
    }

    /// A member that could not be dialled and answers others for long enough is a sign; any other
    /// is none.
    fn judge_signs(&mut self, now: Instant, candidates: &[Candidate]) {
        self.signs.retain(|node, sign| match sign {
            Sign::Sure => true,
            Sign::Undialled(at) if now.since(*at) < SURE => true,
            Sign::Undialled(_) => {
                *sign = Sign::Sure;
                candidates
                    .iter()
                    .any(|it| it.node == *node && !it.is_hidden)
            }
        });
    }

    /// Lets go of lines that are not needed, and asks for those that are.
    fn choose(&mut self, now: Instant, is_hidden: bool, candidates: &[Candidate]) {
        let is_here = |node: &NodeId| candidates.iter().any(|it| it.node == *node);
        let is_translated = self.is_translated == Some(true);
        for (node, line) in &self.lines {
            // Whoever is behind the same router is no way in from outside.
            if *line == Line::Inside && is_translated {
                self.refused.insert(*node, now + UNWILLING);
            }
        }
        self.lines.retain(|node, line| match line {
            Line::Asked => is_here(node),
            Line::Outside => is_hidden && is_here(node),
            Line::Inside => is_hidden && is_here(node) && !is_translated,
            Line::Refuses => false,
        });
        let wanted = match (is_hidden, self.is_translated) {
            (true, _) => RELAYS,
            (false, None) => ASKED,
            // Of those that were asked the rest may still see it elsewhere.
            (false, Some(_)) => self.lines.len(),
        };
        for candidate in candidates {
            let is_fit = !(is_hidden && candidate.is_hidden);
            let is_free = !self.refused.contains_key(&candidate.node);
            if self.lines.len() < wanted && is_fit && is_free {
                self.lines.entry(candidate.node).or_insert(Line::Asked);
            }
        }
        // Those that have not answered go first, then the farthest.
        for carries in [false, true] {
            for candidate in candidates.iter().rev() {
                let line = self.lines.get(&candidate.node);
                let is_spare = self.lines.len() > wanted;
                if is_spare && line.is_some_and(|line| line.carries() == carries) {
                    self.lines.remove(&candidate.node);
                }
            }
        }
    }

    fn heed_lack(&mut self, now: Instant, lacks: bool) -> bool {
        if !lacks {
            self.helpless = None;
            self.is_alarmed = false;
            return false;
        }
        let since = *self.helpless.get_or_insert(now);
        let is_news = now.since(since) >= HELPLESS && !self.is_alarmed;
        self.is_alarmed |= is_news;
        is_news
    }
}

impl Line {
    fn carries(self) -> bool {
        matches!(self, Self::Outside | Self::Inside)
    }
}

impl Candidate {
    /// Better ones first: those that others can dial, then the nearest, then by their ids.
    fn rank(&self) -> (bool, u32, NodeId) {
        let distance = self.round_trip_us.map_or(u32::MAX, |us| us.max(1).ilog2());
        (self.is_hidden, distance, self.node)
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    const OWN: &str = "192.168.1.5:7117";
    const ELSEWHERE: &str = "203.0.113.9:40001";

    fn node(letter: u8) -> NodeId {
        NodeId([letter; 32])
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    struct Case {
        relaying: Relaying,
        members: Vec<Candidate>,
    }

    impl Case {
        /// A node with so many members, the first the nearest.
        fn new(members: u8) -> Self {
            let member = |letter| Candidate {
                node: node(letter),
                is_hidden: false,
                round_trip_us: Some(1 << letter),
            };
            Self {
                relaying: Relaying::new(&[OWN.to_string()]),
                members: (1..=members).map(member).collect(),
            }
        }

        fn plan(&mut self, now: u64) -> Option<Plan> {
            let members = self.members.clone();
            self.relaying.poll_plan(at(now), || members)
        }

        /// Lines and relays by their letters.
        fn check(&mut self, now: u64, lines: &[u8], relays: &[u8]) {
            let plan = self.plan(now).expect("something has changed");
            let letters = |nodes: &[NodeId]| nodes.iter().map(|it| it.0[0]).collect::<Vec<_>>();
            let all: Vec<NodeId> = self.relaying.lines.keys().copied().collect();
            assert_eq!(letters(&all), lines, "lines at {now} s");
            assert!(plan.new_lines.is_none_or(|it| it == all));
            assert_eq!(letters(&plan.relays), relays, "relays at {now} s");
        }

        fn open(&mut self, letter: u8, seen: &str) {
            self.relaying.handle_open(at(0), node(letter), seen, true);
        }

        fn without(&mut self, letter: u8) {
            self.members.retain(|it| it.node != node(letter));
            self.relaying.handle_member(node(letter));
        }
    }

    fn hidden() -> Case {
        let mut case = Case::new(4);
        case.check(0, &[1, 2, 3], &[]);
        case.open(1, ELSEWHERE);
        case.open(2, ELSEWHERE);
        case.check(0, &[1, 2], &[1, 2]);
        case
    }

    #[test]
    fn a_node_that_is_seen_at_its_own_address_holds_no_line() {
        let mut case = Case::new(4);
        case.check(0, &[1, 2, 3], &[]);
        for letter in [1, 2, 3] {
            case.open(letter, "192.168.1.5:9");
        }
        case.check(0, &[], &[]);
        assert_eq!(case.plan(1), None, "and is at rest");
    }

    #[test]
    fn a_node_that_is_seen_elsewhere_holds_two_lines_and_tells_them() {
        let mut case = hidden();
        assert_eq!(case.plan(1), None, "and is at rest");
    }

    /// One of those that are asked is behind the same router, and sees nothing of it.
    #[test]
    fn one_that_sees_it_elsewhere_is_enough() {
        let mut case = Case::new(3);
        case.check(0, &[1, 2, 3], &[]);
        case.open(1, OWN);
        case.open(2, OWN);
        case.open(3, ELSEWHERE);
        case.check(0, &[3], &[3]);
    }

    #[test]
    fn a_relay_that_is_lost_is_replaced_at_once() {
        let mut case = hidden();
        case.without(1);
        case.check(2, &[2, 3], &[2]);
        case.relaying.handle_closed(at(3), node(2));
        case.check(3, &[3, 4], &[]);
        case.open(3, ELSEWHERE);
        case.check(3, &[3, 4], &[3]);
    }

    #[test]
    fn one_that_gave_no_line_is_asked_again_later() {
        let mut case = Case::new(1);
        case.check(0, &[1], &[]);
        case.relaying.handle_closed(at(0), node(1));
        case.check(0, &[], &[]);
        assert_eq!(case.relaying.poll_timeout(), Some(at(10)));
        case.check(10, &[1], &[]);
    }

    #[test]
    fn nobody_is_a_relay_who_cannot_be_dialled_or_does_not_carry() {
        let mut case = hidden();
        case.members[2].is_hidden = true;
        case.relaying.handle_open(at(1), node(2), ELSEWHERE, false);
        case.relaying.handle_closed(at(1), node(3));
        case.check(1, &[1, 4], &[1]);
    }

    #[test]
    fn a_node_that_moved_asks_anew() {
        let mut case = hidden();
        case.relaying.handle_addresses(&[ELSEWHERE.to_string()]);
        // All lines are made anew, also those to the same members.
        let plan = case.plan(1).expect("something has changed");
        assert_eq!(plan.new_lines, Some(Vec::new()));
        case.check(1, &[1, 2, 3], &[]);
        for letter in [1, 2, 3] {
            case.open(letter, ELSEWHERE);
        }
        case.check(1, &[], &[]);
    }

    /// Nobody translates, but somebody keeps packets out.
    #[test]
    fn a_member_that_others_hear_and_this_node_cannot_dial_is_a_sign() {
        let mut case = Case::new(3);
        case.check(0, &[1, 2, 3], &[]);
        for letter in [1, 2, 3] {
            case.open(letter, OWN);
        }
        case.check(0, &[], &[]);
        case.relaying.handle_undialled(at(10), node(3));
        case.check(10, &[], &[]);
        case.relaying.handle_undialled(at(14), node(3));
        case.check(14, &[], &[]);
        case.check(15, &[1, 2], &[]);
        case.relaying.handle_linked(node(3), Some(node(1)));
        assert_eq!(case.relaying.way(node(3)), Some(node(1)));
        case.check(16, &[1, 2], &[]);
        case.relaying.handle_linked(node(3), None);
        assert_eq!(case.relaying.way(node(3)), None);
        case.open(1, OWN);
        case.open(2, OWN);
        case.check(17, &[], &[]);
    }

    #[test]
    fn a_member_that_is_hidden_or_dead_is_no_sign() {
        for is_dead in [false, true] {
            let mut case = Case::new(1);
            case.check(0, &[1], &[]);
            case.open(1, OWN);
            case.relaying.handle_undialled(at(10), node(1));
            case.members[0].is_hidden = true;
            if is_dead {
                case.without(1);
            }
            case.check(20, &[], &[]);
        }
    }

    #[test]
    fn a_node_that_nobody_carries_for_says_so_once() {
        let mut case = Case::new(1);
        case.check(0, &[1], &[]);
        case.relaying.handle_open(at(0), node(1), ELSEWHERE, false);
        let helpless = |plan: Option<Plan>| plan.is_some_and(|it| it.is_helpless);
        assert!(!helpless(case.plan(0)));
        assert!(helpless(case.plan(30)));
        case.relaying.handle_told();
        assert!(!helpless(case.plan(40)));
    }
}

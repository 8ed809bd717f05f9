//! Placement: which nodes an object may go to, and which of them it should.
//!
//! What it is not: it knows no nodes, clocks or messages. It is told plain numbers, and tested with
//! plain numbers.
//!
//! Three pure steps, because what is known of other nodes is hearsay (power of two choices,
//! Mitzenmacher 2001; batch sampling, Sparrow, SOSP 2013 section 3):
//!
//! 1. [`filter`]: gossip says who cannot fit. It is never asked who is least busy: everybody would
//!    go to the same node.
//! 2. [`probes`]: two of those that can, by chance. They are asked, and hold the resources.
//! 3. [`best`]: the better of the two, by what they said themselves.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cmp::Reverse;

use rand::{Rng, RngExt};
use wire::fact::Availability;
use wire::id::NodeId;
use wire::spec::{AppSpec, Constraint, Operator, parse_amount};

/// Nodes that are asked for one object.
pub(crate) const PROBES: usize = 2;
/// What an object of the same app weighs, in thousandths of load: apps stay spread while nodes are
/// about equally busy.
const SAME_APP_PER_MILLE: u32 = 250;

/// A node as gossip knows it.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) node: NodeId,
    pub(crate) name: String,
    pub(crate) arch: String,
    pub(crate) os: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) availability: Availability,
    pub(crate) cpu_millis: u32,
    pub(crate) cpu_free_millis: u32,
    pub(crate) memory_bytes: u64,
    pub(crate) memory_free_bytes: u64,
    /// Living objects of the app that are there, as its supervisor knows.
    pub(crate) same_app: u32,
    /// Its lack of a needed port, or a refusal a moment ago, as a reason.
    pub(crate) refused: Option<String>,
}

/// Who can take the object, and why the others cannot.
#[derive(Debug, Default)]
pub(crate) struct Fit {
    pub(crate) fitting: Vec<NodeId>,
    /// Nodes that would do if less was held there. What is held is hearsay, and may be old: they
    /// are asked when no other node is left, the emptiest first.
    pub(crate) perhaps: Vec<NodeId>,
    /// Reason and how many nodes it holds for.
    pub(crate) refusals: BTreeMap<String, u32>,
}

impl Fit {
    /// Says why no node fits, with the number of nodes for each reason.
    pub(crate) fn explain(&self) -> String {
        if self.refusals.is_empty() {
            return "there are no nodes".to_string();
        }
        let mut reasons: Vec<(&String, &u32)> = self.refusals.iter().collect();
        reasons.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
        let all: u32 = reasons.iter().map(|(_, count)| **count).sum();
        let parts: Vec<String> = reasons
            .iter()
            .map(|(reason, count)| format!("{reason} on {count} of {all}"))
            .collect();
        parts.join(", ")
    }
}

/// Steps 1: who can take an object of `spec`.
pub(crate) fn filter(spec: &AppSpec, candidates: &[Candidate]) -> Fit {
    let mut fit = Fit::default();
    let mut perhaps = Vec::new();
    for candidate in candidates {
        let Some(reason) = refusal(spec, candidate).or_else(|| lack(spec, candidate)) else {
            fit.fitting.push(candidate.node);
            continue;
        };
        let would_do = spec.resources.cpu_millis <= candidate.cpu_millis
            && spec.resources.memory_bytes <= candidate.memory_bytes;
        if would_do && refusal(spec, candidate).is_none() {
            perhaps.push(candidate);
        }
        *fit.refusals.entry(reason).or_insert(0) += 1;
    }
    perhaps.sort_by_key(|it| Reverse((it.cpu_free_millis, it.memory_free_bytes, it.node)));
    fit.perhaps = perhaps.iter().map(|it| it.node).collect();
    fit
}

fn refusal(spec: &AppSpec, candidate: &Candidate) -> Option<String> {
    if let Some(host) = &spec.placement.host
        && *host != candidate.name
        && !candidate.node.has_prefix(host)
    {
        return Some(format!("--host {host} does not hold"));
    }
    let unmet = spec
        .placement
        .constraints
        .iter()
        .find(|it| !holds(it, candidate));
    if let Some(constraint) = unmet {
        return Some(format!("{constraint} does not hold"));
    }
    match candidate.availability {
        Availability::Open => {}
        Availability::Draining => return Some("draining".to_string()),
        Availability::Leaving => return Some("leaving".to_string()),
    }
    candidate.refused.clone()
}

/// What is missing there, by hearsay.
fn lack(spec: &AppSpec, candidate: &Candidate) -> Option<String> {
    if spec.resources.cpu_millis > candidate.cpu_free_millis {
        return Some(format!("not {} cores free", spec.resources.cores()));
    }
    if spec.resources.memory_bytes > candidate.memory_free_bytes {
        return Some(format!(
            "not {} MiB of memory free",
            spec.resources.memory_bytes >> 20
        ));
    }
    None
}

/// Whether a constraint holds for a node.
pub(crate) fn holds(constraint: &Constraint, candidate: &Candidate) -> bool {
    let word = |actual: Option<&str>| match constraint.operator {
        Operator::Equal => actual == Some(constraint.value.as_str()),
        Operator::NotEqual => actual != Some(constraint.value.as_str()),
        Operator::AtLeast | Operator::AtMost | Operator::More | Operator::Less => false,
    };
    let amount = |actual: u128| {
        parse_amount(&constraint.value).is_some_and(|wanted| match constraint.operator {
            Operator::Equal => actual == wanted,
            Operator::NotEqual => actual != wanted,
            Operator::AtLeast => actual >= wanted,
            Operator::AtMost => actual <= wanted,
            Operator::More => actual > wanted,
            Operator::Less => actual < wanted,
        })
    };
    match constraint.attribute.as_str() {
        "arch" => word(Some(&candidate.arch)),
        "os" => word(Some(&candidate.os)),
        "platform" => word(Some(&format!("{}/{}", candidate.os, candidate.arch))),
        "name" => word(Some(&candidate.name)),
        "cpu" => amount(u128::from(candidate.cpu_millis)),
        "memory" => amount(u128::from(candidate.memory_bytes) * 1000),
        label => {
            let key = label.strip_prefix("label.").unwrap_or(label);
            word(candidate.labels.get(key).map(String::as_str))
        }
    }
}

/// Step 2: whom to ask, at most [`PROBES`].
pub(crate) fn probes(
    spec: &AppSpec,
    fit: &Fit,
    candidates: &[Candidate],
    rng: &mut impl Rng,
) -> Vec<NodeId> {
    let same_app = |node: &NodeId| {
        candidates
            .iter()
            .find(|it| it.node == *node)
            .map_or(0, |it| it.same_app)
    };
    let fewest = fit.fitting.iter().map(same_app).min().unwrap_or(0);
    let wanted = |node: &&NodeId| !spec.placement.spread || same_app(node) == fewest;
    let mut pool: Vec<NodeId> = fit.fitting.iter().filter(wanted).copied().collect();
    if pool.is_empty() {
        return fit.perhaps.iter().take(PROBES).copied().collect();
    }
    let mut chosen = Vec::new();
    while chosen.len() < PROBES && !pool.is_empty() {
        chosen.push(pool.swap_remove(rng.random_range(0..pool.len())));
    }
    chosen
}

/// What a probed node said of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) node: NodeId,
    pub(crate) load_per_mille: u32,
    pub(crate) same_app: u32,
    pub(crate) rtt_us: u64,
}

/// Step 3: the better offer.
pub(crate) fn best(spec: &AppSpec, offers: &[Offer]) -> Option<Offer> {
    let weight = |offer: &Offer| {
        let company = offer.same_app.saturating_mul(SAME_APP_PER_MILLE);
        let spread = if spec.placement.spread {
            offer.same_app
        } else {
            0
        };
        (
            spread,
            offer.load_per_mille.saturating_add(company),
            offer.rtt_us,
            offer.node,
        )
    };
    offers.iter().copied().min_by_key(weight)
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use wire::spec::{Placement, Program, Resources, Restart, Stop};

    use super::*;

    fn candidate(letter: u8) -> Candidate {
        Candidate {
            node: NodeId([letter; 32]),
            name: char::from(letter).to_string(),
            arch: "x86_64".to_string(),
            os: "linux".to_string(),
            labels: BTreeMap::new(),
            availability: Availability::Open,
            cpu_millis: 4000,
            cpu_free_millis: 4000,
            memory_bytes: 8 << 30,
            memory_free_bytes: 8 << 30,
            same_app: 0,
            refused: None,
        }
    }

    fn spec(constraint: &str) -> AppSpec {
        let constraints = constraint.split(',').filter(|it| !it.is_empty());
        AppSpec {
            name: "web".to_string(),
            replicas: 1,
            program: Program::default(),
            ports: BTreeMap::new(),
            resources: Resources {
                cpu_millis: 1000,
                memory_bytes: 1 << 30,
                processes: 1,
            },
            restart: Restart::No,
            placement: Placement {
                host: None,
                constraints: constraints
                    .map(|it| it.parse().expect("a constraint"))
                    .collect(),
                spread: false,
            },
            stop: Stop::default(),
            remove_when_done: false,
            on_partition: wire::spec::OnPartition::Available,
            health: None,
            after: Default::default(),
            schedule: None,
            deadline_ms: None,
        }
    }

    #[test]
    fn constraints_hold_or_not() {
        let mut node = candidate(b'a');
        node.labels.insert("disk".to_string(), "ssd".to_string());
        let check = |text: &str, expect: bool| {
            let constraint = text.parse().expect("a constraint");
            assert_eq!(holds(&constraint, &node), expect, "{text}");
        };
        check("arch=x86_64", true);
        check("arch!=x86_64", false);
        check("label.disk=ssd", true);
        check("label.disk=hdd", false);
        check("label.site!=home", true);
        check("memory>=8G", true);
        check("memory>8G", false);
        check("cpu<4", false);
        check("cpu<=4", true);
        check("platform=linux/x86_64", true);
        check("name=a", true);
    }

    #[test]
    fn the_reason_why_nothing_fits_names_counts() {
        let mut full = candidate(b'a');
        full.cpu_free_millis = 500;
        let mut draining = candidate(b'b');
        draining.availability = Availability::Draining;
        let nodes = [full, draining, candidate(b'c'), candidate(b'd')];
        let fit = filter(&spec("arch=riscv64"), &nodes);
        assert_eq!(fit.explain(), "arch=riscv64 does not hold on 4 of 4");
        let fit = filter(&spec(""), &nodes[..2]);
        assert_eq!(
            fit.explain(),
            "draining on 1 of 2, not 1 cores free on 1 of 2"
        );
        assert_eq!(filter(&spec(""), &nodes).fitting.len(), 2);
    }

    #[test]
    fn every_fitting_node_is_asked_about_equally_often() {
        let nodes: Vec<Candidate> = (b'a'..b'f').map(candidate).collect();
        let fit = filter(&spec(""), &nodes);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut asked: BTreeMap<NodeId, u32> = BTreeMap::new();
        for _ in 0..1000 {
            let chosen = probes(&spec(""), &fit, &nodes, &mut rng);
            assert_eq!(chosen.len(), PROBES);
            assert_ne!(chosen[0], chosen[1]);
            chosen
                .into_iter()
                .for_each(|node| *asked.entry(node).or_insert(0) += 1);
        }
        assert!(
            asked.values().all(|count| (330..470).contains(count)),
            "{asked:?}"
        );
    }

    #[test]
    fn spread_goes_where_fewest_of_the_app_are() {
        let mut nodes: Vec<Candidate> = (b'a'..b'd').map(candidate).collect();
        nodes[0].same_app = 1;
        nodes[1].same_app = 1;
        let mut wish = spec("");
        wish.placement.spread = true;
        let fit = filter(&wish, &nodes);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        assert_eq!(probes(&wish, &fit, &nodes, &mut rng), vec![nodes[2].node]);
    }

    #[test]
    fn the_less_busy_offer_wins_unless_the_app_is_there_already() {
        let offer = |letter: u8, load_per_mille, same_app| Offer {
            node: NodeId([letter; 32]),
            load_per_mille,
            same_app,
            rtt_us: 0,
        };
        let check = |a: Offer, b: Offer, expect: Offer| {
            assert_eq!(best(&spec(""), &[a, b]), Some(expect));
        };
        let (idle, busy) = (offer(1, 100, 0), offer(2, 300, 0));
        check(idle, busy, idle);
        let company = offer(1, 100, 1);
        check(company, busy, busy);
    }
}

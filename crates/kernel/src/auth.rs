//! Authentication: who belongs to the cloud, from signed statements.
//!
//! What it is not: it holds no key and signs nothing, and it does not yet know people.
//!
//! # The rules
//!
//! A [`Statement`] says that a node is admitted or removed. Statements only ever get more, and
//! membership follows from the set of them, whatever their order:
//!
//! - A node is *rooted* when a chain of admissions leads from the cloud key to it. A link of the
//!   chain whose signer was removed holds only for the nodes that a removal of the signer *keeps*.
//! - A removal counts when its signer is the cloud key or was ever admitted. Whoever is removed
//!   stays out for good.
//! - Members are those that are rooted and not removed.
//!
//! Anybody can sign a statement. One *counts* when its signer is the cloud key or was ever rooted.
//! The others are kept, because what they hang on may be yet to come, but only where there is room:
//! one that counts takes the place of one that does not.
//!
//! So nothing that a removed node signs afterwards counts, however it is dated; and those that it
//! had admitted before stay, its remover among them.
//!
//! A ticket is a signed right to join. Whoever admits with it counts its uses: the number of nodes
//! whose admission names it, so the count is as durable as membership itself. Two members that do
//! not hear of each other can each let one in.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::vec::Vec;

use ed25519_dalek::{Signature as Ed25519Signature, VerifyingKey};
use wire::call::{Problem, ProblemCode};
use wire::id::{CloudId, NodeId, TicketId, UnixMillis};
use wire::peer::{Signature, Statement, StatementBody, Ticket};

use crate::limits::NODES_MAX;

/// Statements of one kind kept for one node.
const STATEMENTS_PER_NODE_MAX: usize = 8;

/// Who belongs to the cloud.
#[derive(Debug)]
pub(crate) struct Auth {
    cloud: CloudId,
    /// By subject.
    admissions: BTreeMap<NodeId, Vec<Statement>>,
    /// By subject; several signers may say it, each with nodes to keep.
    removals: BTreeMap<NodeId, Vec<Statement>>,
    /// Those with a chain of admissions, whether or not a link was removed; follows from the above.
    ever: BTreeSet<NodeId>,
    /// Follows from the above.
    members: BTreeSet<NodeId>,
}

/// What became of a statement.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Learned {
    /// It was not known; membership may have changed. These had to make room for it.
    New(Vec<Statement>),
    /// It was known, or says nothing new.
    Known,
    /// It was refused, for this reason; nothing changed.
    Refused(&'static str),
}

impl Auth {
    pub(crate) fn new(cloud: CloudId) -> Self {
        Self {
            cloud,
            admissions: BTreeMap::new(),
            removals: BTreeMap::new(),
            ever: BTreeSet::new(),
            members: BTreeSet::new(),
        }
    }

    pub(crate) fn is_member(&self, node: NodeId) -> bool {
        self.members.contains(&node)
    }

    pub(crate) fn is_removed(&self, node: NodeId) -> bool {
        self.removals.contains_key(&node) && !self.members.contains(&node)
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members.iter().copied()
    }

    pub(crate) fn member_count(&self) -> usize {
        self.members.len()
    }

    /// Who signed the admission that counts for `node`; `None` for the cloud key.
    pub(crate) fn admitted_by(&self, node: NodeId) -> Option<NodeId> {
        let signer = self
            .admissions
            .get(&node)?
            .iter()
            .map(|statement| statement.signer);
        signer
            .map(NodeId)
            .find(|signer| self.members.contains(signer))
    }

    pub(crate) fn statements(&self) -> impl Iterator<Item = &Statement> {
        self.admissions
            .values()
            .flatten()
            .chain(self.removals.values().flatten())
    }

    /// Takes in what a peer, the disk or this node itself says.
    pub(crate) fn learn(&mut self, statement: &Statement) -> Learned {
        let (cloud, node, known) = match &statement.body {
            StatementBody::Admission { cloud, node, .. } => (cloud, *node, &self.admissions),
            StatementBody::Removal { cloud, node, .. } => (cloud, *node, &self.removals),
        };
        if *cloud != self.cloud {
            return Learned::Refused("it is about another cloud");
        }
        let same = known.get(&node).map_or(&[][..], Vec::as_slice);
        if same.iter().any(|it| it.signer == statement.signer) {
            return Learned::Known;
        }
        let counts = self.counts(statement);
        let is_crowded = same.len() >= STATEMENTS_PER_NODE_MAX;
        if is_crowded && (!counts || same.iter().all(|it| self.counts(it))) {
            return Learned::Known;
        }
        let is_full = same.is_empty() && known.len() >= NODES_MAX;
        let in_the_way = known
            .iter()
            .find(|(_, all)| is_full && !all.iter().any(|it| self.counts(it)))
            .map(|(node, _)| *node);
        if is_full && (!counts || in_the_way.is_none()) {
            return Learned::Refused("the cloud is full");
        }
        let is_twin = |other: &NodeId| *other != node && other.short_id() == node.short_id();
        let is_admission = matches!(statement.body, StatementBody::Admission { .. });
        if is_admission && self.members.iter().any(is_twin) {
            return Learned::Refused("another node has the same short id");
        }
        if !is_signed(statement) {
            return Learned::Refused("its signature does not fit");
        }
        let least = same.iter().position(|it| !self.counts(it));
        let known = if is_admission {
            &mut self.admissions
        } else {
            &mut self.removals
        };
        let mut evicted = in_the_way
            .and_then(|node| known.remove(&node))
            .unwrap_or_default();
        let same = known.entry(node).or_default();
        if let Some(least) = least.filter(|_| is_crowded) {
            evicted.push(same.remove(least));
        }
        same.push(statement.clone());
        if !is_admission || !self.derive_simply(node, counts) {
            self.derive();
        }
        Learned::New(evicted)
    }

    /// The same as [`Auth::derive`] after one more admission, where nobody was removed and nothing
    /// hangs on the node: so a node that starts in a cloud of thousands does not find out
    /// thousands of times who all the others are. Says whether it was so.
    fn derive_simply(&mut self, node: NodeId, counts: bool) -> bool {
        let mut admissions = self.admissions.values().flatten();
        let is_new = counts && !self.ever.contains(&node);
        if !self.removals.is_empty() || (is_new && admissions.any(|it| it.signer == node.0)) {
            return false;
        }
        if counts {
            self.ever.insert(node);
            self.members.insert(node);
        }
        true
    }

    /// Whether it says anything, as far as is known now.
    fn counts(&self, statement: &Statement) -> bool {
        statement.signer == self.cloud.0 || self.ever.contains(&NodeId(statement.signer))
    }

    /// Nodes that `node` has admitted: who removes it says which of them stay.
    pub(crate) fn admitted_with(&self, node: NodeId) -> Vec<NodeId> {
        let by_it = |all: &Vec<Statement>| all.iter().any(|it| it.signer == node.0);
        let admitted = self.admissions.iter().filter(|(_, all)| by_it(all));
        admitted
            .map(|(node, _)| *node)
            .filter(|node| self.members.contains(node))
            .collect()
    }

    /// Finds out anew who belongs to the cloud.
    fn derive(&mut self) {
        self.ever = self.rooted(|_, _| true);
        let removals: BTreeMap<NodeId, Vec<&[NodeId]>> = self
            .removals
            .iter()
            .map(|(node, all)| {
                let counting = all.iter().filter(|it| self.counts(it));
                (*node, counting.map(kept_by).collect())
            })
            .filter(|(_, all): &(_, Vec<_>)| !all.is_empty())
            .collect();
        let mut members = self.rooted(|signer, subject| {
            let removed = removals.get(&signer);
            removed.is_none_or(|all| all.iter().any(|kept| kept.contains(&subject)))
        });
        members.retain(|node| !removals.contains_key(node));
        self.members = members;
    }

    /// Everybody with a chain of admissions from the cloud key of which every link holds.
    fn rooted(&self, holds: impl Fn(NodeId, NodeId) -> bool) -> BTreeSet<NodeId> {
        let mut rooted = BTreeSet::new();
        loop {
            let before = rooted.len();
            for (node, admissions) in &self.admissions {
                let counts = |it: &Statement| {
                    let signer = NodeId(it.signer);
                    it.signer == self.cloud.0 || (rooted.contains(&signer) && holds(signer, *node))
                };
                if admissions.iter().any(counts) {
                    rooted.insert(*node);
                }
            }
            if rooted.len() == before {
                return rooted;
            }
        }
    }

    /// How many nodes were admitted with this ticket.
    pub(crate) fn ticket_uses(&self, id: TicketId) -> usize {
        let names_it = |it: &Statement| match &it.body {
            StatementBody::Admission { ticket, .. } => *ticket == Some(id) && self.counts(it),
            StatementBody::Removal { .. } => false,
        };
        self.admissions
            .values()
            .filter(|all| all.iter().any(names_it))
            .count()
    }

    /// Whether `node` may join with `ticket` now.
    ///
    /// # Errors
    /// The [`Problem`] to be told to whoever shows it. Nothing has changed.
    pub(crate) fn check_ticket(
        &self,
        ticket: &Ticket,
        node: NodeId,
        now: UnixMillis,
    ) -> Result<(), Problem> {
        let body = &ticket.body;
        let again = "ask a member for a new one: welkin invite";
        let bad = |detail: &str| Err(Problem::new(ProblemCode::BadTicket, detail).remedy(again));
        if body.cloud != self.cloud {
            return bad("the ticket is for another cloud");
        }
        let is_genuine = body
            .signed_bytes()
            .is_ok_and(|bytes| is_signed_by(&body.issuer.0, &bytes, ticket.signature));
        if !is_genuine {
            return bad("the ticket is forged or damaged: its signature does not fit");
        }
        if self.is_removed(node) {
            let detail = "this machine was removed from the cloud, for good";
            return Err(Problem::new(ProblemCode::Forbidden, detail)
                .remedy("to join as a new node, begin with an empty state directory"));
        }
        if !self.is_member(body.issuer) {
            return bad("the node that made the ticket does not belong to the cloud any more");
        }
        if self.is_member(node) {
            return Ok(());
        }
        if now > body.not_after {
            let late_s = now.0.saturating_sub(body.not_after.0) / 1000;
            return bad(&format!("the ticket expired {late_s} s ago"));
        }
        let uses = usize::try_from(body.uses).unwrap_or(usize::MAX);
        if self.ticket_uses(body.id) >= uses {
            return bad(&format!("the ticket is used up: it was good for {uses}"));
        }
        if self
            .members
            .iter()
            .any(|other| other.short_id() == node.short_id())
        {
            return bad("a member has the same short id; make this machine a new key");
        }
        if self.ever.len() >= NODES_MAX {
            return Err(Problem::new(
                ProblemCode::Busy,
                format!("the cloud is full: it has had {NODES_MAX} nodes"),
            ));
        }
        Ok(())
    }
}

fn kept_by(statement: &Statement) -> &[NodeId] {
    match &statement.body {
        StatementBody::Removal { keeps, .. } => keeps,
        StatementBody::Admission { .. } => &[],
    }
}

fn is_signed(statement: &Statement) -> bool {
    let bytes = statement.body.signed_bytes();
    bytes.is_ok_and(|bytes| is_signed_by(&statement.signer, &bytes, statement.signature))
}

/// Strict verification (RFC 8032 section 5.1.7, without cofactor), so that a signature has one form.
fn is_signed_by(key: &[u8; 32], bytes: &[u8], signature: Signature) -> bool {
    VerifyingKey::from_bytes(key).is_ok_and(|key| {
        key.verify_strict(bytes, &Ed25519Signature::from_bytes(&signature.0))
            .is_ok()
    })
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap as Map;
    use alloc::string::String;
    use alloc::vec;

    use ed25519_dalek::{Signer, SigningKey};
    use proptest::prelude::*;
    use wire::peer::TicketBody;

    use super::*;

    fn key(letter: u8) -> SigningKey {
        SigningKey::from_bytes(&[letter; 32])
    }

    fn node(letter: u8) -> NodeId {
        NodeId(key(letter).verifying_key().to_bytes())
    }

    fn cloud() -> CloudId {
        CloudId(node(0).0)
    }

    fn signed(body: StatementBody, by: u8) -> Statement {
        let bytes = body.signed_bytes().expect("encodes");
        let signature = Signature(key(by).sign(&bytes).to_bytes());
        Statement {
            body,
            signer: node(by).0,
            signature,
        }
    }

    /// `by` admits `who`; 0 is the cloud key.
    fn admit(by: u8, who: u8) -> Statement {
        let (cloud, node) = (cloud(), node(who));
        signed(
            StatementBody::Admission {
                cloud,
                node,
                ticket: None,
                at: UnixMillis(1),
            },
            by,
        )
    }

    fn remove(by: u8, who: u8) -> Statement {
        remove_keeping(by, who, &[])
    }

    fn remove_keeping(by: u8, who: u8, keeps: &[u8]) -> Statement {
        let keeps = keeps.iter().map(|it| node(*it)).collect();
        let (cloud, node, at) = (cloud(), node(who), UnixMillis(2));
        signed(
            StatementBody::Removal {
                cloud,
                node,
                keeps,
                at,
            },
            by,
        )
    }

    fn auth(statements: &[Statement]) -> Auth {
        let mut auth = Auth::new(cloud());
        statements.iter().for_each(|statement| {
            auth.learn(statement);
        });
        auth
    }

    fn check(statements: &[Statement], members: &[u8]) {
        let auth = auth(statements);
        let expect: BTreeSet<NodeId> = members.iter().map(|it| node(*it)).collect();
        assert_eq!(auth.members().collect::<BTreeSet<_>>(), expect);
    }

    #[test]
    fn a_chain_from_the_cloud_key_makes_members() {
        check(&[admit(0, 1), admit(1, 2), admit(2, 3)], &[1, 2, 3]);
        check(&[admit(1, 2), admit(0, 1)], &[1, 2]);
        check(&[admit(9, 2)], &[]);
    }

    #[test]
    fn a_removed_node_is_out_for_good() {
        check(&[admit(0, 1), admit(1, 2), remove(1, 2), admit(1, 2)], &[1]);
    }

    #[test]
    fn what_a_removed_node_signed_counts_no_more() {
        check(&[admit(0, 1), admit(1, 2), admit(2, 3), remove(1, 2)], &[1]);
        check(&[admit(0, 1), admit(1, 2), remove(1, 2), admit(2, 3)], &[1]);
    }

    #[test]
    fn whom_a_removed_node_had_admitted_stays_when_its_remover_says_so() {
        let mut statements = vec![admit(0, 1), admit(1, 2), admit(2, 3), admit(3, 4)];
        assert_eq!(auth(&statements).admitted_with(node(2)), [node(3)]);
        statements.push(remove_keeping(1, 2, &[3]));
        check(&statements, &[1, 3, 4]);
        statements.push(admit(2, 5));
        check(&statements, &[1, 3, 4]);
    }

    #[test]
    fn the_founder_can_be_removed_by_whom_it_admitted() {
        let statements = [
            admit(0, 1),
            admit(1, 2),
            admit(1, 3),
            remove_keeping(2, 1, &[2, 3]),
        ];
        check(&statements, &[2, 3]);
    }

    #[test]
    fn a_stranger_removes_nobody() {
        check(&[admit(0, 1), admit(1, 2), remove(9, 2)], &[1, 2]);
    }

    #[test]
    fn a_forged_statement_is_refused() {
        let mut forged = admit(0, 1);
        forged.signer = node(0).0;
        forged.signature = Signature([7; 64]);
        assert!(matches!(
            Auth::new(cloud()).learn(&forged),
            Learned::Refused(_)
        ));
    }

    /// A removal by a stranger says nothing, but eight of them were all that was kept about a node: it
    /// could sign them itself, and nobody could remove it any more.
    #[test]
    fn what_counts_takes_the_place_of_what_does_not() {
        let mut statements = vec![admit(0, 1), admit(1, 2)];
        statements.extend((20..28).map(|stranger| remove(stranger, 2)));
        let mut auth = auth(&statements);
        assert!(auth.is_member(node(2)));
        assert_eq!(auth.learn(&remove(28, 2)), Learned::Known);
        assert!(matches!(auth.learn(&remove(1, 2)), Learned::New(evicted) if evicted.len() == 1));
        assert!(!auth.is_member(node(2)));
        assert_eq!(auth.statements().count(), 2 + 8);
    }

    /// Admissions that strangers had signed of nodes that do not exist filled the cloud.
    #[test]
    fn only_nodes_that_belonged_to_the_cloud_fill_it() {
        let mut auth = auth(&[admit(0, 1)]);
        let stranger = admit(9, 2);
        for number in 1..u16::try_from(NODES_MAX).expect("fits") {
            let [high, low] = number.to_be_bytes();
            let mut other = stranger.clone();
            let mut node = [7; 32];
            node[..2].copy_from_slice(&[high, low]);
            if let StatementBody::Admission { node: of, .. } = &mut other.body {
                *of = NodeId(node);
            }
            auth.admissions.insert(NodeId(node), vec![other]);
        }
        let full = Learned::Refused("the cloud is full");
        assert_eq!(auth.learn(&stranger), full);
        let by_1 = ticket(1, 2, 200_000, cloud());
        assert!(auth.check_ticket(&by_1, node(3), UnixMillis(1)).is_ok());
        assert!(matches!(auth.learn(&admit(1, 3)), Learned::New(evicted) if evicted.len() == 1));
        assert!(auth.is_member(node(3)));
        assert_eq!(auth.admissions.len(), NODES_MAX);
    }

    proptest! {
        // Signatures are slow to check where they are not optimised.
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn membership_does_not_depend_on_the_order(order in Just((0..7).collect::<Vec<usize>>()).prop_shuffle()) {
            let all = [
                admit(0, 1), admit(1, 2), admit(2, 3), admit(3, 4), admit(1, 6), remove_keeping(4, 2, &[3]),
                admit(0, 5),
            ];
            let mut auth = Auth::new(cloud());
            for i in &order {
                auth.learn(&all[*i]);
                // What was found out the short way is what the long way finds.
                let (ever, members) = (auth.ever.clone(), auth.members.clone());
                auth.derive();
                prop_assert_eq!((&auth.ever, &auth.members), (&ever, &members));
            }
            let members: BTreeSet<NodeId> = auth.members().collect();
            prop_assert_eq!(members, [1, 3, 4, 5, 6].map(node).into_iter().collect());
        }
    }

    fn ticket(by: u8, uses: u32, not_after: u64, cloud: CloudId) -> Ticket {
        let body = TicketBody {
            cloud,
            id: TicketId([7; 16]),
            issuer: node(by),
            uses,
            not_after: UnixMillis(not_after),
            labels: Map::new(),
            doors: Vec::new(),
        };
        let bytes = body.signed_bytes().expect("encodes");
        let signature = Signature(key(by).sign(&bytes).to_bytes());
        Ticket { body, signature }
    }

    #[test]
    fn tickets_expire_are_used_up_and_cannot_be_forged() {
        let mut used = admit(1, 2);
        if let StatementBody::Admission { ticket, .. } = &mut used.body {
            *ticket = Some(TicketId([7; 16]));
        }
        let auth = auth(&[admit(0, 1), signed(used.body, 1), admit(0, 8), remove(1, 8)]);
        let check = |ticket: &Ticket, who: u8, expect: &str| {
            let said = auth.check_ticket(ticket, node(who), UnixMillis(100_000));
            assert_eq!(
                said.map_or_else(|problem| problem.detail, |()| String::new()),
                expect
            );
        };
        check(&ticket(1, 2, 200_000, cloud()), 3, "");
        check(
            &ticket(1, 1, 200_000, cloud()),
            3,
            "the ticket is used up: it was good for 1",
        );
        check(&ticket(1, 1, 200_000, cloud()), 2, "");
        check(
            &ticket(1, 2, 90_000, cloud()),
            3,
            "the ticket expired 10 s ago",
        );
        check(
            &ticket(1, 2, 200_000, CloudId([9; 32])),
            3,
            "the ticket is for another cloud",
        );
        let removed = "this machine was removed from the cloud, for good";
        check(&ticket(1, 9, 200_000, cloud()), 8, removed);
        let mut widened = ticket(1, 1, 200_000, cloud());
        widened.body.uses = 100;
        let forged = "the ticket is forged or damaged: its signature does not fit";
        check(&widened, 3, forged);
        let stranger = "the node that made the ticket does not belong to the cloud any more";
        check(&ticket(5, 2, 200_000, cloud()), 3, stranger);
    }
}

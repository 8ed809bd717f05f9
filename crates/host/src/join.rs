//! How a machine becomes a node: it founds a cloud or joins one.
//!
//! What it is not: it judges no ticket and no statement. The members' kernels judge the ticket;
//! this node's kernel checks every statement when it is born. Either way all that is kept is the
//! file `admission` of the state directory, written once everything else is in place, so that an
//! interrupted attempt leaves nothing behind that a second one would mind.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use ed25519_dalek::Signer;
use wire::call::{Problem, ProblemCode};
use wire::id::{CloudId, NodeId};
use wire::peer::{JoinAnswer, JoinRequest, Signature, Statement, StatementBody, Ticket};

use crate::clock;
use crate::home::{Home, HomeError, cloud_of};
use crate::links::BindError;
use crate::links::join::Asker;

/// A cloud that this node now belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The cloud.
    pub cloud: CloudId,
    /// This node.
    pub node: NodeId,
    /// The name that it goes by.
    pub name: String,
    /// How many other nodes it was told of.
    pub others: usize,
}

/// A door that did not open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedDoor {
    /// The member.
    pub node: NodeId,
    /// Where it was looked for.
    pub addresses: Vec<String>,
    /// What happened, as a sentence.
    pub reason: String,
}

/// Why this machine belongs to no cloud now. Nothing was kept.
#[derive(Debug)]
pub enum JoinError {
    /// The state directory cannot be used.
    Home(HomeError),
    /// It belongs to a cloud already.
    AlreadyMember(CloudId),
    /// The text is no ticket.
    BadTicket(wire::DecodeError),
    /// The ticket's time is over, by the clock of this machine.
    Expired {
        /// How long ago, in seconds.
        ago_s: u64,
    },
    /// No socket for links could be opened.
    Bind(BindError),
    /// None of the members that the ticket names answered.
    NoDoor(Vec<ClosedDoor>),
    /// The cloud does not want this machine.
    Refused(Problem),
    /// The answer does not admit this machine to the ticket's cloud.
    Nonsense {
        /// Who gave it.
        node: NodeId,
    },
    /// Something of ours cannot be written down.
    Encode(wire::DecodeError),
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Home(error) => error.fmt(f),
            Self::AlreadyMember(cloud) => write!(
                f,
                "this machine already belongs to cloud {}; remove it there first with \
                 `welkin node rm`, then delete its state directory",
                cloud.short()
            ),
            Self::BadTicket(error) => write!(
                f,
                "this is not a whole ticket: {error}; copy all of the line that \
                 `welkin invite` printed"
            ),
            Self::Expired { ago_s } => write!(
                f,
                "the ticket expired {} ago; ask for a new one: `welkin invite` on any node",
                Ago(*ago_s)
            ),
            Self::Bind(error) => error.fmt(f),
            Self::NoDoor(doors) => {
                f.write_str("none of the nodes that the ticket names answers over UDP: ")?;
                for (place, door) in doors.iter().enumerate() {
                    let separator = if place == 0 { "" } else { ", " };
                    let (node, addresses) = (door.node.short(), door.addresses.join(" or "));
                    write!(f, "{separator}{node} at {addresses} ({})", door.reason)?;
                }
                f.write_str("; check that they are up and that no firewall is in between")
            }
            Self::Refused(problem) => problem.fmt(f),
            Self::Nonsense { node } => write!(
                f,
                "node {} answered, but does not admit this machine to the ticket's cloud; \
                 do not trust it",
                node.short()
            ),
            Self::Encode(error) => write!(f, "the request is too long: it {error}"),
        }
    }
}

impl std::error::Error for JoinError {}

impl From<HomeError> for JoinError {
    fn from(error: HomeError) -> Self {
        Self::Home(error)
    }
}

impl From<BindError> for JoinError {
    fn from(error: BindError) -> Self {
        Self::Bind(error)
    }
}

struct Ago(u64);

impl fmt::Display for Ago {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            seconds @ 0..120 => write!(f, "{seconds} seconds"),
            seconds @ 120..7200 => write!(f, "{} minutes", seconds / 60),
            seconds @ 7200..172_800 => write!(f, "{} hours", seconds / 3600),
            seconds => write!(f, "{} days", seconds / 86_400),
        }
    }
}

/// Makes a new cloud with this node as its only member, called `name` or after its host.
///
/// # Errors
/// [`JoinError`]: it belongs to one already, or the state directory cannot be written.
pub fn found(home: &Home, name: Option<&str>) -> Result<Joined, JoinError> {
    refuse_members(home)?;
    let name = name.map_or_else(crate::measure::host_name, ToOwned::to_owned);
    let key = home.cloud_key()?;
    let cloud = CloudId(key.verifying_key().to_bytes());
    let node = home.node();
    let body = StatementBody::Admission {
        cloud,
        node,
        ticket: None,
        at: clock::wall(),
    };
    let signed = body.signed_bytes().map_err(JoinError::Encode)?;
    let statement = Statement {
        body,
        signer: cloud.0,
        signature: Signature(key.sign(&signed).to_bytes()),
    };
    home.keep_admission(&JoinAnswer::Admitted {
        name: name.clone(),
        labels: BTreeMap::new(),
        statements: vec![statement],
        facts: Vec::new(),
    })?;
    Ok(Joined {
        cloud,
        node,
        name,
        others: 0,
    })
}

/// Asks the doors of a ticket, one after the other, until one answers.
///
/// # Errors
/// [`JoinError`].
pub async fn join(
    home: &Home,
    ticket: &str,
    name: Option<&str>,
    listen: &[SocketAddr],
) -> Result<Joined, JoinError> {
    refuse_members(home)?;
    let ticket = Ticket::from_text(ticket).map_err(JoinError::BadTicket)?;
    let late_ms = clock::wall().0.saturating_sub(ticket.body.not_after.0);
    if late_ms > 0 {
        return Err(JoinError::Expired {
            ago_s: late_ms / 1000,
        });
    }
    let name = name.map_or_else(crate::measure::host_name, ToOwned::to_owned);
    let request = JoinRequest { ticket, name };
    let asker = Asker::bind(home.key(), listen).await?;
    let asked = ask_doors(home, &asker, &request).await;
    asker.close().await;
    let (answer, joined) = asked?;
    home.keep_admission(&answer)?;
    Ok(joined)
}

fn refuse_members(home: &Home) -> Result<(), JoinError> {
    if home.is_member() {
        return Err(JoinError::AlreadyMember(home.admission()?.cloud));
    }
    Ok(())
}

async fn ask_doors(
    home: &Home,
    asker: &Asker,
    request: &JoinRequest,
) -> Result<(JoinAnswer, Joined), JoinError> {
    let mut closed = Vec::new();
    for door in &request.ticket.body.doors {
        let reason = match asker.ask(door, request).await {
            Ok(answer @ JoinAnswer::Admitted { .. }) => {
                return accept(home, request.ticket.body.cloud, door.node, answer);
            }
            // Another door may know better; all else is the cloud's word.
            Ok(JoinAnswer::Refused(problem)) => match problem.code {
                ProblemCode::Busy | ProblemCode::Unreachable | ProblemCode::TimedOut => {
                    problem.to_string()
                }
                ProblemCode::Invalid
                | ProblemCode::NotFound
                | ProblemCode::Ambiguous
                | ProblemCode::Conflict
                | ProblemCode::NoFit
                | ProblemCode::Forbidden
                | ProblemCode::BadTicket
                | ProblemCode::NotStarted { .. }
                | ProblemCode::Internal => return Err(JoinError::Refused(problem)),
            },
            Err(reason) => reason,
        };
        closed.push(ClosedDoor {
            node: door.node,
            addresses: door.addresses.clone(),
            reason,
        });
    }
    Err(JoinError::NoDoor(closed))
}

/// Looks whether the answer is about this node and the ticket's cloud; the kernel checks the rest.
fn accept(
    home: &Home,
    cloud: CloudId,
    door: NodeId,
    answer: JoinAnswer,
) -> Result<(JoinAnswer, Joined), JoinError> {
    let nonsense = JoinError::Nonsense { node: door };
    let JoinAnswer::Admitted {
        name,
        statements,
        facts,
        labels: _,
    } = &answer
    else {
        return Err(nonsense);
    };
    let node = home.node();
    if cloud_of(statements, node) != Some(cloud) {
        return Err(nonsense);
    }
    let joined = Joined {
        cloud,
        node,
        name: name.clone(),
        others: facts.iter().filter(|facts| facts.node != node).count(),
    };
    Ok((answer, joined))
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Verifier, VerifyingKey};

    use super::*;

    #[test]
    fn a_founder_is_admitted_by_the_key_of_its_cloud() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::open(directory.path()).unwrap();
        let founded = found(&home, None).unwrap();
        let admission = home.admission().unwrap();
        assert_eq!(admission.cloud, founded.cloud);
        let JoinAnswer::Admitted { statements, .. } = admission.answer else {
            panic!("an admission was expected");
        };
        let statement = &statements[0];
        assert_eq!(statement.signer, founded.cloud.0);
        let key = VerifyingKey::from_bytes(&founded.cloud.0).unwrap();
        let signature = ed25519_dalek::Signature::from_bytes(&statement.signature.0);
        key.verify(&statement.body.signed_bytes().unwrap(), &signature)
            .unwrap();
        assert!(matches!(
            found(&home, None),
            Err(JoinError::AlreadyMember(_))
        ));
    }

    /// A door that added an admission of its own made the node wake up in another cloud than the
    /// one whose ticket it held.
    #[test]
    fn an_answer_that_admits_to_two_clouds_is_nonsense() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::open(directory.path()).unwrap();
        let admission = |cloud: u8| Statement {
            body: StatementBody::Admission {
                cloud: CloudId([cloud; 32]),
                node: home.node(),
                ticket: None,
                at: wire::id::UnixMillis(1),
            },
            signer: [cloud; 32],
            signature: Signature([0; 64]),
        };
        let answer = |clouds: &[u8]| JoinAnswer::Admitted {
            name: "a".to_owned(),
            labels: BTreeMap::new(),
            statements: clouds.iter().map(|cloud| admission(*cloud)).collect(),
            facts: Vec::new(),
        };
        let check = |clouds: &[u8]| {
            let door = NodeId([7; 32]);
            accept(&home, CloudId([5; 32]), door, answer(clouds)).is_ok()
        };
        assert!(check(&[5]) && check(&[5, 5]));
        assert!(!check(&[6, 5]) && !check(&[5, 6]) && !check(&[]));
        home.keep_admission(&answer(&[6, 5])).unwrap();
        assert!(home.admission().is_err());
    }

    #[tokio::test]
    async fn a_text_that_is_no_ticket_is_refused_before_anything_is_sent() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::open(directory.path()).unwrap();
        let error = join(&home, "hello", None, &[]).await.unwrap_err();
        assert!(error.to_string().contains("welkin1-"), "{error}");
        assert!(!home.is_member());
    }
}

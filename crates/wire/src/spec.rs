//! What a person asks for: the specification of an app.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::health::Health;
use crate::job::Schedule;

/// Longest name of an app, a node, a port or a label: one DNS label (RFC 1035 section 2.3.4).
pub const NAME_CHARACTERS_MAX: usize = 63;
/// Most replicas of one app.
pub const REPLICAS_MAX: u32 = 10_000;
/// Most apps after which one comes.
pub const AFTER_MAX: usize = 16;
/// Longest specification as JSON.
pub const SPEC_BYTES_MAX: usize = 256 * 1024;

/// An app as it should be. The cloud makes it so and keeps it so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AppSpec {
    /// Unique in the cloud; see [`check_name`].
    pub name: String,
    /// How many objects carry the app out.
    #[serde(default = "one")]
    pub replicas: u32,
    /// What each object runs.
    pub program: Program,
    /// Named TCP ports on which the program listens.
    #[serde(default)]
    pub ports: BTreeMap<String, u16>,
    /// What each object may use.
    #[serde(default)]
    pub resources: Resources,
    /// What happens when the program ends.
    #[serde(default)]
    pub restart: Restart,
    /// Where objects may be.
    #[serde(default)]
    pub placement: Placement,
    /// How the program is asked to end.
    #[serde(default)]
    pub stop: Stop,
    /// Forget the app once its program has ended and nobody looks at it.
    #[serde(default)]
    pub remove_when_done: bool,
    /// What each side of a partition does.
    #[serde(default)]
    pub on_partition: OnPartition,
    /// How it is found out whether an object does its work; it is not when absent.
    #[serde(default)]
    pub health: Option<Box<Health>>,
    /// Names of apps: none of its objects is placed for the first time until each of these has come
    /// up; see `docs/protocols/placing.md`.
    #[serde(default)]
    pub after: BTreeSet<String>,
    /// When it runs; at once and, as its restart policy says, for ever when absent. It has one
    /// object then, a new one for each run.
    #[serde(default)]
    pub schedule: Option<Schedule>,
    /// A program that runs longer is asked to end, and has failed; in thousandths of a second,
    /// without limit when absent.
    #[serde(default)]
    pub deadline_ms: Option<u64>,
}

fn one() -> u32 {
    1
}

impl AppSpec {
    /// Whether objects of both run the same, so that one need not be replaced to become the other.
    /// How many there are, where they may be and what happens when they end is not part of it.
    #[must_use]
    pub fn runs_like(&self, other: &Self) -> bool {
        self.program == other.program
            && self.ports == other.ports
            && self.resources == other.resources
            && self.stop == other.stop
            && self.health == other.health
            && self.deadline_ms == other.deadline_ms
    }
}

/// What each side of a partition does with an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum OnPartition {
    /// It keeps the wanted count alive; the surplus is retired after the heal.
    #[default]
    Available,
    /// At most one object a slot runs in the whole cloud: only the side with most of the app's
    /// guardians may start one, and one that loses sight of them is frozen, then killed.
    Once {
        /// Within so many thousandths of a second after the machine of an object has died, another
        /// one runs; see `docs/protocols/once.md`.
        #[serde(default = "takeover_ms")]
        takeover_ms: u32,
    },
}

/// Shortest and longest [`AppSpec::deadline_ms`].
pub const DEADLINE_MS_RANGE: core::ops::RangeInclusive<u64> = 1_000..=366 * 86_400_000;
/// Usual [`OnPartition::Once::takeover_ms`].
pub const TAKEOVER_MS: u32 = 15_000;
/// Shortest and longest: below, a slow link would stop objects; above, nobody would wait.
pub const TAKEOVER_MS_RANGE: core::ops::RangeInclusive<u32> = 6_000..=3_600_000;
/// Most objects of an app that never runs twice: each is renewed every few seconds.
pub const ONCE_REPLICAS_MAX: u32 = 64;

fn takeover_ms() -> u32 {
    TAKEOVER_MS
}

/// A program and what it is given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// The program (looked up in `PATH` of the object) and its arguments.
    pub arguments: Vec<String>,
    /// Environment added to the small default one.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Working directory; `/` when absent.
    #[serde(default)]
    pub directory: Option<String>,
    /// User to run as, a name or `uid[:gid]` on the node; the node's own user when absent.
    #[serde(default)]
    pub user: Option<String>,
    /// Give the program a terminal.
    #[serde(default)]
    pub terminal: bool,
    /// Keep standard input open for whoever attaches; otherwise it is empty.
    #[serde(default)]
    pub stdin: bool,
}

/// What one object may use. Requests are reservations and limits at once, so that nobody is
/// promised what somebody else holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    /// Thousandths of a core; 0 takes what is left over.
    pub cpu_millis: u32,
    /// Memory in bytes; 0 is not limited.
    pub memory_bytes: u64,
    /// Most processes and threads.
    pub processes: u32,
}

impl Resources {
    /// The cores as people write them: `0.5`.
    #[must_use]
    pub fn cores(&self) -> String {
        let (whole, thousandths) = (self.cpu_millis / 1000, self.cpu_millis % 1000);
        let text = alloc::format!("{whole}.{thousandths:03}");
        text.trim_end_matches('0').trim_end_matches('.').to_string()
    }
}

impl Default for Resources {
    fn default() -> Self {
        Self {
            cpu_millis: 0,
            memory_bytes: 0,
            processes: 4096,
        }
    }
}

/// What happens when the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// It has ended.
    #[default]
    No,
    /// It is started again after a failure.
    OnFailure {
        /// At most this often in a row; without limit when absent.
        retries_max: Option<u32>,
    },
    /// It is started again whatever happened, elsewhere if its node is lost.
    Always,
}

/// Where objects may be.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Placement {
    /// Only this node: its name or a prefix of its id.
    pub host: Option<String>,
    /// All of these must hold.
    pub constraints: Vec<Constraint>,
    /// Prefer nodes that hold fewer objects of this app, even when they are busier.
    pub spread: bool,
}

/// How the program is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Stop {
    /// Signal number sent first.
    pub signal: u8,
    /// How long it may take before it is killed.
    pub grace_ms: u32,
}

impl Default for Stop {
    fn default() -> Self {
        Self {
            signal: 15,
            grace_ms: 10_000,
        }
    }
}

/// One condition on a node, such as `memory>=8G` or `label.disk=ssd`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(try_from = "ConstraintText", into = "ConstraintText")]
pub struct Constraint {
    /// What is compared: `arch`, `os`, `name`, `cpu`, `memory`, `label.KEY`.
    pub attribute: String,
    /// How.
    pub operator: Operator,
    /// With what, as written.
    pub value: String,
}

/// A constraint as people write it; its form in JSON and between nodes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct ConstraintText(String);

impl TryFrom<ConstraintText> for Constraint {
    type Error = ConstraintError;
    fn try_from(text: ConstraintText) -> Result<Self, ConstraintError> {
        text.0.parse()
    }
}

impl From<Constraint> for ConstraintText {
    fn from(constraint: Constraint) -> Self {
        Self(constraint.to_string())
    }
}

/// How a constraint compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `>=`
    AtLeast,
    /// `<=`
    AtMost,
    /// `>`
    More,
    /// `<`
    Less,
}

/// Longest first, so that `>=` is not read as `>`.
const OPERATORS: [(&str, Operator); 6] = [
    ("!=", Operator::NotEqual),
    (">=", Operator::AtLeast),
    ("<=", Operator::AtMost),
    ("=", Operator::Equal),
    (">", Operator::More),
    ("<", Operator::Less),
];

/// Attributes whose values are amounts.
pub const AMOUNT_ATTRIBUTES: [&str; 2] = ["cpu", "memory"];
/// Attributes whose values are words; labels (`label.KEY`) are words too.
pub const WORD_ATTRIBUTES: [&str; 4] = ["arch", "os", "name", "platform"];

/// Why a text is not a constraint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConstraintError {
    /// There is no operator in it.
    NoOperator(String),
    /// Nothing is known by that name.
    UnknownAttribute(String),
    /// An amount was expected.
    NotAnAmount {
        /// What is compared.
        attribute: String,
        /// What was written.
        value: String,
    },
    /// Words have no order.
    NoOrder(String),
}

impl fmt::Display for ConstraintError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoOperator(text) => {
                write!(
                    f,
                    "`{text}` is not a constraint: write for example memory>=8G"
                )
            }
            Self::UnknownAttribute(attribute) => write!(
                f,
                "no node attribute is called `{attribute}`: use arch, os, platform, name, cpu, \
                 memory or label.KEY"
            ),
            Self::NotAnAmount { attribute, value } => {
                write!(
                    f,
                    "`{value}` is not an amount of {attribute}: write for example 0.5 or 8G"
                )
            }
            Self::NoOrder(attribute) => {
                write!(
                    f,
                    "{attribute} is a word: it can only be = or != to another"
                )
            }
        }
    }
}

impl core::error::Error for ConstraintError {}

impl FromStr for Constraint {
    type Err = ConstraintError;
    fn from_str(text: &str) -> Result<Self, ConstraintError> {
        let found = OPERATORS
            .iter()
            .filter_map(|(sign, operator)| Some((text.find(sign)?, *sign, *operator)))
            .min_by_key(|(at, sign, _)| (*at, core::cmp::Reverse(sign.len())));
        let Some((_, sign, operator)) = found else {
            return Err(ConstraintError::NoOperator(text.trim().to_string()));
        };
        let (attribute, value) = text.split_once(sign).unwrap_or((text, ""));
        let (attribute, value) = (attribute.trim().to_string(), value.trim().to_string());
        if AMOUNT_ATTRIBUTES.contains(&attribute.as_str()) {
            if parse_amount(&value).is_none() {
                return Err(ConstraintError::NotAnAmount { attribute, value });
            }
        } else if WORD_ATTRIBUTES.contains(&attribute.as_str()) || attribute.starts_with("label.") {
            if !matches!(operator, Operator::Equal | Operator::NotEqual) {
                return Err(ConstraintError::NoOrder(attribute));
            }
        } else {
            return Err(ConstraintError::UnknownAttribute(attribute));
        }
        Ok(Self {
            attribute,
            operator,
            value,
        })
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.operator {
            Operator::Equal => "=",
            Operator::NotEqual => "!=",
            Operator::AtLeast => ">=",
            Operator::AtMost => "<=",
            Operator::More => ">",
            Operator::Less => "<",
        };
        write!(f, "{}{sign}{}", self.attribute, self.value)
    }
}

/// An amount in thousandths of its unit: `0.5` is 500, `8G` is 8 * 2^30 * 1000.
///
/// Suffixes are powers of 1024 (`K`, `M`, `G`, `T`, with or without `i` and `B`). `None` when it
/// is not a number, is negative, or does not fit.
#[must_use]
pub fn parse_amount(text: &str) -> Option<u128> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = (text.get(..digits)?, text.get(digits..)?);
    let factor: u128 = match suffix.trim().to_ascii_uppercase().trim_end_matches('B') {
        "" => 1,
        "K" | "KI" => 1 << 10,
        "M" | "MI" => 1 << 20,
        "G" | "GI" => 1 << 30,
        "T" | "TI" => 1 << 40,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: u128 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let mut thousandths: u128 = 0;
    for (digit, weight) in fraction.bytes().zip([100_u128, 10, 1]) {
        let digit = u128::from(digit.checked_sub(b'0')?);
        thousandths = thousandths.checked_add(digit.checked_mul(weight)?)?;
    }
    let amount = whole
        .checked_mul(1000)?
        .checked_add(thousandths)?
        .checked_mul(factor)?;
    (amount < 1 << 80).then_some(amount)
}

/// What is wrong with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameError;

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a name is 1 to {NAME_CHARACTERS_MAX} lower-case letters, digits and dashes, and \
             begins and ends with a letter or a digit"
        )
    }
}

impl core::error::Error for NameError {}

/// Whether `name` can name an app, a node, a port or a label key: one lower-case DNS label, so
/// that names can be resolved as they are.
///
/// # Errors
/// [`NameError`], which says what a name looks like.
pub fn check_name(name: &str) -> Result<(), NameError> {
    let letter = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let edges = name.bytes().next().is_some_and(letter) && name.bytes().last().is_some_and(letter);
    let inside = name.bytes().all(|c| letter(c) || c == b'-');
    if edges && inside && name.len() <= NAME_CHARACTERS_MAX {
        Ok(())
    } else {
        Err(NameError)
    }
}

//! The wish for one app as if there were one copy of it and calls came one after the other: what
//! histories are held against.

use stateright::semantics::SequentialSpec;
use wire::call::Expected;
use wire::id::Version;

/// What a caller asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    /// `app/apply`. No two have the same `tag`.
    Apply {
        tag: u32,
        replicas: u32,
        expected: Expected,
    },
    /// `app/scale`.
    Scale(u32),
    /// `app/stop`.
    Stop,
    /// `app/start`.
    Start,
    /// `app/remove`.
    Remove,
    /// `app/inspect`.
    Inspect,
}

/// What a caller hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is so, as of this version where the answer says one.
    Written(Option<Version>),
    /// It is not what was expected.
    Refused,
    /// There is no such app.
    Absent,
    /// This is what it is to be.
    Found(Wish, Version),
}

/// What an app is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Wish {
    pub(crate) tag: u32,
    pub(crate) replicas: u32,
    pub(crate) stopped: bool,
}

/// The one copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Register {
    wish: Option<Wish>,
    /// Of the wish, once an answer has told it.
    version: Option<Version>,
    /// The newest version that an answer has told. Versions only grow.
    newest: Version,
}

impl Register {
    /// Carries `op` out; without an answer, with the effect that it may have had. Says whether it
    /// can have been answered so.
    pub(crate) fn step(&mut self, op: &Op, answer: Option<&Answer>) -> bool {
        match answer {
            None => {
                self.write(op);
                true
            }
            Some(Answer::Written(version)) => {
                self.write(op) && version.is_none_or(|it| self.is_of(it))
            }
            Some(Answer::Refused) => match *op {
                Op::Apply { expected, .. } => match expected {
                    Expected::Anything => false,
                    Expected::Absent => self.wish.is_some(),
                    Expected::Version(it) => self.wish.is_none() || self.version != Some(it),
                },
                Op::Scale(_) | Op::Stop | Op::Start | Op::Remove | Op::Inspect => false,
            },
            Some(Answer::Absent) => self.wish.is_none() && !matches!(op, Op::Apply { .. }),
            Some(Answer::Found(wish, version)) => {
                *op == Op::Inspect && self.wish == Some(*wish) && self.is_of(*version)
            }
        }
    }

    /// What a call changes; whether it can change anything.
    fn write(&mut self, op: &Op) -> bool {
        let Some(wish) = self.written(op) else {
            return false;
        };
        self.wish = wish;
        self.version = None;
        true
    }

    fn written(&mut self, op: &Op) -> Option<Option<Wish>> {
        Some(match *op {
            Op::Apply {
                tag,
                replicas,
                expected,
            } => {
                let is_expected = match expected {
                    Expected::Anything => true,
                    Expected::Absent => self.wish.is_none(),
                    Expected::Version(it) => self.wish.is_some() && self.is_of(it),
                };
                let stopped = self.wish.is_some_and(|it| it.stopped);
                let wish = Wish {
                    tag,
                    replicas,
                    stopped,
                };
                Some(is_expected.then_some(wish)?)
            }
            Op::Scale(replicas) => Some(Wish {
                replicas,
                ..self.wish?
            }),
            Op::Stop | Op::Start => Some(Wish {
                stopped: *op == Op::Stop,
                ..self.wish?
            }),
            Op::Remove => {
                self.wish?;
                None
            }
            Op::Inspect => return None,
        })
    }

    /// Whether the wish can have this version, which it then has.
    fn is_of(&mut self, version: Version) -> bool {
        match self.version {
            Some(known) => known == version,
            None if version <= self.newest => false,
            None => {
                self.version = Some(version);
                self.newest = version;
                true
            }
        }
    }
}

/// For stateright's tester. What was asked and not answered has its effect at any time, or never.
impl SequentialSpec for Register {
    type Op = Op;
    type Ret = Option<Answer>;

    fn invoke(&mut self, op: &Op) -> Option<Answer> {
        self.write(op);
        None
    }

    fn is_valid_step(&mut self, op: &Op, answer: &Option<Answer>) -> bool {
        self.step(op, answer.as_ref())
    }
}

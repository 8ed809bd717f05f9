//! A removed node never counts again.
//!
//! Removal is signed and for good (`kernel::auth`, the rules): once a kernel has closed its links
//! to a node, it says nothing to it and does not link it again.

use kernel::world::Output;
use wire::id::NodeId;
use wire::peer::{MESSAGE_BYTES_MAX, Message};

use super::{Seen, Watch};
use crate::world::{MachineId, World};

/// See the module.
#[derive(Debug)]
pub(super) struct Expelled;

impl Watch for Expelled {
    fn name(&self) -> &'static str {
        "expelled"
    }

    fn see(&mut self, world: &World, machine: MachineId, seen: &Seen<'_>) -> Option<String> {
        let Seen::Output(output) = seen else {
            return None;
        };
        let to: NodeId = match output {
            Output::Datagram { to, .. } | Output::Message { to, .. } => *to,
            Output::Peer { node, .. } => *node,
            Output::Persist { .. }
            | Output::Reply { .. }
            | Output::AnswerJoin { .. }
            | Output::Launch(_)
            | Output::Stop { .. }
            | Output::Tenure { .. }
            | Output::Signal { .. }
            | Output::Discard { .. }
            | Output::Measure { .. }
            | Output::Probe { .. }
            | Output::Sign { .. }
            | Output::Lines { .. }
            | Output::Expel { .. }
            | Output::Event(_)
            | Output::Alarm { .. }
            | Output::Halt => return None,
        };
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the others were sorted out above"
        )]
        let what = match output {
            Output::Peer { .. } => "links",
            Output::Datagram { .. } => "sends a datagram to",
            _ => "sends a message to",
        };
        world.has_expelled(machine, to).then(|| {
            let (name, other) = (world.name(machine), to.short());
            let said = if let Output::Message { bytes, .. } = output {
                let message = wire::decode::<Message>(bytes, MESSAGE_BYTES_MAX);
                message.map_or_else(|error| error.to_string(), |it| format!("{it:?}"))
            } else {
                String::new()
            };
            let said: String = said.chars().take(120).collect();
            format!("{name} {what} {other}, which it has expelled: {said}")
        })
    }
}

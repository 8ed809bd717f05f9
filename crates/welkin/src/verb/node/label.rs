//! `welkin node label`: labels, for constraints.

use clap::Args;
use wire::call::NodeLabel;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::human;
use crate::parse::LabelEdit;
use crate::{flags, manual, output, parse};

/// Set and remove labels of a node
///
/// Labels are for constraints: `welkin run --constraint label.disk=ssd`.
#[derive(Debug, Args)]
#[command(after_help = manual::NODE_LABEL)]
pub(crate) struct Arguments {
    #[command(flatten)]
    node: flags::Node,
    /// KEY=VALUE sets a label, KEY- removes it.
    #[arg(
        required = true,
        value_name = "KEY=VALUE|KEY-",
        value_parser = parse::label_edit
    )]
    edits: Vec<LabelEdit>,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    let node = context.client.call(request(arguments)).await?;
    output::line(&human::or_nothing(human::pairs(&node.labels, '=')))?;
    Ok(0)
}

fn request(arguments: &Arguments) -> NodeLabel {
    let mut request = NodeLabel {
        node: arguments.node.node.clone(),
        set: [].into(),
        remove: Vec::new(),
    };
    for edit in &arguments.edits {
        match edit {
            LabelEdit::Set(key, value) => {
                request.set.insert(key.clone(), value.clone());
            }
            LabelEdit::Remove(key) => request.remove.push(key.clone()),
        }
    }
    request
}

//! `welkin up`: this machine is a node from now on.

use std::time::Duration;

use clap::Args;
use client::CallError;
use wire::call::{CloudInfo, CloudSummary};

use crate::context::Context;
use crate::failure::Failure;
use crate::flags::Founding;
use crate::output::human;
use crate::{daemon, manual, output};

/// How often the node is asked whether the others answer it.
const PATIENCE_TURNS: u32 = 20;
/// The time between two such questions.
const PATIENCE_TURN: Duration = Duration::from_millis(100);

/// Start this node; found a cloud the first time
///
/// The first time, this machine becomes a cloud of its own, which others join with a ticket. Ever
/// after, the node goes on where it was. The command returns once the node serves; the daemon goes
/// on. It is no mistake to type it twice.
#[derive(Debug, Args)]
#[command(after_help = manual::UP)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) founding: Founding,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    let context = &context.own();
    let founding = &arguments.founding;
    match context.client.health().await {
        Ok(()) => {
            let cloud = report(context, "already up").await?;
            without_effect(founding, &cloud.name, true)
                .iter()
                .for_each(|note| output::warn(context.screen, note));
            return Ok(0);
        }
        // A second daemon would only find the directory taken.
        Err(silent @ CallError::Silent { .. }) => return Err(silent.into()),
        Err(CallError::NotUp { .. } | CallError::Problem(_) | CallError::Protocol(_)) => {}
    }
    let resumed = host::home::exists(&context.state_dir);
    daemon::start(context, founding, None).await?;
    let cloud = report(context, "up").await?;
    if context.is_beside_root().await {
        output::warn(
            context.screen,
            "beside it, the node of root is up on this machine",
        );
        let directory = host::home::ROOT_STATE_DIR;
        output::hint(
            context.screen,
            &format!("welkin --state-dir {directory} nodes"),
        );
    }
    if resumed {
        without_effect(founding, &cloud.name, false)
            .iter()
            .for_each(|note| output::warn(context.screen, note));
    } else {
        output::say("a new cloud was founded; to add a machine, make a ticket");
        output::hint(context.screen, "welkin invite");
    }
    Ok(0)
}

/// Is the daemon.
pub(crate) fn serve(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    daemon::serve(context, &arguments.founding, None)
}

/// Says which node is up, and in how large a cloud.
pub(crate) async fn report(context: &Context, state: &str) -> Result<CloudSummary, Failure> {
    let mut cloud = context.client.call(CloudInfo {}).await?;
    // The others need a moment to answer a node that has just come up.
    for _ in 0..PATIENCE_TURNS {
        if cloud.nodes_up == cloud.nodes {
            break;
        }
        tokio::time::sleep(PATIENCE_TURN).await;
        cloud = context.client.call(CloudInfo {}).await?;
    }
    let nodes = human::count(cloud.nodes, "node");
    let text = format!(
        "{} is {state}, in cloud {} ({} of {nodes} up)",
        cloud.name,
        cloud.cloud.short(),
        cloud.nodes_up
    );
    output::say(&text);
    Ok(cloud)
}

/// A note for each flag that a node which was there before does not heed, with what to type instead.
fn without_effect(founding: &Founding, node: &str, runs: bool) -> Vec<String> {
    let mut notes = Vec::new();
    if runs && !founding.listen.is_empty() {
        let addresses = founding.listen.iter();
        let flags: Vec<String> = addresses.map(|it| format!("--listen {it}")).collect();
        let flags = flags.join(" ");
        notes.push(format!(
            "--listen is for the start of a node; welkin down && welkin up {flags}"
        ));
    }
    if runs && founding.no_relay {
        notes.push(
            "--no-relay is for the start of a node; welkin down && welkin up --no-relay".to_owned(),
        );
    }
    if founding.name.as_ref().is_some_and(|name| name != node) {
        notes.push(format!(
            "--name is for a new node; this one stays {node} as long as it is in its cloud"
        ));
    }
    if !founding.labels.is_empty() {
        let labels = founding.labels.iter();
        let edits: Vec<String> = labels
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        notes.push(format!(
            "--label is for a new node; welkin node label {node} {}",
            human::command(&edits)
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        up: Arguments,
    }

    #[test]
    fn a_flag_without_effect_says_what_to_type_instead() {
        let words = "up --name b --label disk=ssd --label x=y --listen 127.0.0.1:0 --no-relay";
        let line = Line::try_parse_from(words.split(' ')).unwrap();
        let founding = line.up.founding;
        let name = "--name is for a new node; this one stays a as long as it is in its cloud";
        let label = "--label is for a new node; welkin node label a disk=ssd x=y";
        assert_eq!(without_effect(&founding, "a", false), [name, label]);
        let listen = "--listen is for the start of a node; \
                      welkin down && welkin up --listen 127.0.0.1:0";
        assert_eq!(
            without_effect(&founding, "b", true),
            [
                listen,
                "--no-relay is for the start of a node; welkin down && welkin up --no-relay",
                "--label is for a new node; welkin node label b disk=ssd x=y"
            ]
        );
    }
}

//! `welkin join`: this machine becomes part of a cloud.

use std::io::Read;

use clap::Args;
use wire::call::CloudInfo;

use crate::context::Context;
use crate::failure::Failure;
use crate::flags::Founding;
use crate::verb::up;
use crate::{cli, daemon, manual};

/// Longest ticket that is read.
const TICKET_BYTES_MAX: u64 = 64 * 1024;

/// Join a cloud with a ticket, and start this node
///
/// The ticket is the line that `welkin invite` prints on a machine of the cloud.
#[derive(Debug, Args)]
#[command(after_help = manual::JOIN)]
pub(crate) struct Arguments {
    /// The ticket, or - to read it from standard input.
    #[arg(value_name = "TICKET")]
    ticket: String,
    #[command(flatten)]
    pub(crate) founding: Founding,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    let context = &context.own();
    refuse_members(context).await?;
    let ticket = ticket(arguments)?;
    daemon::start(context, &arguments.founding, Some(&ticket)).await?;
    up::report(context, "up").await?;
    Ok(0)
}

/// Is the daemon.
pub(crate) fn serve(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    cli::runtime()?.block_on(refuse_members(&context.own()))?;
    daemon::serve(context, &arguments.founding, Some(ticket(arguments)?))
}

/// A ticket for a machine that belongs to a cloud is a mistake, and must not go unnoticed.
async fn refuse_members(context: &Context) -> Result<(), Failure> {
    if !host::home::exists(&context.state_dir) {
        return Ok(());
    }
    let directory = context.state_dir.display();
    let text = format!("this machine already belongs to a cloud ({directory} holds its node)");
    let is_alone = match context.client.health().await {
        Ok(()) => context.client.call(CloudInfo {}).await?.nodes == 1,
        Err(_not_up) => false,
    };
    // A machine that was tried alone first is what most people have who come here.
    Err(Failure::new(text).remedy(if is_alone {
        format!("welkin down; mv {directory} {directory}.old; welkin join TICKET")
    } else {
        "welkin up, to start it; --state-dir DIR, for a second node".to_owned()
    }))
}

fn ticket(arguments: &Arguments) -> Result<String, Failure> {
    let mut ticket = arguments.ticket.clone();
    if ticket == "-" {
        ticket.clear();
        let mut input = std::io::stdin().lock().take(TICKET_BYTES_MAX);
        input.read_to_string(&mut ticket)?;
    }
    let ticket = ticket.trim();
    if ticket.is_empty() {
        return Err(Failure::new("there is no ticket on standard input")
            .remedy("welkin invite, on a machine of the cloud"));
    }
    Ok(ticket.to_owned())
}

//! `welkin invite`: a ticket for another machine.

use std::time::Duration;

use clap::Args;
use wire::call::Invite;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::human;
use crate::output::listing::{Listing, People};
use crate::{flags, manual, output, parse};

/// Make a ticket with which another machine can join
///
/// Prints one line. Whoever has it can join, so keep it as you keep a password.
#[derive(Debug, Args)]
#[command(after_help = manual::INVITE)]
pub(crate) struct Arguments {
    /// How many machines may join with it.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    uses: u32,
    /// How long it is good for.
    #[arg(long, value_name = "TIME", default_value = "1d", value_parser = parse::duration)]
    ttl: Duration,
    /// Label that machines which join with it get; may be given more than once.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse::key_value)]
    labels: Vec<(String, String)>,
    #[command(flatten)]
    output: flags::Output,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    let request = Invite {
        uses: arguments.uses,
        ttl_s: arguments.ttl.as_secs(),
        labels: arguments.labels.iter().cloned().collect(),
    };
    let invitation = context.client.call(request).await?;
    let listing = Listing {
        whole: &invitation,
        items: "",
        names: vec![invitation.ticket.clone()],
        ids: vec![invitation.ticket.clone()],
        people: People::Text(format!("{}\n", invitation.ticket)),
    };
    listing.show(&arguments.output, context.screen)?;
    if !arguments.output.is_for_programs() {
        let machines = human::count(invitation.uses, "machine");
        let time = humantime::format_duration(arguments.ttl);
        let there = if invitation.uses == 1 {
            "there"
        } else {
            "on each"
        };
        output::say(&format!(
            "{machines} may join with it, for {time}; {there}:"
        ));
        output::hint(context.screen, "welkin join TICKET");
    }
    Ok(0)
}

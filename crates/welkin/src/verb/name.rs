//! `welkin name`: addresses of apps.

use clap::{Args, Subcommand};
use wire::call::{Resolve, Resolved};

use crate::context::Context;
use crate::failure::Failure;
use crate::output::human;
use crate::output::listing::{Listing, People};
use crate::output::style::Style;
use crate::output::table::{Column, Table};
use crate::{flags, manual, output};

/// Look names up: resolve
#[derive(Debug, Args)]
#[command(after_help = manual::NAME, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Resolve(ResolveArguments),
}

/// Show where the objects of an app answer
#[derive(Debug, Args)]
#[command(after_help = manual::NAME_RESOLVE)]
struct ResolveArguments {
    #[command(flatten)]
    target: flags::Target,
    #[command(flatten)]
    output: flags::Output,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    match &arguments.verb {
        Verb::Resolve(arguments) => resolve(arguments, context).await,
    }
}

async fn resolve(arguments: &ResolveArguments, context: &Context) -> Result<u8, Failure> {
    let target = arguments.target.target.clone();
    let resolved = context.client.call(Resolve { target }).await?;
    let listing = Listing {
        whole: &resolved,
        items: "endpoints",
        names: resolved
            .endpoints
            .iter()
            .map(|it| it.address.clone())
            .collect(),
        ids: resolved
            .endpoints
            .iter()
            .map(|it| it.object.to_string())
            .collect(),
        people: People::Table(table(&resolved, arguments.output.is_whole())),
    };
    listing.show(&arguments.output, context.screen)?;
    if resolved.endpoints.is_empty() {
        output::say("none of its objects runs");
        output::hint(
            context.screen,
            &format!("welkin explain {}", arguments.target.target),
        );
    }
    Ok(0)
}

fn table(resolved: &Resolved, whole: bool) -> Table {
    let mut table = Table::new(&[
        Column::number("INDEX"),
        Column::text("ID"),
        Column::text("NODE"),
        Column::text("ADDRESS"),
        Column::text("PORTS"),
    ]);
    for endpoint in &resolved.endpoints {
        table.row(
            Style::Plain,
            vec![
                endpoint.index.to_string(),
                human::id(&endpoint.object, endpoint.object.short(), whole),
                endpoint.node.clone(),
                endpoint.address.clone(),
                human::or_nothing(human::pairs(&endpoint.ports, ':')),
            ],
        );
    }
    table
}

//! `welkin explain`: why an app is where it is.

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use wire::call::{Explain, Explanation};

use crate::context::Context;
use crate::failure::Failure;
use crate::output::description::Description;
use crate::output::human;
use crate::output::listing::{Listing, People};
use crate::{clock, completion, flags, manual, schedule};

/// Say why an app is where it is, or is not
#[derive(Debug, Args)]
#[command(after_help = manual::EXPLAIN)]
pub(crate) struct Arguments {
    /// An app.
    #[arg(value_name = "APP", add = ArgValueCompleter::new(completion::apps))]
    app: String,
    #[command(flatten)]
    output: flags::Output,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    let target = arguments.app.clone();
    let explanation = context.client.call(Explain { target }).await?;
    let listing = Listing {
        whole: &explanation,
        items: "",
        names: vec![explanation.name.clone()],
        ids: vec![explanation.name.clone()],
        people: People::Text(describe(&explanation, context.screen.out_colours())),
    };
    listing.show(&arguments.output, context.screen)?;
    Ok(0)
}

fn describe(explanation: &Explanation, colours: bool) -> String {
    let mut text = Description::new(colours);
    text.title(&explanation.name)
        .line("looked after", format!("by {}", explanation.supervisor))
        .line(
            "trouble",
            explanation.trouble.as_deref().unwrap_or_default(),
        )
        .line("state", explanation.waiting.as_deref().unwrap_or_default())
        .line(
            "next run",
            schedule::next_run(explanation.next, clock::now()),
        );
    for (at, run) in explanation.runs.iter().enumerate() {
        let (state, since, _) = schedule::state(run, at == 0);
        let since = human::ago(since, clock::now());
        let skipped = match run.skipped {
            0 => String::new(),
            skipped => format!("; {skipped} skipped meanwhile"),
        };
        text.line(
            &format!("run {}", run.number),
            format!("{state} since {since}{skipped}"),
        );
    }
    for decision in &explanation.decisions {
        let where_to = decision.node.as_deref().unwrap_or("nowhere");
        let when = human::ago(decision.at, clock::now());
        text.title(&format!(
            "{}/{} → {where_to}, {when} ago",
            explanation.name, decision.index
        ));
        for reason in &decision.reasons {
            text.block(reason);
        }
    }
    text.finish()
}

//! `welkin events`: what happened in the cloud.

use clap::Args;
use wire::call::{Event, NodeList};
use wire::id::{NodeId, ObjectId};
use wire::stream::{Open, What};

use crate::context::Context;
use crate::failure::{EXIT_FAILED, Failure};
use crate::flags::Form;
use crate::follow::{Following, Wanted};
use crate::merge::Said;
use crate::output::human;
use crate::output::style::{Style, paint};
use crate::output::template::Template;
use crate::{flags, manual, output, parse};

/// Show what happened in the cloud, on all its nodes
#[derive(Debug, Args)]
#[command(after_help = manual::EVENTS)]
pub(crate) struct Arguments {
    /// Go on with what happens.
    #[arg(short, long)]
    follow: bool,
    /// Only what is newer: 10m, or 2026-03-01T12:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = parse::since)]
    since: Option<u64>,
    #[command(flatten)]
    output: flags::Output,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    let template = arguments
        .output
        .template()
        .map(Template::parse)
        .transpose()?;
    let look = async || look(arguments, context).await;
    let mut reading = Following::new(context, arguments.follow);
    reading.add(look().await?);
    let mut shown = 0_u64;
    loop {
        let entries = reading.next(&look).await?;
        if entries.is_empty() {
            break;
        }
        for (_node, entry) in entries {
            if let Said::Event(json) = entry.what {
                shown += 1;
                output::line(&render(arguments, context, template.as_ref(), &json)?)?;
            }
        }
    }
    if shown == 0 && !reading.failed {
        output::say("nothing happened");
        output::hint(context.screen, "welkin events -f, to wait for what will");
    }
    Ok(if reading.failed { EXIT_FAILED } else { 0 })
}

/// The events of the nodes that are up.
async fn look(arguments: &Arguments, context: &Context) -> Result<Vec<Wanted<NodeId>>, Failure> {
    let nodes = context.client.call(NodeList {}).await?.nodes;
    let up = nodes.into_iter().filter(|it| it.state.is_up());
    let wanted = up.map(|node| Wanted {
        key: node.node,
        open: Open {
            node: node.node,
            object: ObjectId([0; 16]),
            what: What::Events {
                follow: arguments.follow,
                since_ms: arguments.since,
            },
        },
        breaks_off: format!("the events of {} break off", node.name),
        goes_on: true,
    });
    Ok(wanted.collect())
}

fn render(
    arguments: &Arguments,
    context: &Context,
    template: Option<&Template>,
    json: &[u8],
) -> Result<String, Failure> {
    let unlikely = |error: serde_json::Error| Failure::new(error.to_string());
    let event: Event = serde_json::from_slice(json).map_err(unlikely)?;
    if let Some(template) = template {
        return template.fill(&serde_json::to_value(&event).map_err(unlikely)?);
    }
    if arguments.output.quiet {
        return Ok(event.subject);
    }
    match arguments.output.form() {
        // One line for each, so that programs can read them as they come.
        Form::Json => serde_json::to_string(&event).map_err(unlikely),
        Form::Yaml => {
            let text = serde_yaml_ng::to_string(&event);
            let text = text.map_err(|error| Failure::new(error.to_string()))?;
            Ok(format!("---\n{}", text.trim_end()))
        }
        Form::Name => Ok(event.subject),
        Form::Table | Form::Wide => Ok(people(&event, context.screen.out_colours())),
    }
}

fn people(event: &Event, colours: bool) -> String {
    let time = paint(colours, Style::Dim, &human::moment(event.at));
    let Event {
        node,
        kind,
        subject,
        message,
        ..
    } = event;
    let message = message.replace(char::is_control, " ");
    format!("{time}  {node:<12}  {kind:<18}  {subject:<16}  {message}")
        .trim_end()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use wire::id::UnixMillis;

    #[test]
    fn an_event_is_a_line() {
        let event = Event {
            at: UnixMillis(1_000_250),
            node: "atlas".to_owned(),
            kind: "object.started".to_owned(),
            subject: "web/0".to_owned(),
            message: "started\nhere".to_owned(),
        };
        expect!["1970-01-01T00:16:40.250Z  atlas         object.started      web/0             started here"].assert_eq(&people(&event, false));
    }
}

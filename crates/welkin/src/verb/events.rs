//! `welkin events`: what happened in the cloud.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, sleep_until, timeout_at};
use wire::call::{Event, NodeList, NodeSummary};
use wire::id::{NodeId, ObjectId};
use wire::stream::{Open, What};

use crate::context::Context;
use crate::failure::{EXIT_FAILED, Failure};
use crate::flags::Form;
use crate::merge::{Entry, Merge, Said};
use crate::output::human;
use crate::output::style::{Style, paint};
use crate::output::template::Template;
use crate::{flags, manual, output, parse};

/// How often it is looked for nodes that came or came back.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// How long it may be unknown which nodes there are.
const PATIENCE: Duration = Duration::from_secs(60);

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
    let nodes = context.client.call(NodeList {}).await?.nodes;
    let mut reading = Reading::new(arguments, context);
    reading.add(&nodes);
    let mut shown = 0_u64;
    loop {
        let entries = if arguments.follow {
            reading.followed().await?
        } else {
            reading.merge.next().await
        };
        if entries.is_empty() {
            break;
        }
        for entry in entries {
            if let Some(json) = reading.take(entry) {
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

/// The events of one node, being read.
struct Source {
    node: NodeId,
    name: String,
    /// When what was shown last happened, in microseconds since 1970.
    last_us: u64,
}

/// The events of all nodes, being read.
struct Reading<'a> {
    arguments: &'a Arguments,
    context: &'a Context,
    merge: Merge,
    sources: BTreeMap<usize, Source>,
    /// Nodes whose events broke off, and when: to be read again once they are back.
    broken: BTreeMap<NodeId, u64>,
    /// Those of which the reader was told.
    told: BTreeSet<NodeId>,
    /// When it was looked for nodes.
    looked: Instant,
    /// Since when it is not known which there are.
    lost: Option<Instant>,
    failed: bool,
}

impl<'a> Reading<'a> {
    fn new(arguments: &'a Arguments, context: &'a Context) -> Self {
        Self {
            arguments,
            context,
            merge: Merge::new(&context.client, arguments.follow),
            sources: BTreeMap::new(),
            broken: BTreeMap::new(),
            told: BTreeSet::new(),
            looked: Instant::now(),
            lost: None,
            failed: false,
        }
    }

    /// Reads the nodes that are up and not read yet, and those that broke off.
    fn add(&mut self, nodes: &[NodeSummary]) {
        for node in nodes.iter().filter(|it| it.state.is_up()) {
            let broke_off_us = self.broken.remove(&node.node);
            let is_known = self.sources.values().any(|it| it.node == node.node);
            if is_known && broke_off_us.is_none() {
                continue;
            }
            let again_ms = broke_off_us.filter(|it| *it > 0).map(|us| us / 1000 + 1);
            let number = self.merge.add(Open {
                node: node.node,
                object: ObjectId([0; 16]),
                what: What::Events {
                    follow: self.arguments.follow,
                    since_ms: again_ms.or(self.arguments.since),
                },
            });
            let source = Source {
                node: node.node,
                name: node.name.clone(),
                last_us: broke_off_us.unwrap_or(0),
            };
            self.sources.insert(number, source);
        }
    }

    /// What comes next; never empty.
    async fn followed(&mut self) -> Result<Vec<Entry>, Failure> {
        loop {
            let due = self.looked + LOOK_AGAIN;
            if self.merge.living() == 0 {
                sleep_until(due).await;
            } else if let Ok(entries) = timeout_at(due, self.merge.next()).await {
                return Ok(entries);
            }
            self.looked = Instant::now();
            match (self.context.client.call(NodeList {}).await, self.lost) {
                (Ok(answer), _) => {
                    self.lost = None;
                    self.add(&answer.nodes);
                }
                (Err(_silent), None) => self.lost = Some(Instant::now()),
                // What can still be read goes on.
                (Err(error), Some(since))
                    if self.merge.living() == 0 && since.elapsed() > PATIENCE =>
                {
                    return Err(error.into());
                }
                (Err(_silent), Some(_)) => {}
            }
        }
    }

    /// The JSON of an event, if it is one.
    fn take(&mut self, entry: Entry) -> Option<Vec<u8>> {
        let source = self.sources.get_mut(&entry.source)?;
        match entry.what {
            Said::Event(json) => {
                source.last_us = entry.at_us;
                self.told.remove(&source.node);
                return Some(json);
            }
            // Whoever follows is told, and goes on when the node is back.
            Said::Failed(failure) if self.arguments.follow => {
                self.broken.insert(source.node, source.last_us);
                let text = format!(
                    "the events of {} break off, until it is back: {}",
                    source.name, failure.detail
                );
                // A node that is not back yet breaks off again and again.
                if self.told.insert(source.node) {
                    output::warn(self.context.screen, &text);
                }
            }
            Said::Failed(failure) => {
                self.failed = true;
                let text = format!("no more events of {}: {}", source.name, failure.detail);
                output::warn(self.context.screen, &text);
            }
            Said::Ended if self.arguments.follow => {
                self.broken.insert(source.node, source.last_us);
            }
            Said::Log(..) | Said::Ended => {}
        }
        None
    }
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

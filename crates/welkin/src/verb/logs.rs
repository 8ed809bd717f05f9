//! `welkin logs`: what programs wrote, all objects of an app merged by time.

use std::collections::BTreeMap;

use clap::Args;
use client::CallError;
use wire::call::{Locate, Located, ProblemCode};
use wire::fact::ObjectFacts;
use wire::id::ObjectId;
use wire::stream::{Open, What};

use crate::context::{Context, object_name};
use crate::failure::{EXIT_FAILED, Failure};
use crate::follow::{Following, Wanted};
use crate::lines::{Line, Lines};
use crate::merge::Said;
use crate::output::human;
use crate::output::style::{Style, paint};
use crate::{flags, manual, output, parse};

/// Show what programs wrote
///
/// The lines of all objects of an app are merged by time; where there are several objects, each
/// line begins with the name of its own.
#[derive(Debug, Args)]
#[command(after_help = manual::LOGS)]
pub(crate) struct Arguments {
    #[command(flatten)]
    target: flags::Target,
    /// Go on with what is being written.
    #[arg(short, long)]
    follow: bool,
    /// Only the last so many lines of each object, or all.
    #[arg(short = 'n', long, value_name = "N", value_parser = parse::tail)]
    tail: Option<u64>,
    /// Only what is newer: 10m, or 2026-03-01T12:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = parse::since)]
    since: Option<u64>,
    /// Begin each line with its time.
    #[arg(short, long)]
    timestamps: bool,
    /// Do not begin lines with the names of objects.
    #[arg(long)]
    no_prefix: bool,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    let located = locate(arguments, context).await?;
    if located.objects.is_empty() {
        output::say(&format!(
            "{} has no objects, so nothing was written",
            located.name
        ));
        output::hint(context.screen, &format!("welkin explain {}", located.name));
        return Ok(0);
    }
    let mut shown = Shown {
        arguments,
        context,
        labels: BTreeMap::new(),
        lines: Lines::default(),
    };
    shown.note(&located.objects);
    let mut reading = Following::new(context, arguments.follow);
    reading.add(wanted(arguments, &located.objects));
    // An app that was scaled or moved has new objects; one that was removed has none.
    let look = async || match locate(arguments, context).await {
        Ok(located) => Ok(located.objects),
        Err(CallError::Problem(problem)) if problem.code == ProblemCode::NotFound => Ok(Vec::new()),
        Err(error) => Err(Failure::from(error)),
    };
    loop {
        let look = async || {
            let objects = look().await?;
            shown.note(&objects);
            Ok(wanted(arguments, &objects))
        };
        let entries = reading.next(look).await?;
        if entries.is_empty() {
            shown.finish()?;
            return Ok(if reading.failed { EXIT_FAILED } else { 0 });
        }
        for (object, entry) in entries {
            if let Said::Log(stream, bytes) = entry.what {
                shown.take((object, stream), entry.at_us, &bytes)?;
            }
        }
    }
}

async fn locate(arguments: &Arguments, context: &Context) -> Result<Located, CallError> {
    let target = arguments.target.target.clone();
    context.client.call(Locate { target }).await
}

/// The logs of these objects.
fn wanted(arguments: &Arguments, objects: &[ObjectFacts]) -> Vec<Wanted<ObjectId>> {
    let wanted = objects.iter().map(|object| Wanted {
        key: object.object,
        open: Open {
            node: object.node,
            object: object.object,
            what: What::Logs {
                follow: arguments.follow,
                tail_lines: arguments.tail.filter(|lines| *lines < u64::MAX),
                since_ms: arguments.since,
            },
        },
        breaks_off: format!("the log of {} breaks off", object_name(object)),
        goes_on: object.phase.is_alive(),
    });
    wanted.collect()
}

/// Logs being shown.
struct Shown<'a> {
    arguments: &'a Arguments,
    context: &'a Context,
    /// The names and indices of all objects that there were.
    labels: BTreeMap<ObjectId, (String, u32)>,
    lines: Lines,
}

impl Shown<'_> {
    fn note(&mut self, objects: &[ObjectFacts]) {
        let labels = objects
            .iter()
            .map(|it| (it.object, (object_name(it), it.index)));
        self.labels.extend(labels);
    }

    fn take(&mut self, source: (ObjectId, u8), at_us: u64, bytes: &[u8]) -> Result<(), Failure> {
        if self.is_raw() {
            return output::write(bytes);
        }
        for line in self.lines.feed(source, at_us, bytes) {
            self.show(source.0, &line)?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Failure> {
        for ((object, _stream), line) in self.lines.finish() {
            self.show(object, &line)?;
        }
        Ok(())
    }

    /// Nothing is added to what the program wrote: bytes can pass as they are.
    fn is_raw(&self) -> bool {
        !self.arguments.timestamps && !self.has_prefix()
    }

    fn has_prefix(&self) -> bool {
        let mut labels = self.labels.values().map(|(label, _)| label);
        let first = labels.next();
        !self.arguments.no_prefix && labels.any(|label| Some(label) != first)
    }

    fn show(&self, object: ObjectId, line: &Line) -> Result<(), Failure> {
        let mut bytes = Vec::with_capacity(line.bytes.len() + 64);
        if let Some((label, index)) = self.labels.get(&object).filter(|_| self.has_prefix()) {
            let widths = self.labels.values().map(|(label, _)| label.len());
            let width = widths.max().unwrap_or(0);
            let mark = format!("{label:<width$} |");
            let style = Style::Distinct(*index);
            bytes.extend_from_slice(self.painted(style, &mark).as_bytes());
            bytes.push(b' ');
        }
        if self.arguments.timestamps {
            let time = human::timestamp(line.at_us);
            bytes.extend_from_slice(self.painted(Style::Dim, &time).as_bytes());
            bytes.push(b' ');
        }
        bytes.extend_from_slice(&line.bytes);
        bytes.push(b'\n');
        output::write(&bytes)
    }

    fn painted(&self, style: Style, text: &str) -> String {
        paint(self.context.screen.out_colours(), style, text)
    }
}

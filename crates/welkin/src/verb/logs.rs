//! `welkin logs`: what programs wrote, all objects of an app merged by time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clap::Args;
use client::CallError;
use tokio::time::{Instant, sleep_until, timeout_at};
use wire::call::{Locate, Located, ProblemCode};
use wire::fact::ObjectFacts;
use wire::id::ObjectId;
use wire::stream::{Open, What};

use crate::context::{Context, object_name};
use crate::failure::{EXIT_FAILED, Failure};
use crate::lines::{Line, Lines};
use crate::merge::{Entry, Merge, Said};
use crate::output::human;
use crate::output::style::{Style, paint};
use crate::{flags, manual, output, parse};

/// How often it is looked for new objects of an app that is followed.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// How long it may be unknown which objects there are: a node that is started again, a cloud that
/// finds a new supervisor.
const PATIENCE: Duration = Duration::from_secs(60);

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
    let mut reading = Reading::new(arguments, context);
    reading.add(&located.objects);
    loop {
        let entries = if arguments.follow {
            reading.followed().await?
        } else {
            reading.merge.next().await
        };
        if entries.is_empty() {
            reading.finish()?;
            return Ok(if reading.failed { EXIT_FAILED } else { 0 });
        }
        for entry in entries {
            reading.take(entry)?;
        }
    }
}

async fn locate(arguments: &Arguments, context: &Context) -> Result<Located, Failure> {
    let target = arguments.target.target.clone();
    Ok(context.client.call(Locate { target }).await?)
}

/// A log being read.
struct Source {
    object: ObjectId,
    /// The name of the object.
    label: String,
    index: u32,
    /// When what was shown last was written, in microseconds since 1970.
    last_us: u64,
}

/// Logs being read and shown.
struct Reading<'a> {
    arguments: &'a Arguments,
    context: &'a Context,
    merge: Merge,
    sources: BTreeMap<usize, Source>,
    /// Objects whose log broke off, and when: to be opened again.
    broken: BTreeMap<ObjectId, u64>,
    /// When it was looked for new objects.
    looked: Instant,
    /// Since when it is not known which there are.
    lost: Option<Instant>,
    lines: Lines,
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
            looked: Instant::now(),
            lost: None,
            lines: Lines::default(),
            failed: false,
        }
    }

    /// Opens the logs of the objects that are not read yet, and those that broke off.
    fn add(&mut self, objects: &[ObjectFacts]) {
        for object in objects {
            let broke_off_us = self.broken.remove(&object.object);
            let is_known = self.sources.values().any(|it| it.object == object.object);
            if is_known && broke_off_us.is_none() {
                continue;
            }
            let again_ms = broke_off_us.map(|at_us| at_us / 1000 + 1);
            let tail = self.arguments.tail.filter(|_| again_ms.is_none());
            let number = self.merge.add(Open {
                node: object.node,
                object: object.object,
                what: What::Logs {
                    follow: self.arguments.follow,
                    tail_lines: tail.filter(|lines| *lines < u64::MAX),
                    since_ms: again_ms.or(self.arguments.since),
                },
            });
            let source = Source {
                object: object.object,
                label: object_name(object),
                index: object.index,
                last_us: broke_off_us.unwrap_or(0),
            };
            self.sources.insert(number, source);
        }
    }

    /// What comes next; empty once nothing of the app lives any more.
    async fn followed(&mut self) -> Result<Vec<Entry>, Failure> {
        let mut is_waiting = !self.broken.is_empty();
        loop {
            let due = self.looked + LOOK_AGAIN;
            if self.merge.living() > 0 {
                if Instant::now() < due
                    && let Ok(entries) = timeout_at(due, self.merge.next()).await
                {
                    return Ok(entries);
                }
            } else if is_waiting {
                sleep_until(due).await;
            }
            self.looked = Instant::now();
            // An app that was scaled or moved has new objects; one that was removed has none.
            if let Some(objects) = self.look().await? {
                self.add(&objects);
                if self.merge.living() == 0 && !objects.iter().any(|it| it.phase.is_alive()) {
                    return Ok(Vec::new());
                }
            }
            is_waiting = true;
        }
    }

    /// The objects of the app; `None` when it cannot be known now, of which the reader is told once.
    async fn look(&mut self) -> Result<Option<Vec<ObjectFacts>>, Failure> {
        let target = self.arguments.target.target.clone();
        let error = match self.context.client.call(Locate { target }).await {
            Ok(located) => {
                self.lost = None;
                return Ok(Some(located.objects));
            }
            Err(CallError::Problem(problem)) if problem.code == ProblemCode::NotFound => {
                return Ok(Some(Vec::new()));
            }
            Err(error) => error,
        };
        match self.lost {
            None => {
                let failure = Failure::from(error);
                let text = format!("it is not known what else is written: {}", failure.detail);
                output::warn(self.context.screen, &text);
                self.lost = Some(Instant::now());
            }
            // What can still be read goes on.
            Some(since) if self.merge.living() == 0 && since.elapsed() > PATIENCE => {
                return Err(error.into());
            }
            Some(_) => {}
        }
        Ok(None)
    }

    fn take(&mut self, entry: Entry) -> Result<(), Failure> {
        match entry.what {
            Said::Log(stream, bytes) => {
                if let Some(source) = self.sources.get_mut(&entry.source) {
                    source.last_us = entry.at_us;
                }
                if self.is_raw() {
                    return output::write(&bytes);
                }
                let source = (entry.source, stream);
                for line in self.lines.feed(source, entry.at_us, &bytes) {
                    self.show(entry.source, &line)?;
                }
            }
            Said::Failed(failure) => self.note_failure(entry.source, &failure),
            Said::Event(_) | Said::Ended => {}
        }
        Ok(())
    }

    fn note_failure(&mut self, source: usize, failure: &Failure) {
        let Some(source) = self.sources.get(&source) else {
            return;
        };
        // Whoever follows is told once, and goes on when the node is back.
        let object = source.object;
        let tries = self
            .sources
            .values()
            .filter(|it| it.object == object)
            .count();
        if tries == 1 {
            let text = format!("the log of {} breaks off: {}", source.label, failure.detail);
            output::warn(self.context.screen, &text);
        }
        if self.arguments.follow {
            self.broken.insert(object, source.last_us);
        } else {
            self.failed = true;
        }
    }

    fn finish(&mut self) -> Result<(), Failure> {
        for ((source, _stream), line) in self.lines.finish() {
            self.show(source, &line)?;
        }
        Ok(())
    }

    /// Nothing is added to what the program wrote: bytes can pass as they are.
    fn is_raw(&self) -> bool {
        !self.arguments.timestamps && !self.has_prefix()
    }

    fn has_prefix(&self) -> bool {
        let objects: BTreeSet<&String> = self.sources.values().map(|it| &it.label).collect();
        !self.arguments.no_prefix && objects.len() > 1
    }

    fn show(&self, source: usize, line: &Line) -> Result<(), Failure> {
        let mut bytes = Vec::with_capacity(line.bytes.len() + 64);
        if let Some(source) = self.sources.get(&source).filter(|_| self.has_prefix()) {
            let widths = self.sources.values().map(|it| it.label.len());
            let width = widths.max().unwrap_or(0);
            let mark = format!("{:<width$} |", source.label);
            let style = Style::Distinct(source.index);
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

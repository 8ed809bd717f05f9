//! `welkin stats`: what objects use.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use tokio::time::Instant;
use wire::call::{ObjectStats, Stats, StatsTable};
use wire::id::ObjectId;

use crate::context::{Context, NodeNames};
use crate::failure::Failure;
use crate::output::human;
use crate::output::listing::{Listing, People};
use crate::output::style::Style;
use crate::output::table::{Column, Table};
use crate::verb::ps;
use crate::{completion, flags, manual, progress, watch};

/// Between two measurements, when there is only one table.
const ONCE: Duration = Duration::from_millis(500);

/// Show what objects use, again and again; q quits
///
/// Once when standard output is not a terminal.
#[derive(Debug, Args)]
#[command(after_help = manual::STATS)]
pub(crate) struct Arguments {
    /// Only this app or object.
    #[arg(value_name = "TARGET", add = ArgValueCompleter::new(completion::targets))]
    target: Option<String>,
    /// Once.
    #[arg(long)]
    no_stream: bool,
    #[command(flatten)]
    output: flags::Output,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    let mut meter = Meter::default();
    let target = arguments.target.as_ref();
    let asking = meter.measure(context, target);
    let stats = progress::shown(context.screen, "measuring", asking).await?;
    if let Some(target) = target
        && stats.objects.is_empty()
    {
        ps::expect_target(context, target).await?;
    }
    let nodes = context.node_names().await;
    let live = !arguments.no_stream && !arguments.output.is_for_programs();
    if !live || !context.screen.out_is_terminal {
        tokio::time::sleep(ONCE).await;
        let stats = meter.measure(context, target).await?;
        return show(arguments, context, &meter, &stats, &nodes);
    }
    let mut pause = ONCE;
    watch::watch(async || {
        // Only a share of a core needs it, and only the first time.
        tokio::time::sleep(std::mem::take(&mut pause)).await;
        let stats = meter.measure(context, target).await?;
        let listing = listing(arguments, &meter, &stats, &nodes);
        listing.render(&arguments.output, context.screen.out_colours())
    })
    .await
}

fn listing<'a>(
    arguments: &Arguments,
    meter: &Meter,
    stats: &'a StatsTable,
    nodes: &NodeNames,
) -> Listing<'a, StatsTable> {
    let ids = stats.objects.iter().map(|it| it.object.to_string());
    Listing {
        whole: stats,
        items: "objects",
        names: stats.objects.iter().map(name).collect(),
        ids: ids.collect(),
        people: People::Table(meter.table(stats, nodes, arguments.output.is_whole())),
    }
}

fn show(
    arguments: &Arguments,
    context: &Context,
    meter: &Meter,
    stats: &StatsTable,
    nodes: &NodeNames,
) -> Result<u8, Failure> {
    let listing = listing(arguments, meter, stats, nodes);
    listing.show(&arguments.output, context.screen)?;
    if stats.objects.is_empty() && !arguments.output.is_for_programs() {
        ps::say_nothing_runs(context, arguments.target.as_deref());
    }
    ps::unanswered(context, &stats.unanswered);
    Ok(0)
}

/// Measures again and again, and knows what was used in between.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    last: Option<(Instant, BTreeMap<ObjectId, u64>)>,
    /// Tenths of a percent of a core, since the measurement before.
    busy: BTreeMap<ObjectId, u64>,
}

impl Meter {
    /// Measures.
    pub(crate) async fn measure(
        &mut self,
        context: &Context,
        target: Option<&String>,
    ) -> Result<StatsTable, Failure> {
        let target = target.cloned();
        let stats = context.client.call(Stats { target }).await?;
        self.note(&stats.objects, Instant::now());
        Ok(stats)
    }

    fn note(&mut self, objects: &[ObjectStats], now: Instant) {
        let used: BTreeMap<ObjectId, u64> = objects
            .iter()
            .map(|it| (it.object, it.usage.cpu_us))
            .collect();
        if let Some((then, before)) = &self.last {
            let passed_us = now.duration_since(*then).as_micros().max(1);
            let share = |(object, cpu_us): (&ObjectId, &u64)| {
                let used_us = cpu_us.saturating_sub(*before.get(object)?);
                let tenths = u128::from(used_us) * 1000 / passed_us;
                Some((*object, u64::try_from(tenths).unwrap_or(u64::MAX)))
            };
            self.busy = used.iter().filter_map(share).collect();
        }
        self.last = Some((now, used));
    }

    /// Tenths of a percent of a core that an object used lately.
    pub(crate) fn busy(&self, object: ObjectId) -> Option<u64> {
        self.busy.get(&object).copied()
    }

    /// What objects use, as rows; with whole ids, or with their beginnings.
    pub(crate) fn table(&self, stats: &StatsTable, nodes: &NodeNames, whole: bool) -> Table {
        let mut table = Table::new(&[
            Column::text("NAME"),
            Column::text("ID"),
            Column::text("NODE"),
            Column::number("CPU"),
            Column::number("OF CORES"),
            Column::number("MEMORY"),
            Column::number("LIMIT"),
            Column::number("PROCESSES"),
            Column::number("CPU TIME").wide(),
        ]);
        for object in &stats.objects {
            let busy = self.busy(object.object).map(human::percent);
            let cores = match object.cpu_limit_millis {
                0 => human::NOTHING.to_owned(),
                millis => human::cores(millis),
            };
            table.row(
                Style::Plain,
                vec![
                    name(object),
                    human::id(&object.object, object.object.short(), whole),
                    nodes.get(object.node),
                    human::or_nothing(busy.unwrap_or_default()),
                    cores,
                    human::bytes(object.usage.memory_bytes),
                    human::bytes_limit(object.memory_limit_bytes),
                    object.usage.processes.to_string(),
                    human::span(object.usage.cpu_us / 1000),
                ],
            );
        }
        table
    }
}

fn name(object: &ObjectStats) -> String {
    format!("{}/{}", object.app_name, object.index)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::output::table::Drawing;
    use expect_test::expect;
    use wire::fact::Usage;
    use wire::id::NodeId;

    pub(crate) fn stats(index: u32, cpu_us: u64) -> ObjectStats {
        ObjectStats {
            object: ObjectId([u8::try_from(index).unwrap(); 16]),
            app_name: "web".to_owned(),
            index,
            node: NodeId([0; 32]),
            usage: Usage {
                cpu_us,
                memory_bytes: 20 << 20,
                processes: 3,
            },
            cpu_limit_millis: index * 500,
            memory_limit_bytes: u64::from(index) << 30,
        }
    }

    #[tokio::test]
    async fn shares_are_of_the_time_between_two_measurements() {
        let mut meter = Meter::default();
        let start = Instant::now();
        meter.note(&[stats(0, 1_000_000)], start);
        let objects = vec![stats(0, 1_250_000), stats(1, 9_000_000)];
        meter.note(&objects, start + Duration::from_millis(500));
        let stats = StatsTable {
            objects,
            unanswered: Vec::new(),
        };
        let table = meter.table(&stats, &NodeNames::default(), false);
        let drawing = Drawing {
            headers: true,
            ..Drawing::default()
        };
        expect![[r#"
            NAME   ID            NODE          CPU  OF CORES  MEMORY  LIMIT  PROCESSES
            web/0  000000000000  0000000000  50.0%         -   20MiB      -          3
            web/1  010101010101  0000000000      -       0.5   20MiB   1GiB          3
        "#]]
        .assert_eq(&table.draw(drawing));
    }
}

//! `welkin top`: nodes and objects, live.

use std::cmp::Reverse;

use clap::Args;
use wire::call::{NodeList, NodeSummary, StatsTable};

use crate::context::{Context, NodeNames};
use crate::failure::Failure;
use crate::output::human;
use crate::output::style::{Style, paint};
use crate::output::table::Drawing;
use crate::verb::node::list;
use crate::verb::stats::Meter;
use crate::{manual, output, watch};

/// Before the first picture: as long as a share of a core takes to be measured.
const FIRST: std::time::Duration = std::time::Duration::from_millis(300);

/// Watch nodes and objects; q quits
///
/// Prints once when standard output is not a terminal.
#[derive(Debug, Args)]
#[command(after_help = manual::TOP)]
pub(crate) struct Arguments {}

pub(crate) async fn run(_arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    let mut meter = Meter::default();
    meter.measure(context, None).await?;
    if !context.screen.out_is_terminal {
        tokio::time::sleep(FIRST).await;
        output::write(picture(context, &mut meter).await?.as_bytes())?;
        return Ok(0);
    }
    let mut pause = FIRST;
    watch::watch(async || {
        // Only a share of a core needs it, and only the first time.
        tokio::time::sleep(std::mem::take(&mut pause)).await;
        picture(context, &mut meter).await
    })
    .await
}

async fn picture(context: &Context, meter: &mut Meter) -> Result<String, Failure> {
    let asking = context.client.call(NodeList {});
    let (nodes, stats) = tokio::join!(asking, meter.measure(context, None));
    let mut stats = stats?;
    stats
        .objects
        .sort_by_key(|it| Reverse(meter.busy(it.object)));
    Ok(draw(
        &nodes?.nodes,
        &stats,
        meter,
        context.screen.out_colours(),
    ))
}

fn draw(nodes: &[NodeSummary], stats: &StatsTable, meter: &Meter, colours: bool) -> String {
    let drawing = Drawing {
        headers: true,
        colours,
        wide: false,
    };
    let mut text = paint(colours, Style::Strong, &summary(nodes, stats));
    text.push_str("\n\n");
    text.push_str(&list::table(nodes, false).draw(drawing));
    if !stats.objects.is_empty() {
        text.push('\n');
        text.push_str(
            &meter
                .table(stats, &NodeNames::of(nodes), false)
                .draw(drawing),
        );
    }
    if !stats.unanswered.is_empty() {
        text.push_str(&format!(
            "\nno answer in time: {}\n",
            stats.unanswered.join(", ")
        ));
    }
    text
}

/// The cloud as one computer, in a line.
fn summary(nodes: &[NodeSummary], stats: &StatsTable) -> String {
    let up: Vec<_> = nodes
        .iter()
        .filter(|it| it.state.is_up())
        .map(|it| it.capacity)
        .collect();
    let total = |amount: fn(&wire::fact::Capacity) -> u64| up.iter().map(amount).sum::<u64>();
    let cores = |millis: u64| human::cores_busy(u32::try_from(millis).unwrap_or(u32::MAX));
    let objects = u64::try_from(stats.objects.len()).unwrap_or(u64::MAX);
    format!(
        "{} of {} up, {} of {} cores, {} of {} memory, {}",
        up.len(),
        human::count(u64::try_from(nodes.len()).unwrap_or(u64::MAX), "node"),
        cores(total(|it| it.cpu_used_millis.into())),
        cores(total(|it| it.cpu_millis.into())),
        human::bytes(total(|it| it.memory_used_bytes)),
        human::bytes(total(|it| it.memory_bytes)),
        human::count(objects, "object"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verb::node::list::tests::node;
    use crate::verb::stats::tests::stats;
    use expect_test::expect;
    use wire::call::NodeState;

    #[test]
    fn a_picture_has_the_cloud_its_nodes_and_its_objects() {
        let nodes = [
            node(0, "atlas", NodeState::Up),
            node(1, "b", NodeState::Gone),
        ];
        let stats = StatsTable {
            objects: vec![stats(1, 0)],
            unanswered: vec!["b".to_owned()],
        };
        expect![[r#"
            1 of 2 nodes up, 1.3 of 16 cores, 7.8GiB of 64GiB memory, 1 object

            NAME   ID          STATE  PLATFORM      CORES  MEMORY  USED               OBJECTS  RTT
            atlas  0000000000  up     linux/x86_64     16   64GiB  1.3 cores, 7.8GiB        3  0ms
            b      0101010101  gone   linux/x86_64     16   64GiB  1.3 cores, 7.8GiB        3    -

            NAME   ID            NODE   CPU  OF CORES  MEMORY  LIMIT  PROCESSES
            web/1  010101010101  atlas    -       0.5   20MiB   1GiB          3

            no answer in time: b
        "#]]
        .assert_eq(&draw(&nodes, &stats, &Meter::default(), false));
    }
}

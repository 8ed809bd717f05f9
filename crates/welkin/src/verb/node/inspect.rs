//! `welkin node inspect`: all that is known of a node.

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use wire::call::{NodeDetail, NodeInspect};

use crate::context::{Context, NodeNames};
use crate::failure::Failure;
use crate::output::description::Description;
use crate::output::human;
use crate::output::listing::{Listing, People};
use crate::output::table::Drawing;
use crate::verb::{node::list, ps};
use crate::{clock, completion, flags, manual};

/// Show all that is known of a node
#[derive(Debug, Args)]
#[command(after_help = manual::NODE_INSPECT)]
pub(crate) struct Arguments {
    /// A node's name, or the beginning of its id; this node when absent.
    #[arg(value_name = "NODE", add = ArgValueCompleter::new(completion::nodes))]
    node: Option<String>,
    #[command(flatten)]
    output: flags::Output,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    let node = arguments.node.clone().unwrap_or_default();
    let detail = context.client.call(NodeInspect { node }).await?;
    let names = context.node_names().await;
    let listing = Listing {
        whole: &detail,
        items: "",
        names: vec![detail.summary.name.clone()],
        ids: vec![detail.summary.node.to_string()],
        people: People::Text(describe(&detail, &names, context.screen.out_colours())),
    };
    listing.show(&arguments.output, context.screen)?;
    Ok(0)
}

fn describe(detail: &NodeDetail, names: &NodeNames, colours: bool) -> String {
    let node = &detail.summary;
    let capacity = &node.capacity;
    let share = |cpu, memory| format!("{} cores, {}", human::cores(cpu), human::bytes(memory));
    let mut text = Description::new(colours);
    text.title(&node.name)
        .line("id", node.node.to_string())
        .line("state", list::state(node.state))
        .line(
            "platform",
            format!("{}/{}", node.platform.os, node.platform.arch),
        )
        .line("kernel", &node.platform.kernel)
        .line("version", &node.program_version)
        .line("labels", human::pairs(&node.labels, '='))
        .line("addresses", detail.addresses.join(", "))
        .line("relayed by", detail.relays.join(", "))
        .line("reached via", node.via.clone().unwrap_or_default())
        .line(
            "round trip",
            node.rtt_us.map(human::round_trip).unwrap_or_default(),
        )
        .line(
            "admitted by",
            detail
                .admitted_by
                .map(|it| names.get(it))
                .unwrap_or_default(),
        )
        .line("has", share(capacity.cpu_millis, capacity.memory_bytes))
        .line(
            "promised",
            share(capacity.cpu_held_millis, capacity.memory_held_bytes),
        )
        .line(
            "uses",
            format!(
                "{} cores, {}",
                human::cores_busy(capacity.cpu_used_millis),
                human::bytes(capacity.memory_used_bytes)
            ),
        )
        .line("objects", capacity.objects.to_string());
    if !detail.objects.is_empty() {
        let table = ps::objects_table(&detail.objects, names, clock::now());
        text.title("objects").block(&table.draw(Drawing {
            headers: true,
            ..Drawing::default()
        }));
    }
    text.finish()
}

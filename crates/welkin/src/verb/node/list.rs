//! `welkin nodes`, `welkin node ls`: every node of the cloud.

use clap::Args;
use wire::call::{NodeList, NodeState, NodeSummary, Nodes};

use crate::context::Context;
use crate::failure::Failure;
use crate::output::human;
use crate::output::listing::{Listing, People};
use crate::output::style::Style;
use crate::output::table::{Column, Table};
use crate::{flags, manual, progress, watch};

/// List the nodes of the cloud, as this node knows them
#[derive(Debug, Args)]
#[command(after_help = manual::NODES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    watching: flags::Watching,
    #[command(flatten)]
    output: flags::Output,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    let output = &arguments.output;
    if watch::is_wanted(arguments.watching, output, context.screen)? {
        return watch::watch(async || {
            let nodes = context.client.call(NodeList {}).await?;
            let listing = listing(&nodes, output.is_whole());
            listing.render(output, context.screen.out_colours())
        })
        .await;
    }
    let asking = context.client.call(NodeList {});
    let nodes = progress::shown(context.screen, "asking the node", asking).await?;
    listing(&nodes, output.is_whole()).show(output, context.screen)?;
    Ok(0)
}

fn listing(nodes: &Nodes, whole: bool) -> Listing<'_, Nodes> {
    Listing {
        whole: nodes,
        items: "nodes",
        names: nodes.nodes.iter().map(|it| it.name.clone()).collect(),
        ids: nodes.nodes.iter().map(|it| it.node.to_string()).collect(),
        people: People::Table(table(&nodes.nodes, whole)),
    }
}

/// Nodes as rows; with whole ids, or with their beginnings.
pub(crate) fn table(nodes: &[NodeSummary], whole: bool) -> Table {
    let mut table = Table::new(&[
        Column::text("NAME"),
        Column::text("ID"),
        Column::text("STATE"),
        Column::text("PLATFORM"),
        Column::number("CORES"),
        Column::number("MEMORY"),
        Column::text("USED"),
        Column::text("HELD").wide(),
        Column::number("OBJECTS"),
        Column::number("RTT"),
        Column::text("VERSION").wide(),
        Column::text("KERNEL").wide(),
        Column::text("LABELS").wide(),
    ]);
    for node in nodes {
        let capacity = &node.capacity;
        let both = |cores: String, memory| format!("{cores} cores, {}", human::bytes(memory));
        let rtt = node.rtt_us.map(human::round_trip);
        table.row(
            style(node.state),
            vec![
                node.name.clone(),
                human::id(&node.node, node.node.short(), whole),
                match &node.via {
                    Some(relay) => format!("{} via {relay}", state(node.state)),
                    None => state(node.state).to_owned(),
                },
                format!("{}/{}", node.platform.os, node.platform.arch),
                human::cores(capacity.cpu_millis),
                human::bytes(capacity.memory_bytes),
                both(
                    human::cores_busy(capacity.cpu_used_millis),
                    capacity.memory_used_bytes,
                ),
                both(
                    human::cores(capacity.cpu_held_millis),
                    capacity.memory_held_bytes,
                ),
                capacity.objects.to_string(),
                human::or_nothing(rtt.unwrap_or_default()),
                node.program_version.clone(),
                node.platform.kernel.clone(),
                human::or_nothing(human::pairs(&node.labels, '=')),
            ],
        );
    }
    table
}

/// The word for a state.
pub(crate) fn state(state: NodeState) -> &'static str {
    match state {
        NodeState::Up => "up",
        NodeState::Draining => "draining",
        NodeState::Unreachable => "unreachable",
        NodeState::Gone => "gone",
        NodeState::Down => "down",
    }
}

fn style(state: NodeState) -> Style {
    match state {
        NodeState::Up => Style::Plain,
        NodeState::Draining => Style::Warning,
        NodeState::Unreachable | NodeState::Gone => Style::Bad,
        NodeState::Down => Style::Dim,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::flags::{Form, Output};
    use expect_test::expect;
    use wire::fact::{Capacity, Platform};
    use wire::id::NodeId;

    pub(crate) fn node(number: u8, name: &str, state: NodeState) -> NodeSummary {
        NodeSummary {
            node: NodeId([number; 32]),
            name: name.to_owned(),
            state,
            platform: Platform {
                os: "linux".to_owned(),
                arch: "x86_64".to_owned(),
                kernel: "6.12.1".to_owned(),
            },
            program_version: "0.1.0".to_owned(),
            capacity: Capacity {
                cpu_millis: 16_000,
                memory_bytes: 64 << 30,
                cpu_held_millis: 500,
                memory_held_bytes: 128 << 20,
                cpu_used_millis: 1250,
                memory_used_bytes: (78 << 30) / 10,
                objects: 3,
            },
            labels: [("disk".to_owned(), "ssd".to_owned())].into(),
            rtt_us: (state == NodeState::Up).then_some(u64::from(number) * 400),
            via: None,
        }
    }

    fn nodes() -> Nodes {
        Nodes {
            nodes: vec![
                node(0, "atlas", NodeState::Up),
                NodeSummary {
                    via: Some("atlas".to_owned()),
                    ..node(1, "b", NodeState::Up)
                },
                node(2, "cellar", NodeState::Unreachable),
            ],
        }
    }

    fn check(output: &Output, expected: &expect_test::Expect) {
        let nodes = nodes();
        let listing = listing(&nodes, output.is_whole());
        expected.assert_eq(&listing.render(output, false).unwrap());
    }

    #[test]
    fn nodes_are_a_table() {
        check(
            &Output::default(),
            &expect![[r#"
                NAME    ID          STATE         PLATFORM      CORES  MEMORY  USED               OBJECTS    RTT
                atlas   0000000000  up            linux/x86_64     16   64GiB  1.3 cores, 7.8GiB        3    0ms
                b       0101010101  up via atlas  linux/x86_64     16   64GiB  1.3 cores, 7.8GiB        3  0.4ms
                cellar  0202020202  unreachable   linux/x86_64     16   64GiB  1.3 cores, 7.8GiB        3      -
            "#]],
        );
        check(
            &Output::of(Form::Wide),
            &expect![[r#"
                NAME    ID                                                                STATE         PLATFORM      CORES  MEMORY  USED               HELD               OBJECTS    RTT  VERSION  KERNEL  LABELS
                atlas   0000000000000000000000000000000000000000000000000000000000000000  up            linux/x86_64     16   64GiB  1.3 cores, 7.8GiB  0.5 cores, 128MiB        3    0ms  0.1.0    6.12.1  disk=ssd
                b       0101010101010101010101010101010101010101010101010101010101010101  up via atlas  linux/x86_64     16   64GiB  1.3 cores, 7.8GiB  0.5 cores, 128MiB        3  0.4ms  0.1.0    6.12.1  disk=ssd
                cellar  0202020202020202020202020202020202020202020202020202020202020202  unreachable   linux/x86_64     16   64GiB  1.3 cores, 7.8GiB  0.5 cores, 128MiB        3      -  0.1.0    6.12.1  disk=ssd
            "#]],
        );
    }

    #[test]
    fn nodes_have_every_other_form() {
        check(
            &Output::of(Form::Name),
            &expect![[r#"
            atlas
            b
            cellar
        "#]],
        );
        check(
            &Output::by_template("{{.name}} {{.capacity.memory_bytes}} {{json .labels}}"),
            &expect![[r#"
                atlas 68719476736 {"disk":"ssd"}
                b 68719476736 {"disk":"ssd"}
                cellar 68719476736 {"disk":"ssd"}
            "#]],
        );
        check(
            &Output::by_template("table"),
            &expect![[r#"
                NAME    ID          STATE         PLATFORM      CORES  MEMORY  USED               OBJECTS    RTT
                atlas   0000000000  up            linux/x86_64     16   64GiB  1.3 cores, 7.8GiB        3    0ms
                b       0101010101  up via atlas  linux/x86_64     16   64GiB  1.3 cores, 7.8GiB        3  0.4ms
                cellar  0202020202  unreachable   linux/x86_64     16   64GiB  1.3 cores, 7.8GiB        3      -
            "#]],
        );
    }

    #[test]
    fn what_is_printed_is_the_answer_itself_and_can_be_read_back() {
        let mut one = nodes();
        one.nodes.truncate(1);
        let json = listing(&one, false)
            .render(&Output::of(Form::Json), false)
            .unwrap();
        expect![[r#"
            {
              "nodes": [
                {
                  "node": "0000000000000000000000000000000000000000000000000000000000000000",
                  "name": "atlas",
                  "state": "up",
                  "platform": {
                    "os": "linux",
                    "arch": "x86_64",
                    "kernel": "6.12.1"
                  },
                  "program_version": "0.1.0",
                  "capacity": {
                    "cpu_millis": 16000,
                    "memory_bytes": 68719476736,
                    "cpu_held_millis": 500,
                    "memory_held_bytes": 134217728,
                    "cpu_used_millis": 1250,
                    "memory_used_bytes": 8375186227,
                    "objects": 3
                  },
                  "labels": {
                    "disk": "ssd"
                  },
                  "rtt_us": 0,
                  "via": null
                }
              ]
            }
        "#]]
        .assert_eq(&json);
        let yaml = listing(&one, false)
            .render(&Output::of(Form::Yaml), false)
            .unwrap();
        expect![[r#"
            nodes:
            - node: '0000000000000000000000000000000000000000000000000000000000000000'
              name: atlas
              state: up
              platform:
                os: linux
                arch: x86_64
                kernel: 6.12.1
              program_version: 0.1.0
              capacity:
                cpu_millis: 16000
                memory_bytes: 68719476736
                cpu_held_millis: 500
                memory_held_bytes: 134217728
                cpu_used_millis: 1250
                memory_used_bytes: 8375186227
                objects: 3
              labels:
                disk: ssd
              rtt_us: 0
              via: null
        "#]]
        .assert_eq(&yaml);
        assert_eq!(serde_json::from_str::<Nodes>(&json).unwrap(), one);
    }
}

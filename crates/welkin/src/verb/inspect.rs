//! `welkin inspect`: all that is known of apps and objects.

use clap::Args;
use wire::call::{Inspect, Inspection};
use wire::fact::ObjectFacts;
use wire::health::HealthState;
use wire::id::UnixMillis;
use wire::spec::Placement;

use crate::context::{Context, NodeNames, object_name};
use crate::failure::Failure;
use crate::output::description::Description;
use crate::output::human;
use crate::output::listing::{Listing, People};
use crate::output::table::Drawing;
use crate::verb::ps;
use crate::{appfile, clock, flags, manual, output, schedule, targets};

/// Show all that is known of apps and objects
///
/// With -o json and -o yaml, the answer is always a list.
#[derive(Debug, Args)]
#[command(after_help = manual::INSPECT)]
pub(crate) struct Arguments {
    #[command(flatten)]
    targets: flags::Targets,
    #[command(flatten)]
    output: flags::Output,
    /// Show the file that welkin apply makes the same apps of.
    #[arg(long, conflicts_with = "Output")]
    spec: bool,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    let request = |target: &str| Inspect {
        target: target.to_owned(),
    };
    let mut found = Vec::new();
    let names = &arguments.targets.targets;
    let exit = targets::each(context, "asking", names, request, |_, inspection| {
        found.push(inspection);
        Ok(())
    })
    .await?;
    if arguments.spec {
        let specs: Vec<_> = found.iter().map(|it| &it.spec).collect();
        output::write(appfile::write(&specs).as_bytes())?;
        return Ok(exit);
    }
    let nodes = context.node_names().await;
    let colours = context.screen.out_colours();
    let texts = found
        .iter()
        .map(|it| describe(it, &nodes, clock::now(), colours));
    let text = texts.collect::<Vec<_>>().join("\n");
    let listing = Listing {
        whole: &found,
        items: "",
        names: found.iter().map(|it| it.spec.name.clone()).collect(),
        ids: found.iter().map(|it| it.app.to_string()).collect(),
        people: People::Text(text),
    };
    listing.show(&arguments.output, context.screen)?;
    Ok(exit)
}

fn describe(inspection: &Inspection, nodes: &NodeNames, now: UnixMillis, colours: bool) -> String {
    let spec = &inspection.spec;
    let state = if inspection.stopped {
        "stopped".to_owned()
    } else {
        human::count(spec.replicas, "object")
    };
    let limit = |amount: u64, text: String| if amount == 0 { String::new() } else { text };
    let resources = &spec.resources;
    let grace = format!(
        "{}, then SIGKILL after {}",
        human::signal(spec.stop.signal),
        human::span(spec.stop.grace_ms.into())
    );
    let mut text = Description::new(colours);
    text.title(&spec.name)
        .line("id", inspection.app.to_string())
        .line("wanted", state)
        .line("trouble", inspection.trouble.as_deref().unwrap_or_default())
        .line("undone", inspection.undone.as_deref().unwrap_or_default())
        .line("command", human::command(&spec.program.arguments))
        .line("environment", human::pairs(&spec.program.environment, '='))
        .line(
            "directory",
            spec.program.directory.as_deref().unwrap_or_default(),
        )
        .line("user", spec.program.user.as_deref().unwrap_or_default())
        .line("ports", human::pairs(&spec.ports, ':'))
        .line("schedule", schedule::text(spec.schedule.as_ref()))
        .line(
            "deadline",
            spec.deadline_ms.map_or_else(String::new, schedule::span),
        )
        .line("next run", schedule::next_run(inspection.next, now))
        .line("restart", human::restart(spec.restart))
        .line("on partition", human::on_partition(spec.on_partition))
        .line("health", human::health(spec.health.as_deref()))
        .line("stop", grace)
        .line(
            "cores",
            limit(
                resources.cpu_millis.into(),
                human::cores(resources.cpu_millis),
            ),
        )
        .line(
            "memory",
            limit(resources.memory_bytes, human::bytes(resources.memory_bytes)),
        )
        .line("processes", resources.processes.to_string());
    place(&spec.placement, &mut text);
    text.line("guardians", inspection.guardians.join(", "));
    let tables = [
        (
            "objects",
            ps::objects_table(&inspection.objects, nodes, now),
        ),
        ("runs", schedule::runs_table(&inspection.runs, nodes, now)),
    ];
    for (title, table) in tables.iter().filter(|(_, table)| !table.is_empty()) {
        text.title(title).block(&table.draw(Drawing {
            headers: true,
            ..Drawing::default()
        }));
    }
    faults(inspection, &mut text);
    text.finish()
}

/// Where objects may be.
fn place(placement: &Placement, text: &mut Description) {
    let constraints = placement.constraints.iter().map(ToString::to_string);
    text.line("host", placement.host.as_deref().unwrap_or_default())
        .line("constraints", constraints.collect::<Vec<_>>().join(", "))
        .line("spread", if placement.spread { "yes" } else { "" });
}

/// Which objects do not do their work, and which lack some protection.
fn faults(inspection: &Inspection, text: &mut Description) {
    let ill = inspection.objects.iter().filter_map(|it| match &it.health {
        Some(HealthState::Unhealthy { why }) => Some((it, why)),
        Some(HealthState::Starting | HealthState::Healthy) | None => None,
    });
    for (at, (object, why)) in ill.enumerate() {
        if at == 0 {
            text.title("unhealthy");
        }
        text.line(&object_name(object), why.as_str());
    }
    let weak = |it: &&ObjectFacts| !it.protections_off.is_empty();
    if inspection.objects.iter().any(|it| weak(&it)) {
        text.title("not protected");
    }
    for object in inspection.objects.iter().filter(weak) {
        let name = object_name(object);
        object.protections_off.iter().for_each(|missing| {
            text.line(&name, missing);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verb::node::list::tests::node;
    use crate::verb::ps::tests::object;
    use expect_test::expect;
    use wire::call::NodeState;
    use wire::fact::Phase;
    use wire::id::AppId;

    #[test]
    fn an_app_is_described() {
        let spec = r#"{"name":"web","replicas":2,"ports":{"http":8080},"restart":"always",
            "program":{"arguments":["sh","-c","exec serve"],"environment":{"MODE":"x"}},
            "resources":{"cpu_millis":500,"memory_bytes":134217728},
            "placement":{"constraints":["memory>=8G","label.disk=ssd"]}}"#;
        let mut weak = object("web", 1, Phase::Waiting);
        weak.protections_off = vec!["no memory limit: cgroups are not delegated".to_owned()];
        let inspection = Inspection {
            app: AppId::of_name("web"),
            spec: serde_json::from_str(spec).unwrap(),
            stopped: false,
            objects: vec![object("web", 0, Phase::Running), weak],
            guardians: vec!["atlas".to_owned(), "b".to_owned()],
            trouble: None,
            waiting: None,
            next: None,
            runs: Vec::new(),
            version: wire::id::Version::default(),
            previous: None,
            update: None,
            undone: None,
        };
        let nodes = [node(0, "atlas", NodeState::Up), node(1, "b", NodeState::Up)];
        let now = UnixMillis(10_000_000);
        expect![[r#"
            web
              id            977e88c3048d50ca5a52f888356337db
              wanted        2 objects
              command       sh -c 'exec serve'
              environment   MODE=x
              ports         http:8080
              restart       always
              on partition  available
              stop          SIGTERM, then SIGKILL after 10s
              cores         0.5
              memory        128MiB
              processes     4096
              constraints   memory>=8G, label.disk=ssd
              guardians     atlas, b

            objects
              NAME   ID            NODE   STATE              SINCE  RESTARTS
              web/0  777777777777  atlas  running               3m         0
              web/1  787878787878  b      waiting (SIGKILL)     5s         1

            not protected
              web/1         no memory limit: cgroups are not delegated
        "#]]
        .assert_eq(&describe(&inspection, &NodeNames::of(&nodes), now, false));
    }
}

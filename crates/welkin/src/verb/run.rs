//! `welkin run`: a program somewhere in the cloud.

use clap::Args;
use wire::call::{Run, Started};
use wire::fact::ObjectFacts;
use wire::spec::{AppSpec, OnPartition, Placement, Resources, Restart, Stop};
use wire::stream::{Open, What};

use crate::context::{Context, object_name};
use crate::failure::Failure;
use crate::session::{Program, Session};
use crate::signals::Signals;
use crate::{clock, flags, manual, output, parse, progress, schedule};

/// Run a program somewhere in the cloud
///
/// Without -d, the program's output comes here, signals go to it, and its exit code is the exit
/// code of this command. An app without a name is forgotten once its program has ended.
///
/// With --at, --every or --cron it runs later, in an object of its own each time: its name and when
/// that is are printed, and it is kept until it is removed.
#[derive(Debug, Args)]
#[command(after_help = manual::RUN)]
pub(crate) struct Arguments {
    /// Return once it was started; print the name of the app.
    #[arg(short, long)]
    pub(crate) detach: bool,
    #[command(flatten)]
    interaction: flags::Interaction,
    /// Name of the app; a made-up one when absent.
    #[arg(long, value_parser = parse::app_name)]
    name: Option<String>,
    #[command(flatten)]
    surroundings: flags::Surroundings,
    #[command(flatten)]
    shape: flags::Shape,
    #[command(flatten)]
    health: flags::Health,
    #[command(flatten)]
    times: schedule::Times,
    /// Forget the app once its program has ended.
    #[arg(long)]
    rm: bool,
    /// The program and its arguments.
    #[arg(
        required = true,
        trailing_var_arg = true,
        value_names = ["PROGRAM", "ARGUMENTS"],
        num_args = 1..
    )]
    pub(crate) command: Vec<String>,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    if arguments.times.schedule().is_some() {
        let done = scheduled(arguments, context).await;
        return done.map_err(Failure::beside_a_program);
    }
    let replicas = arguments.shape.replicas.unwrap_or(1);
    if !arguments.detach && replicas != 1 {
        let (text, remedy) = if replicas == 0 {
            let text = "there is nothing to wait for in the foreground without an object";
            (
                text,
                "welkin run -d --replicas 0 …, then welkin scale APP=1",
            )
        } else {
            let text = "only one object can run in the foreground";
            (text, "welkin run -d …, then welkin logs -f APP")
        };
        return Err(Failure::usage(text).remedy(remedy));
    }
    let done = if arguments.detach {
        detached(arguments, context).await
    } else {
        foreground(arguments, context).await
    };
    done.map_err(Failure::beside_a_program)
}

fn spec(arguments: &Arguments) -> AppSpec {
    let schedule = arguments.times.schedule();
    let is_left_alone = arguments.detach || schedule.is_some();
    let mut spec = AppSpec {
        name: arguments.name.clone().unwrap_or_default(),
        replicas: 1,
        program: arguments
            .surroundings
            .program(&arguments.command, arguments.interaction),
        ports: std::collections::BTreeMap::new(),
        resources: Resources::default(),
        restart: Restart::default(),
        placement: Placement::default(),
        stop: Stop::default(),
        remove_when_done: arguments.rm || (arguments.name.is_none() && !is_left_alone),
        on_partition: OnPartition::Available,
        health: None,
        after: std::collections::BTreeSet::new(),
        schedule,
        deadline_ms: None,
    };
    arguments.times.edit(&mut spec);
    arguments.shape.edit(&mut spec);
    arguments.health.edit(&mut spec);
    spec
}

async fn detached(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    let spec = spec(arguments);
    let asking = context.client.call(Run {
        spec,
        attach: false,
    });
    let started = progress::shown(context.screen, "starting", asking).await?;
    say_waiting(&started);
    output::line(&started.name)?;
    Ok(0)
}

/// An app that runs later, where nobody sees it: there is nothing to attach to.
async fn scheduled(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    if arguments.interaction.interactive || arguments.interaction.tty {
        let text = "nobody is there to talk to when an app runs by a schedule";
        let remedy = "leave -i and -t out; welkin attach APP, while it runs";
        return Err(Failure::usage(text).remedy(remedy));
    }
    detached(arguments, context).await
}

/// Says that objects of an app come up later, if they do.
pub(crate) fn say_waiting(started: &Started) {
    let next = schedule::next_run(started.next, clock::now());
    if !next.is_empty() {
        output::say(&format!("{} runs {next}", started.name));
    }
    if let Some(waiting) = &started.waiting {
        let name = &started.name;
        output::say(&format!("{name} is {waiting}; welkin explain {name}"));
    }
}

async fn foreground(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    let spec = spec(arguments);
    let mut signals = Signals::catch()?;
    let asking = context.client.call(Run { spec, attach: true });
    let asking = progress::shown(context.screen, "starting", asking);
    let started = tokio::select! {
        started = asking => started?,
        // Leaving the call tells the node that nobody wants the app any more.
        signal = signals.next() => return Ok(signal.saturating_add(128)),
    };
    let object = first(&started)?;
    let open = Open {
        node: object.node,
        object: object.object,
        what: What::Attach {
            stdin: arguments.interaction.interactive,
            replay: true,
        },
    };
    let stream = context.client.open(open).await?;
    let session = Session {
        stdin: arguments.interaction.interactive,
        terminal: arguments.interaction.tty,
        program: Program::Own(object.object),
        name: object_name(object),
    };
    let ending = session.run(context, stream, &mut signals).await?;
    session.conclude(context, ending)
}

fn first(started: &Started) -> Result<&ObjectFacts, Failure> {
    started.objects.first().ok_or_else(|| {
        Failure::new(format!("{} has no object yet", started.name))
            .remedy(format!("welkin explain {}", started.name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use expect_test::expect;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        run: Arguments,
    }

    fn spec_of(line: &[&str]) -> AppSpec {
        let words = [&["run"], line].concat();
        spec(&Line::try_parse_from(words).unwrap().run)
    }

    #[test]
    fn flags_become_a_specification() {
        let words = "-d --name web --replicas 3 --port http=8080 --restart on-failure:2 --cpu 0.5 \
            --memory 128M --processes 10 --env MODE=a=b --workdir /srv --user www --host atlas \
            --constraint arch=x86_64,memory>=8G --constraint label.disk=ssd --spread \
            --stop-signal INT --stop-timeout 2.5 --health http:8080/up --health-interval 5 \
            --health-retries 2 --health-start-period 1m --after db,cache -- server -v";
        let words: Vec<&str> = words.split(' ').filter(|word| !word.is_empty()).collect();
        let json = serde_json::to_string(&spec_of(&words)).unwrap();
        let expected = expect![[r#"
            {"name":"web",
            "replicas":3,
            "program":{"arguments":["server",
            "-v"],
            "environment":{"MODE":"a=b"},
            "directory":"/srv",
            "user":"www",
            "terminal":false,
            "stdin":false},
            "ports":{"http":8080},
            "resources":{"cpu_millis":500,
            "memory_bytes":134217728,
            "processes":10},
            "restart":{"on-failure":{"retries_max":2}},
            "placement":{"host":"atlas",
            "constraints":["arch=x86_64",
            "memory>=8G",
            "label.disk=ssd"],
            "spread":true},
            "stop":{"signal":2,
            "grace_ms":2500},
            "remove_when_done":false,
            "on_partition":"available",
            "health":{"check":"http:8080/up",
            "interval_ms":5000,
            "timeout_ms":3000,
            "retries":2,
            "start_period_ms":60000},
            "after":["cache",
            "db"],
            "schedule":null,
            "deadline_ms":null}"#]];
        expected.assert_eq(&json.replace(",\"", ",\n\""));
    }

    #[test]
    fn an_app_without_a_name_is_forgotten_unless_it_was_left_alone() {
        assert!(spec_of(&["true"]).remove_when_done);
        assert!(!spec_of(&["-d", "true"]).remove_when_done);
        assert!(!spec_of(&["--name", "a", "true"]).remove_when_done);
        assert!(spec_of(&["--name", "a", "--rm", "true"]).remove_when_done);
    }
}

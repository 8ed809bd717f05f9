//! `welkin update`: change an app while it runs.

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use wire::spec::AppSpec;

use crate::context::Context;
use crate::failure::Failure;
use crate::rollout::{self, Manner};
use crate::{completion, flags, manual, schedule};

/// Change an app while it runs
///
/// What the flags do not speak of stays; to take something away, welkin inspect --spec, edit and
/// welkin apply. When what objects run is changed, they are replaced one after the other, the next
/// once the one before it has run for a while; when one does not come up, the change is undone.
#[derive(Debug, Args)]
#[command(after_help = manual::UPDATE)]
pub(crate) struct Arguments {
    /// The app.
    #[arg(value_name = "APP", add = ArgValueCompleter::new(completion::apps))]
    app: String,
    #[command(flatten)]
    manner: Manner,
    /// Go back to what the app was before the last change of what its objects run.
    #[arg(long, conflicts_with_all = ["Surroundings", "Shape", "Health", "Times", "command"])]
    rollback: bool,
    #[command(flatten)]
    surroundings: flags::Surroundings,
    #[command(flatten)]
    shape: flags::Shape,
    #[command(flatten)]
    health: flags::Health,
    #[command(flatten)]
    times: schedule::Times,
    /// Another program and its arguments.
    #[arg(last = true, value_names = ["PROGRAM", "ARGUMENTS"], num_args = 1..)]
    command: Vec<String>,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    let done = update(arguments, context).await;
    if arguments.manner.dry_run {
        return done.map(u8::from).map_err(Failure::beside_a_difference);
    }
    done.map(|_differs| 0)
}

async fn update(arguments: &Arguments, context: &Context) -> Result<bool, Failure> {
    let name = &arguments.app;
    let Some(found) = rollout::find(context, name).await? else {
        let detail = format!("no app is called `{name}`");
        return Err(Failure::new(detail).remedy("welkin ps -a"));
    };
    let spec = if arguments.rollback {
        if let Some(why) = &found.undone {
            let detail = format!("the last change of {name} was undone already: {why}");
            return Err(Failure::new(detail).remedy(format!("welkin inspect --spec {name}")));
        }
        let previous = found.previous.clone();
        *previous.ok_or_else(|| {
            let detail = format!("nothing is known of what {name} was before");
            Failure::new(detail).remedy("welkin update with what is to be otherwise")
        })?
    } else {
        changed(arguments, &found.spec)
    };
    rollout::make(context, Some(&found), &spec, arguments.manner).await
}

/// The specification with what the flags say.
fn changed(arguments: &Arguments, spec: &AppSpec) -> AppSpec {
    let mut spec = spec.clone();
    arguments.shape.edit(&mut spec);
    arguments.health.edit(&mut spec);
    arguments.times.edit(&mut spec);
    arguments.surroundings.edit(&mut spec.program);
    if !arguments.command.is_empty() {
        spec.program.arguments.clone_from(&arguments.command);
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::appfile;
    use clap::Parser;
    use expect_test::expect;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        update: Arguments,
    }

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        let words = line.split(' ');
        Line::try_parse_from(words).map(|line| line.update)
    }

    #[test]
    fn what_flags_do_not_speak_of_stays() {
        let text = "name = \"web\"\nrun = [\"serve\"]\nreplicas = 3\nmemory = \"64M\"\n\
                    env.MODE = \"a\"\nports.http = 80\n";
        let spec = appfile::read(text).unwrap().remove(0);
        let line = "update web --memory 1G --env LEVEL=3 --port admin=81 -- serve -v";
        let spec = changed(&parse(line).unwrap(), &spec);
        expect![[r#"
            name = "web"
            run = ["serve", "-v"]
            replicas = 3
            memory = "1G"
            ports.admin = 81
            ports.http = 80
            env.LEVEL = "3"
            env.MODE = "a"
        "#]]
        .assert_eq(&appfile::write(&[&spec]));
    }

    #[test]
    fn going_back_goes_with_nothing_else() {
        assert!(parse("update --rollback web").unwrap().rollback);
        for line in [
            "update --rollback web --memory 1G",
            "update --rollback web --env A=b",
            "update --rollback web --health none",
            "update --rollback web --every 1h",
            "update --rollback web -- true",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}

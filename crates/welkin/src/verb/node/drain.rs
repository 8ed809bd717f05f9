//! `welkin node drain`: a node is emptied.
//!
//! The node moves its objects one by one; whoever drains it wants to know when it may be switched
//! off. What is not started again elsewhere (restart policy `no`) stays until it ends by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, sleep};
use wire::call::{AppList, AppSummary, Apps, NodeDrain};
use wire::fact::ObjectFacts;
use wire::id::{AppId, NodeId};
use wire::spec::Restart;

use crate::context::{Context, object_name};
use crate::failure::Failure;
use crate::{flags, manual, output, progress};

/// Between two looks at what is still there.
const LOOK_AGAIN: Duration = Duration::from_millis(300);
/// How long nothing may leave before it is given up: longer than a program usually takes to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Move everything away from a node and send nothing new there
///
/// Returns once only objects are left that are not started again elsewhere. Leaving it with Ctrl-C
/// does not end the draining: that does `welkin node resume`.
#[derive(Debug, Args)]
#[command(after_help = manual::NODE_DRAIN)]
pub(crate) struct Arguments {
    #[command(flatten)]
    node: flags::Node,
    /// Also end objects that will not be started again elsewhere.
    #[arg(short, long)]
    force: bool,
    /// Return at once; objects move afterwards.
    #[arg(long)]
    no_wait: bool,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    let request = NodeDrain {
        node: arguments.node.node.clone(),
        force: arguments.force,
    };
    let asking = context.client.call(request);
    let node = progress::shown(context.screen, "draining", asking).await?;
    let name = &node.name;
    if arguments.no_wait {
        output::line(name)?;
        output::say(&format!("{name} takes nothing new; what is there moves"));
        output::hint(context.screen, &format!("welkin node inspect {name}"));
        return Ok(0);
    }
    let leaving = emptied(context, node.node, arguments.force);
    let what = format!("waiting until the objects of {name} run elsewhere");
    let rest = progress::shown(context.screen, &what, leaving).await?;
    if let Some(first) = rest.moving.first() {
        let app = first.split('/').next().unwrap_or(first);
        let moving = rest.moving.join(", ");
        let text = format!("{name} takes nothing new, but this does not leave it: {moving}");
        return Err(Failure::new(text).remedy(format!("welkin explain {app}")));
    }
    output::line(name)?;
    if rest.staying.is_empty() {
        output::say(&format!("{name} takes nothing new and is empty"));
        output::hint(
            context.screen,
            &format!("welkin down, on {name}; or welkin node resume {name}, to use it again"),
        );
    } else {
        let staying = rest.staying.join(", ");
        output::say(&format!(
            "{name} takes nothing new; what is not restarted elsewhere stays: {staying}"
        ));
        let next = format!("welkin node drain --force {name}, to end that too");
        output::hint(context.screen, &next);
    }
    Ok(0)
}

/// What is still on a node.
#[derive(Debug, Default, PartialEq, Eq)]
struct Rest {
    /// Names of objects that will leave.
    moving: Vec<String>,
    /// Names of those that will not.
    staying: Vec<String>,
}

/// Waits until only what stays is left, or until nothing leaves any more.
async fn emptied(context: &Context, node: NodeId, force: bool) -> Result<Rest, Failure> {
    let mut before = Rest::default();
    let mut changed = Instant::now();
    loop {
        let list = AppList {
            all: false,
            target: None,
        };
        let apps = context.client.call(list).await?;
        let rest = rest(&apps, node, force);
        // What a node hosts that did not answer is not known to have left.
        if rest.moving.is_empty() && apps.unanswered.is_empty() {
            return Ok(rest);
        }
        if rest != before {
            (before, changed) = (rest, Instant::now());
        } else if changed.elapsed() > PATIENCE {
            return Ok(before);
        }
        sleep(LOOK_AGAIN).await;
    }
}

fn rest(apps: &Apps, node: NodeId, force: bool) -> Rest {
    let by_id: BTreeMap<AppId, &AppSummary> = apps.apps.iter().map(|it| (it.app, it)).collect();
    let stays = |it: &&ObjectFacts| {
        let app = by_id.get(&it.app);
        !force && app.is_some_and(|app| app.restart == Restart::No)
    };
    let here = apps.objects.iter();
    let here = here.filter(|it| it.node == node && it.phase.is_alive());
    let (staying, moving): (Vec<_>, Vec<_>) = here.partition(stays);
    let names = |objects: Vec<&ObjectFacts>| objects.into_iter().map(object_name).collect();
    Rest {
        moving: names(moving),
        staying: names(staying),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verb::ps::tests::{app, object};
    use wire::fact::Phase;

    #[test]
    fn only_what_is_restarted_elsewhere_moves() {
        let mut job = app("job", 1, 1);
        job.restart = Restart::No;
        let apps = Apps {
            apps: vec![job, app("web", 3, 3)],
            objects: vec![
                object("job", 0, Phase::Running),
                object("web", 0, Phase::Stopping),
                object("web", 1, Phase::Running),
            ],
            unanswered: Vec::new(),
        };
        // The objects of index 0 are on this one.
        let node = NodeId([0; 32]);
        let check = |force, moving: &[&str], staying: &[&str]| {
            let rest = rest(&apps, node, force);
            assert_eq!(rest.moving, moving);
            assert_eq!(rest.staying, staying);
        };
        check(false, &["web/0"], &["job/0"]);
        check(true, &["job/0", "web/0"], &[]);
    }
}

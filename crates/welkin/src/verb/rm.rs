//! `welkin rm`: apps are forgotten.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use wire::call::{AppList, Apps, Remove};
use wire::fact::ObjectFacts;
use wire::id::ObjectId;

use crate::context::Context;
use crate::failure::Failure;
use crate::{flags, manual, output, targets};

/// Forget apps: their records, their logs, their scratch files
#[derive(Debug, Args)]
#[command(after_help = manual::RM)]
pub(crate) struct Arguments {
    #[command(flatten)]
    apps: flags::Apps,
    /// Also when they run.
    #[arg(short, long)]
    force: bool,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    let request = |target: &str| Remove {
        target: target.to_owned(),
        force: arguments.force,
    };
    let mut names = arguments.apps.apps.clone();
    if names.iter().any(|it| is_id(it)) {
        let list = AppList {
            all: true,
            target: None,
        };
        names = whole_apps(&names, &context.client.call(list).await?);
    }
    targets::each(context, "removing", &names, request, |name, _| {
        output::line(name)
    })
    .await
}

/// Whether it is a whole id, as `welkin ps -q` prints it.
fn is_id(text: &str) -> bool {
    text.parse::<ObjectId>().is_ok()
}

/// Whoever names all objects of an app means the app; one object alone cannot be removed.
fn whole_apps(names: &[String], apps: &Apps) -> Vec<String> {
    let named: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let is_named = |it: &ObjectFacts| named.contains(it.object.to_string().as_str());
    let mut whole = BTreeMap::new();
    for object in &apps.objects {
        *whole.entry(object.app_name.as_str()).or_insert(true) &= is_named(object);
    }
    let meant = names.iter().map(|name| {
        let mut objects = apps.objects.iter();
        let object = objects.find(|it| it.object.to_string() == *name);
        let app = object.map(|it| it.app_name.as_str());
        let app = app.filter(|app| whole.get(app).is_some_and(|whole| *whole));
        app.unwrap_or(name).to_owned()
    });
    meant.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verb::ps::tests::object;
    use wire::fact::Phase;

    /// `welkin rm -f $(welkin ps -aq)` was refused for every app with more than one object.
    #[test]
    fn all_objects_of_an_app_are_the_app() {
        let objects = vec![
            object("job", 0, Phase::Ended),
            object("web", 0, Phase::Running),
            object("web", 1, Phase::Running),
        ];
        let ids: Vec<String> = objects.iter().map(|it| it.object.to_string()).collect();
        let apps = Apps {
            apps: Vec::new(),
            objects,
            unanswered: Vec::new(),
        };
        assert_eq!(whole_apps(&ids, &apps), ["job", "web", "web"]);
        let some = ["empty".to_owned(), ids[1].clone()];
        assert_eq!(whole_apps(&some, &apps), some);
        assert!(is_id(&ids[0]) && !is_id("web") && !is_id("6a6a"));
    }
}

//! `welkin ps`: apps and objects, wherever they are.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use wire::call::{AppList, AppSummary, Apps, Locate};
use wire::fact::{ObjectFacts, Phase};
use wire::health::HealthState;
use wire::id::{AppId, UnixMillis};

use crate::context::{Context, NodeNames, object_name};
use crate::failure::Failure;
use crate::output::human;
use crate::output::listing::{Listing, People};
use crate::output::style::Style;
use crate::output::table::{Column, Table};
use crate::{clock, completion, flags, manual, output, progress, schedule, watch};

/// Longest command in a table that is not wide.
const COMMAND_CHARACTERS: usize = 36;

/// List apps and their objects, wherever they are
///
/// With -q, an app without objects is shown by its name: other verbs take that as well as ids.
#[derive(Debug, Args)]
#[command(after_help = manual::PS, visible_alias = "ls")]
pub(crate) struct Arguments {
    /// Only this app or object.
    #[arg(value_name = "TARGET", add = ArgValueCompleter::new(completion::targets))]
    target: Option<String>,
    /// Also what has ended.
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    watching: flags::Watching,
    #[command(flatten)]
    output: flags::Output,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    let output = &arguments.output;
    if watch::is_wanted(arguments.watching, output, context.screen)? {
        return watch::watch(async || {
            let (apps, names) = ask(arguments, context).await?;
            let listing = listing(&apps, &names, clock::now(), output.is_whole());
            listing.render(output, context.screen.out_colours())
        })
        .await;
    }
    let asking = ask(arguments, context);
    let (apps, names) = progress::shown(context.screen, "asking the nodes", asking).await?;
    listing(&apps, &names, clock::now(), output.is_whole()).show(output, context.screen)?;
    if !output.is_for_programs() {
        remarks(&apps, arguments, context);
    }
    unanswered(context, &apps.unanswered);
    Ok(0)
}

async fn ask(arguments: &Arguments, context: &Context) -> Result<(Apps, NodeNames), Failure> {
    let list = AppList {
        all: arguments.all,
        target: arguments.target.clone(),
    };
    let (apps, names) = tokio::join!(context.client.call(list), context.node_names());
    let apps = apps?;
    if let Some(target) = &arguments.target
        && apps.apps.is_empty()
        && apps.objects.is_empty()
    {
        expect_target(context, target).await?;
    }
    Ok((apps, names))
}

/// Fails when nothing has this name: an empty list would look as if nothing of it ran.
pub(crate) async fn expect_target(context: &Context, target: &str) -> Result<(), Failure> {
    let target = target.to_owned();
    context.client.call(Locate { target }).await?;
    Ok(())
}

/// Says that nothing runs, or nothing of what was named.
pub(crate) fn say_nothing_runs(context: &Context, target: Option<&str>) {
    if let Some(target) = target {
        output::say(&format!("nothing of {target} runs"));
        output::hint(context.screen, &format!("welkin explain {target}"));
    } else {
        output::say("nothing runs");
        let next = "welkin ps -a, to see what has ended; or welkin run -- uname -a";
        output::hint(context.screen, next);
    }
}

/// What a table cannot say.
fn remarks(apps: &Apps, arguments: &Arguments, context: &Context) {
    if apps.apps.is_empty() && apps.objects.is_empty() {
        if arguments.all && arguments.target.is_none() {
            output::say("there are no apps yet");
            output::hint(context.screen, "welkin run -- uname -a");
        } else {
            say_nothing_runs(context, arguments.target.as_deref());
        }
    }
    for app in &apps.apps {
        if let Some(trouble) = &app.trouble {
            output::warn(context.screen, &format!("{}: {trouble}", app.name));
            output::hint(context.screen, &format!("welkin explain {}", app.name));
        }
    }
}

/// Says which nodes did not answer, if any.
pub(crate) fn unanswered(context: &Context, nodes: &[String]) {
    if !nodes.is_empty() {
        let who = nodes.join(", ");
        let text = format!("no answer in time from {who}: what is there may be missing here");
        output::warn(context.screen, &text);
    }
}

fn listing<'a>(
    apps: &'a Apps,
    nodes: &NodeNames,
    now: UnixMillis,
    whole: bool,
) -> Listing<'a, Apps> {
    let objects = apps.objects.iter().map(|it| it.object.to_string());
    let bare = without_objects(apps).map(|it| it.name.clone());
    Listing {
        whole: apps,
        items: "objects",
        names: apps.apps.iter().map(|it| it.name.clone()).collect(),
        ids: objects.chain(bare).collect(),
        people: People::Table(table(apps, nodes, now, whole)),
    }
}

fn without_objects(apps: &Apps) -> impl Iterator<Item = &AppSummary> {
    let with_objects: BTreeSet<AppId> = apps.objects.iter().map(|it| it.app).collect();
    apps.apps
        .iter()
        .filter(move |it| !with_objects.contains(&it.app))
}

fn table(apps: &Apps, nodes: &NodeNames, now: UnixMillis, whole: bool) -> Table {
    let by_id: BTreeMap<AppId, &AppSummary> = apps.apps.iter().map(|it| (it.app, it)).collect();
    let mut rows: Vec<_> = Vec::new();
    for object in &apps.objects {
        let mut cells = object_cells(object, nodes, now, whole);
        match by_id.get(&object.app) {
            Some(app) => {
                if let (Some(next), false) = (app.next, object.phase.is_alive())
                    && let Some(state) = cells.get_mut(STATE)
                {
                    state.push_str(&format!(", {}", schedule::until(next, now)));
                }
                cells.extend(app_cells(app, whole));
            }
            None => cells.extend(APP_COLUMNS.map(|_| human::NOTHING.to_owned())),
        }
        rows.push(Row {
            app: object.app_name.clone(),
            style: style(object),
            cells,
        });
    }
    rows.extend(without_objects(apps).map(|app| app_row(app, now, whole)));
    // Sorted by app; the rows of one app are in the order of their objects already.
    rows.sort_by(|a, b| a.app.cmp(&b.app));
    draw(rows)
}

/// Objects as rows, where their app has been described.
pub(crate) fn objects_table(objects: &[ObjectFacts], nodes: &NodeNames, now: UnixMillis) -> Table {
    let mut table = Table::new(&OBJECT_COLUMNS);
    for object in objects {
        table.row(style(object), object_cells(object, nodes, now, false));
    }
    table
}

/// What is the object's own.
const OBJECT_COLUMNS: [Column; 7] = [
    Column::text("NAME"),
    Column::text("ID"),
    Column::text("NODE"),
    Column::text("STATE"),
    Column::number("SINCE"),
    Column::number("RESTARTS"),
    Column::number("PID").wide(),
];

/// Which of them says what it does.
const STATE: usize = 3;

/// What is its app's.
const APP_COLUMNS: [Column; 3] = [
    Column::text("PORTS"),
    Column::text("RESTART").wide(),
    Column::text("COMMAND"),
];

struct Row {
    app: String,
    style: Style,
    cells: Vec<String>,
}

fn draw(rows: Vec<Row>) -> Table {
    let mut table = Table::new(&[OBJECT_COLUMNS.as_slice(), APP_COLUMNS.as_slice()].concat());
    for row in rows {
        table.row(row.style, row.cells);
    }
    table
}

/// Cells for [`OBJECT_COLUMNS`].
fn object_cells(
    object: &ObjectFacts,
    nodes: &NodeNames,
    now: UnixMillis,
    whole: bool,
) -> Vec<String> {
    vec![
        object_name(object),
        human::id(&object.object, object.object.short(), whole),
        nodes.get(object.node),
        human::state(object),
        human::ago(human::since(object), now),
        object.restarts.to_string(),
        human::or_nothing(object.pid.map(|it| it.to_string()).unwrap_or_default()),
    ]
}

/// Cells for [`APP_COLUMNS`].
fn app_cells(app: &AppSummary, whole: bool) -> Vec<String> {
    let command = human::command(&app.command);
    let command = if whole {
        command
    } else {
        human::shorten(&command, COMMAND_CHARACTERS)
    };
    vec![
        human::or_nothing(human::pairs(&app.ports, ':')),
        human::restart(app.restart),
        command,
    ]
}

/// An app that has no objects: stopped, scaled to none, or waiting for other apps or for a place.
fn app_row(app: &AppSummary, now: UnixMillis, whole: bool) -> Row {
    let (state, style) = if app.stopped {
        ("stopped".to_owned(), Style::Dim)
    } else if app.wanted == 0 {
        ("0 wanted".to_owned(), Style::Dim)
    } else if let Some(waiting) = &app.waiting {
        (waiting.clone(), Style::Warning)
    } else if let Some(next) = app.next {
        (schedule::until(next, now), Style::Plain)
    } else {
        (format!("{} of {}", app.running, app.wanted), Style::Warning)
    };
    let nothing = || human::NOTHING.to_owned();
    let mut cells = vec![
        app.name.clone(),
        human::id(&app.app, app.app.short(), whole),
        nothing(),
        state,
        human::ago(app.created, now),
        nothing(),
        nothing(),
    ];
    cells.extend(app_cells(app, whole));
    Row {
        app: app.name.clone(),
        style,
        cells,
    }
}

fn style(object: &ObjectFacts) -> Style {
    let well = object
        .last_exit
        .as_ref()
        .is_none_or(|it| it.reason.is_success());
    match object.phase {
        Phase::Running if object.serves() => Style::Plain,
        Phase::Running if object.health == Some(HealthState::Starting) => Style::Warning,
        Phase::Running => Style::Bad,
        Phase::Starting | Phase::Stopping | Phase::Waiting => Style::Warning,
        Phase::Ended if well => Style::Dim,
        Phase::Ended | Phase::Failed => Style::Bad,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::flags::{Form, Output};
    use crate::verb::node::list::tests::node;
    use expect_test::{Expect, expect};
    use wire::call::NodeState;
    use wire::fact::{Exit, ExitReason};
    use wire::id::{NodeId, ObjectId};
    use wire::spec::Restart;

    const NOW: UnixMillis = UnixMillis(10_000_000);

    pub(crate) fn object(app: &str, index: u32, phase: Phase) -> ObjectFacts {
        let number = u8::try_from(index).unwrap() + app.as_bytes()[0];
        let ended = matches!(phase, Phase::Ended | Phase::Failed | Phase::Waiting);
        ObjectFacts {
            object: ObjectId([number; 16]),
            app: AppId::of_name(app),
            app_name: app.to_owned(),
            index,
            node: NodeId([u8::try_from(index).unwrap(); 32]),
            epoch: 1,
            revision: 4,
            phase,
            halted: false,
            revised: wire::id::Version::default(),
            restart: Restart::Always,
            health: None,
            run: 0,
            restarts: index,
            created: UnixMillis(NOW.0 - 7_300_000),
            started: Some(UnixMillis(NOW.0 - 200_000)),
            last_exit: ended.then_some(Exit {
                reason: ExitReason::Signal(9),
                at: UnixMillis(NOW.0 - 5_000),
                asked: false,
            }),
            pid: (phase == Phase::Running).then_some(4242),
            protections_off: Vec::new(),
        }
    }

    pub(crate) fn app(name: &str, wanted: u32, running: u32) -> AppSummary {
        let command = ["/usr/bin/server", "--listen", "0.0.0.0:8080", "--verbose"];
        AppSummary {
            app: AppId::of_name(name),
            name: name.to_owned(),
            wanted,
            stopped: false,
            running,
            command: command.map(str::to_owned).to_vec(),
            restart: Restart::Always,
            ports: [("http".to_owned(), 8080)].into(),
            created: UnixMillis(NOW.0 - 7_200_000),
            trouble: None,
            waiting: None,
            next: None,
        }
    }

    fn check(output: &Output, expected: &Expect) {
        let apps = Apps {
            apps: vec![app("big", 2, 0), app("job", 0, 0), app("web", 2, 1)],
            objects: vec![
                object("job", 0, Phase::Ended),
                object("web", 0, Phase::Running),
                object("web", 1, Phase::Waiting),
            ],
            unanswered: Vec::new(),
        };
        let names = NodeNames::of(&[node(0, "atlas", NodeState::Up)]);
        let listing = listing(&apps, &names, NOW, output.is_whole());
        expected.assert_eq(&listing.render(output, false).unwrap());
    }

    #[test]
    fn objects_and_apps_without_objects_are_one_table() {
        check(
            &Output::default(),
            &expect![[r#"
            NAME   ID            NODE        STATE              SINCE  RESTARTS  PORTS      COMMAND
            big    af124cdf67ba  -           0 of 2                2h         -  http:8080  /usr/bin/server --listen 0.0.0.0:80…
            job/0  6a6a6a6a6a6a  atlas       ended (SIGKILL)       5s         0  http:8080  /usr/bin/server --listen 0.0.0.0:80…
            web/0  777777777777  atlas       running               3m         0  http:8080  /usr/bin/server --listen 0.0.0.0:80…
            web/1  787878787878  0101010101  waiting (SIGKILL)     5s         1  http:8080  /usr/bin/server --listen 0.0.0.0:80…
        "#]],
        );
        check(
            &Output::of(Form::Wide),
            &expect![[r#"
                NAME   ID                                NODE        STATE              SINCE  RESTARTS   PID  PORTS      RESTART  COMMAND
                big    af124cdf67bafc694f86584b1c1e0f93  -           0 of 2                2h         -     -  http:8080  always   /usr/bin/server --listen 0.0.0.0:8080 --verbose
                job/0  6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a  atlas       ended (SIGKILL)       5s         0     -  http:8080  always   /usr/bin/server --listen 0.0.0.0:8080 --verbose
                web/0  77777777777777777777777777777777  atlas       running               3m         0  4242  http:8080  always   /usr/bin/server --listen 0.0.0.0:8080 --verbose
                web/1  78787878787878787878787878787878  0101010101  waiting (SIGKILL)     5s         1     -  http:8080  always   /usr/bin/server --listen 0.0.0.0:8080 --verbose
            "#]],
        );
    }

    #[test]
    fn names_ids_and_templates_are_for_scripts() {
        check(
            &Output::of(Form::Name),
            &expect![[r#"
                big
                job
                web
            "#]],
        );
        let quiet = Output::bare(true, false);
        check(
            &quiet,
            &expect![[r#"
                6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a
                77777777777777777777777777777777
                78787878787878787878787878787878
                big
            "#]],
        );
        check(
            &Output::by_template("{{.app_name}}/{{.index}} {{.phase}}"),
            &expect![[r#"
                job/0 ended
                web/0 running
                web/1 waiting
            "#]],
        );
        let bare = Output::bare(false, true);
        check(
            &bare,
            &expect![[r#"
            big    af124cdf67ba  -           0 of 2             2h  -  http:8080  /usr/bin/server --listen 0.0.0.0:80…
            job/0  6a6a6a6a6a6a  atlas       ended (SIGKILL)    5s  0  http:8080  /usr/bin/server --listen 0.0.0.0:80…
            web/0  777777777777  atlas       running            3m  0  http:8080  /usr/bin/server --listen 0.0.0.0:80…
            web/1  787878787878  0101010101  waiting (SIGKILL)  5s  1  http:8080  /usr/bin/server --listen 0.0.0.0:80…
        "#]],
        );
    }

    #[test]
    fn an_app_that_wants_nothing_is_not_a_stopped_one() {
        let state = |app: &AppSummary| app_row(app, NOW, false).cells[3].clone();
        let mut none = app("web", 0, 0);
        assert_eq!(state(&none), "0 wanted");
        none.stopped = true;
        assert_eq!(state(&none), "stopped");
        let mut waits = app("web", 2, 0);
        waits.waiting = Some("waiting for db".to_owned());
        assert_eq!(state(&waits), "waiting for db");
        let mut sleeps = app("backup", 1, 0);
        sleeps.next = Some(UnixMillis(NOW.0 + 240_000));
        assert_eq!(state(&sleeps), "next in 4m");
    }

    #[test]
    fn nothing_is_an_empty_table_without_titles() {
        let apps = Apps {
            apps: Vec::new(),
            objects: Vec::new(),
            unanswered: Vec::new(),
        };
        let text =
            listing(&apps, &NodeNames::default(), NOW, false).render(&Output::default(), false);
        assert_eq!(text.unwrap(), "");
    }
}

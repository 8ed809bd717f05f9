//! `apply`, `update` and `inspect --spec` against a pretended node.

use std::fs;
use std::path::Path;

use wire::call::{Applied, Apply, Change, Expected, Inspection, Problem};
use wire::id::{AppId, Version};
use wire::spec::AppSpec;

use super::{Answer, against, object, ok, refused, said, welkin};

const FILE: &str = "name = \"web\"\nrun = [\"serve\"]\nmemory = \"64M\"\n";

fn spec() -> AppSpec {
    let json = r#"{"name":"web","program":{"arguments":["serve"]},
        "resources":{"memory_bytes":67108864}}"#;
    serde_json::from_str(json).unwrap()
}

fn version(millis: u64) -> Version {
    Version {
        millis,
        ..Version::default()
    }
}

fn inspection(spec: AppSpec) -> Inspection {
    Inspection {
        app: AppId::of_name("web"),
        spec,
        stopped: false,
        objects: vec![object(0)],
        guardians: Vec::new(),
        trouble: None,
        waiting: None,
        next: None,
        runs: Vec::new(),
        version: version(1),
        previous: None,
        update: None,
        undone: None,
    }
}

fn applied(change: Change, millis: u64) -> Answer {
    ok(&Applied {
        app: AppId::of_name("web"),
        name: "web".to_owned(),
        change,
        version: version(millis),
    })
}

fn no_app() -> Answer {
    refused(&Problem::not_found("app", "web"))
}

/// Runs `welkin VERB… FILE` in a file's directory against a node.
fn with_file(
    text: &str,
    line: &str,
    script: impl Fn(&str, &str) -> Answer + Send + Sync + 'static,
) -> (i32, String, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("app.toml");
    fs::write(&file, text).unwrap();
    against(&format!("{line} {}", file.display()), script)
}

#[test]
fn a_dry_run_shows_the_difference_and_exits_as_diff_does() {
    let is = |memory_bytes: u64| {
        move |path: &str, _: &str| {
            assert_eq!(path, "app/inspect", "nothing is changed");
            let mut spec = spec();
            spec.resources.memory_bytes = memory_bytes;
            ok(&inspection(spec))
        }
    };
    let same = with_file(FILE, "apply --dry-run", is(64 << 20));
    assert_eq!(same, (0, String::new(), String::new()));
    let differs = with_file(FILE, "apply --dry-run", is(32 << 20));
    let plan = "web changes\n  memory: 32M → 64M\n  objects: 1 replaced one after the other\n";
    assert_eq!(differs, (1, plan.to_owned(), String::new()));
    let (code, out, _) = with_file(FILE, "apply --dry-run", |_, _| no_app());
    assert_eq!(code, 1);
    assert!(out.starts_with("web is new\n"), "{out}");
    // A failure is no difference.
    let fails = |_: &str, _: &str| refused(&Problem::new(wire::call::ProblemCode::Busy, "busy"));
    assert_eq!(with_file(FILE, "apply --dry-run", fails).0, 2);
    assert_eq!(with_file(FILE, "apply", fails).0, 1);
}

#[test]
fn what_is_wrong_with_a_file_is_said_before_anything_is_changed() {
    let nothing = |path: &str, _: &str| panic!("{path}");
    let text = format!("{FILE}memroy = 1\n");
    let (code, out, err) = with_file(&text, "apply", nothing);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(
        err.contains("app.toml:4:1: there is no `memroy`\n  try: memory = …\n"),
        "{err}"
    );
    let two = format!("[[app]]\n{FILE}[[app]]\n{FILE}");
    let (code, _, err) = with_file(&two, "apply", nothing);
    assert_eq!(code, 2);
    assert!(err.contains("web is there twice"), "{err}");
    let (code, _, err) = against("apply /no/such/file", nothing);
    assert_eq!(code, 2);
    assert!(err.contains("/no/such/file: "), "{err}");
}

#[test]
fn a_change_is_made_of_what_was_seen_and_followed_to_its_end() {
    let new = |path: &str, body: &str| {
        if path == "app/inspect" {
            return no_app();
        }
        let apply: Apply = serde_json::from_str(body).unwrap();
        assert_eq!((apply.expected, apply.roll_back), (Expected::Absent, true));
        assert_eq!(*apply.spec, spec());
        applied(Change::Created, 1)
    };
    let created = with_file(FILE, "apply -d", new);
    assert_eq!(created, (0, "web created\n".to_owned(), String::new()));
    let changes = |path: &str, body: &str| {
        if path == "app/inspect" {
            return ok(&inspection(spec()));
        }
        let apply: Apply = serde_json::from_str(body).unwrap();
        assert_eq!(apply.expected, Expected::Version(version(1)));
        assert_eq!(apply.spec.program.arguments, ["serve", "-v"]);
        assert_eq!(apply.spec.resources.memory_bytes, 64 << 20);
        // What the inspection says from then on is of this version, and all runs.
        applied(Change::Changed, 1)
    };
    let changed = against("update web -- serve -v", changes);
    assert_eq!(changed, (0, "web changed\n".to_owned(), String::new()));
    let undone = |path: &str, _: &str| {
        let mut inspection = inspection(spec());
        inspection.undone = Some("web/0 ended with code 3".to_owned());
        if path == "app/inspect" {
            return ok(&inspection);
        }
        applied(Change::Changed, 0)
    };
    let (code, out, err) = against("update web --memory 1G", undone);
    assert_eq!((code, out.as_str()), (1, ""));
    let why = "welkin: the update of web was undone: web/0 ended with code 3\n";
    assert!(err.starts_with(why), "{err}");
}

#[test]
fn going_back_needs_something_to_go_back_to() {
    let knows_nothing = |_: &str, _: &str| ok(&inspection(spec()));
    let (code, _, err) = against("update --rollback web", knows_nothing);
    assert_eq!(code, 1);
    assert!(err.contains("what web was before"), "{err}");
    // What was before is what did not come up.
    let (code, _, err) = against("update --rollback web", |_, _| {
        let mut found = inspection(spec());
        found.previous = Some(spec().into());
        found.undone = Some("it ended".to_owned());
        ok(&found)
    });
    assert_eq!(code, 1);
    assert!(err.contains("undone already: it ended"), "{err}");
    let (code, out, _) = against("update --rollback -d web", |path, body| {
        let mut found = inspection(spec());
        let mut before = spec();
        before.program.arguments = vec!["old".to_owned()];
        found.previous = Some(before.into());
        if path == "app/inspect" {
            return ok(&found);
        }
        let apply: Apply = serde_json::from_str(body).unwrap();
        assert_eq!(apply.spec.program.arguments, ["old"]);
        applied(Change::Changed, 2)
    });
    assert_eq!((code, out.as_str()), (0, "web changed\n"));
}

#[test]
fn what_inspect_writes_changes_nothing() {
    let (code, out, _) = against("inspect --spec web", |_, _| ok(&inspection(spec())));
    assert_eq!((code, out.as_str()), (0, FILE));
    let state = tempfile::tempdir().unwrap();
    super::serve(state.path(), |path, _| match path {
        "app/inspect" => ok(&inspection(spec())),
        _ => applied(Change::Unchanged, 1),
    });
    let output = fed(state.path(), "apply -", &out);
    assert_eq!(output, (0, "web unchanged\n".to_owned(), String::new()));
}

fn fed(state: &Path, line: &str, input: &str) -> (i32, String, String) {
    let file = state.join("input");
    fs::write(&file, input).unwrap();
    let mut command = welkin(state, line);
    command.stdin(fs::File::open(file).unwrap());
    said(&command.output().unwrap())
}

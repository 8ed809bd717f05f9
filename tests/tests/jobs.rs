//! Apps that run at certain times, in a cloud of three nodes without any privilege.

use std::time::Duration;

use end_to_end::{LoopbackCloud, until, words};
use serde_json::Value;

/// A user without any privilege: nobody.
const NOBODY: u32 = 65534;
const PATIENCE: Duration = Duration::from_secs(40);

fn inspect(cloud: &LoopbackCloud, app: &str) -> Value {
    cloud.welkin(2, &format!("inspect {app} -o json")).json()[0].clone()
}

/// The runs of an app that have ended, the last one first.
fn ended(cloud: &LoopbackCloud, app: &str) -> Vec<Value> {
    let runs = inspect(cloud, app)["runs"].as_array().cloned();
    let has_ended = |run: &Value| !run["attempt"]["exit"].is_null();
    runs.unwrap_or_default()
        .into_iter()
        .filter(has_ended)
        .collect()
}

#[test]
fn an_app_runs_again_and_again_at_its_interval() {
    let cloud = LoopbackCloud::new(3, Some(NOBODY));
    let mut line = words("run --name tick --every 1s -- sh -c");
    line.push("echo tick; exit 3".to_string());
    let made = cloud.welkin_with(0, &line, b"");
    assert!(
        made.stderr.contains("tick runs in 1s, at 2"),
        "{}",
        made.stderr
    );
    assert_eq!(made.ok(), "tick\n", "its name, and nothing of its output");
    let runs = until("it has run three times", PATIENCE, || {
        Some(ended(&cloud, "tick")).filter(|runs| runs.len() >= 3)
    });
    assert_eq!(runs[0]["attempt"]["exit"]["reason"]["code"], 3);
    let number = |run: &Value| run["number"].as_u64().expect("a number");
    let due = |run: &Value| run["due"].as_u64().expect("a moment");
    for pair in runs.windows(2) {
        assert_eq!(number(&pair[0]), number(&pair[1]) + 1, "{runs:?}");
        let apart_ms = due(&pair[0]) - due(&pair[1]);
        assert_eq!(apart_ms % 1000, 0, "its phase stays");
    }
    let events = cloud.welkin(1, "events").ok();
    assert!(events.contains("run.begun"), "{events}");
    assert!(events.contains("run 1 ended with code 3"), "{events}");
    let explained = cloud.welkin(1, "explain tick").ok();
    assert!(explained.contains("next run"), "{explained}");
    until("the last run can be read", PATIENCE, || {
        let read = cloud.welkin(2, "logs tick");
        (read.code == 0 && read.stdout == "tick\n").then_some(())
    });

    // Stopped, it does not run; started, it goes on; and with another interval it is idle.
    let _stopped = cloud.welkin(0, "stop tick").ok();
    assert!(inspect(&cloud, "tick")["next"].is_null());
    let _changed = cloud.welkin(1, "update tick --every 1h").ok();
    let _resumed = cloud.welkin(1, "start tick").ok();
    let listed = cloud.welkin(2, "ps").ok();
    assert!(
        listed.contains("next in 59m") || listed.contains("next in 1h"),
        "{listed}"
    );
    let before = number(&ended(&cloud, "tick")[0]);
    let _now = cloud.welkin(0, "start tick").ok();
    until("it runs because it was asked to", PATIENCE, || {
        let runs = ended(&cloud, "tick");
        (number(&runs[0]) == before + 1).then_some(())
    });
    let _gone = cloud.welkin(0, "rm -f tick").ok();
}

#[test]
fn one_run_at_a_time() {
    let cloud = LoopbackCloud::new(1, Some(NOBODY));
    let _made = cloud
        .welkin_with(0, &words("run --name slow --every 1s -- sleep 1000"), b"")
        .ok();
    let skipped = until("runs are skipped", PATIENCE, || {
        let told = cloud.welkin(0, "inspect slow -o json").json()[0].clone();
        assert!(
            told["runs"].as_array().is_some_and(|runs| runs.len() <= 1),
            "{told}"
        );
        told["runs"][0]["skipped"]
            .as_u64()
            .filter(|skipped| *skipped >= 2)
    });
    let told = cloud.welkin(0, "events").ok();
    assert!(told.contains("run.skipped"), "{skipped}: {told}");
    let _ended = cloud.welkin(0, "kill slow").ok();
    until("the next one begins", PATIENCE, || {
        let told = cloud.welkin(0, "inspect slow -o json").json()[0].clone();
        (told["runs"][0]["number"] == 2).then_some(())
    });
}

#[test]
fn an_app_that_runs_once_is_gone_then() {
    let cloud = LoopbackCloud::new(2, Some(NOBODY));
    let made = cloud.welkin(0, "run --rm --name once --at +2s -- sleep 1");
    assert_eq!(made.ok(), "once\n");
    let waited = cloud.welkin(1, "wait once");
    assert_eq!(waited.ok(), "0\n");
    until("it has removed itself", PATIENCE, || {
        cloud.welkin(1, "ps -a -q").ok().is_empty().then_some(())
    });
}

#[test]
fn a_file_says_when_an_app_runs() {
    let cloud = LoopbackCloud::new(1, Some(NOBODY));
    let apply = |file: &str| cloud.welkin_with(0, &words("apply -"), file.as_bytes());
    let file = "name = \"backup\"\nrun = [\"true\"]\n";
    let nightly = format!("{file}cron = \"30 3 * * mon-fri\"\n");
    assert_eq!(apply(&nightly).ok(), "backup created\n");
    assert_eq!(apply(&nightly).ok(), "backup unchanged\n");
    assert_eq!(cloud.welkin(0, "inspect --spec backup").ok(), nightly);
    assert_eq!(
        apply(&format!("{file}every = \"12h\"\n")).ok(),
        "backup changed\n"
    );
    let described = cloud.welkin(0, "inspect backup").ok();
    assert!(described.contains("every 12h"), "{described}");
    for (wrong, told) in [
        (format!("{file}cron = \"0 0 31 2 *\"\n"), "never due"),
        (
            format!("{file}every = \"1h\"\nrestart = \"always\"\n"),
            "--restart on-failure",
        ),
        (file.to_string(), "settled when it is made"),
    ] {
        let refused = apply(&wrong);
        assert_ne!(refused.code, 0);
        assert!(refused.stderr.contains(told), "{}", refused.stderr);
    }
    for (flags, told) in [
        ("--every 0.5", "--restart always"),
        ("--at 2020-01-01T00:00:00Z", "ago"),
        ("--cron @reboot", "@hourly"),
        ("--every 1h --cron @daily", "cannot be used with"),
        ("-it --every 1h", "leave -i and -t out"),
        ("--every 1h --replicas 2", "leave --replicas out"),
    ] {
        let refused = cloud.welkin(0, &format!("run {flags} -- true"));
        assert_ne!(refused.code, 0, "{flags}");
        assert!(refused.stderr.contains(told), "{flags}: {}", refused.stderr);
    }
}

#[test]
fn a_deadline_ends_a_program() {
    let cloud = LoopbackCloud::new(1, Some(NOBODY));
    let ran = cloud.welkin(0, "run --deadline 1s --name slow -- sleep 1000");
    assert_eq!(ran.code, 143, "it was asked to end: {}", ran.stderr);
    let exit = cloud.welkin(0, "inspect slow -o json").json()[0]["objects"][0].clone();
    assert_eq!(exit["last_exit"]["reason"], "overdue", "{exit}");
    let told = cloud.welkin(0, "events").ok();
    assert!(told.contains("object.overdue"), "{told}");
    let refused = cloud.welkin(0, "run --deadline 0.1 -- true");
    assert!(
        refused.stderr.contains("write for example 30s"),
        "{}",
        refused.stderr
    );

    let _made = cloud
        .welkin(0, "run --name job --every 2s --deadline 1s -- sleep 1000")
        .ok();
    until("the run is over, and another one begins", PATIENCE, || {
        let runs = cloud.welkin(0, "inspect job -o json").json()[0]["runs"].clone();
        (runs[1]["attempt"]["exit"]["reason"] == "overdue").then_some(())
    });
}

//! Apps as files say, and updates of what runs, in a cloud of three nodes without any privilege.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use end_to_end::{LoopbackCloud, Ran, objects_of, running_of, until, words};

/// A user without any privilege: nobody.
const NOBODY: u32 = 65534;
const PATIENCE: Duration = Duration::from_secs(40);

const FILE: &str = r#"
name = "web"
run = ["sh", "-c", "exec sleep 1000"]
replicas = 3
restart = "always"
cpu = "0.1"
stop-timeout = "1s"
"#;

fn running(cloud: &LoopbackCloud, node: usize) -> BTreeSet<String> {
    let listed = cloud.welkin(node, "ps web -a -o json");
    let objects = running_of(objects_of(&listed));
    let id = |object: &serde_json::Value| object["object"].as_str().map(str::to_string);
    objects.iter().filter_map(id).collect()
}

fn await_running(cloud: &LoopbackCloud, node: usize, count: usize) -> BTreeSet<String> {
    until(&format!("{count} run"), PATIENCE, || {
        let running = running(cloud, node);
        (running.len() == count).then_some(running)
    })
}

fn apply(cloud: &LoopbackCloud, node: usize, flags: &str, file: &str) -> Ran {
    let line = format!("apply {flags} -");
    let line: Vec<String> = words(&line)
        .into_iter()
        .filter(|it| !it.is_empty())
        .collect();
    cloud.welkin_with(node, &line, file.as_bytes())
}

#[test]
fn apps_are_as_files_say() {
    let cloud = LoopbackCloud::new(3, Some(NOBODY));
    let plan = apply(&cloud, 0, "--dry-run", FILE);
    assert_eq!(plan.code, 1, "{}", plan.stderr);
    assert!(plan.stdout.starts_with("web is new\n"), "{}", plan.stdout);
    let listed = cloud.welkin(0, "ps -a -o json");
    assert!(objects_of(&listed).is_empty(), "a dry run changes nothing");

    assert_eq!(apply(&cloud, 0, "", FILE).ok(), "web created\n");
    let first = await_running(&cloud, 1, 3);
    assert_eq!(apply(&cloud, 2, "", FILE).ok(), "web unchanged\n");
    let same = apply(&cloud, 1, "--dry-run", FILE);
    assert_eq!((same.code, same.stdout.as_str()), (0, ""));

    // What is printed is such a file.
    let written = cloud.welkin(1, "inspect --spec web").ok();
    assert_eq!(apply(&cloud, 2, "", &written).ok(), "web unchanged\n");

    // Only how many there are, and what happens when they end: nothing is restarted.
    let changed = FILE
        .replace("replicas = 3", "replicas = 2")
        .replace("\"always\"", "\"on-failure:5\"");
    let plan = apply(&cloud, 0, "--dry-run", &changed);
    assert_eq!(plan.code, 1, "{}", plan.stderr);
    for told in [
        "replicas: 3 → 2",
        "always → on-failure:5",
        "2 kept, 1 retired",
    ] {
        assert!(plan.stdout.contains(told), "{told}: {}", plan.stdout);
    }
    assert_eq!(apply(&cloud, 0, "", &changed).ok(), "web changed\n");
    assert!(await_running(&cloud, 1, 2).is_subset(&first));
    until("their nodes know", PATIENCE, || {
        let objects = running_of(objects_of(&cloud.welkin(2, "ps web -o json")));
        let knows = |it: &serde_json::Value| it["restart"]["on-failure"]["retries_max"] == 5;
        objects.iter().all(knows).then_some(())
    });

    let mistyped = apply(&cloud, 0, "", &format!("{FILE}memroy = 1\n"));
    assert_eq!(mistyped.code, 2);
    let told = "standard input:8:1: there is no `memroy`\n  try: memory = …\n";
    assert!(mistyped.stderr.contains(told), "{}", mistyped.stderr);
}

/// Does it while the running objects are counted; says the fewest that were seen.
fn watched(cloud: &LoopbackCloud, work: impl FnOnce() -> Ran) -> (Ran, usize) {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut fewest = usize::MAX;
            while !is_over.load(Ordering::Relaxed) {
                fewest = fewest.min(running(cloud, 2).len());
            }
            fewest
        });
        let ran = work();
        is_over.store(true, Ordering::Relaxed);
        (ran, watch.join().expect("it counts"))
    })
}

#[test]
fn an_update_replaces_one_object_after_the_other_and_undoes_what_does_not_come_up() {
    let cloud = LoopbackCloud::new(3, Some(NOBODY));
    let _created = apply(&cloud, 0, "", FILE).ok();
    let first = await_running(&cloud, 2, 3);

    let line = "update web --env LEVEL=2";
    let (updated, fewest) = watched(&cloud, || cloud.welkin(1, line));
    assert!(
        updated.stderr.contains("web: 2 of 3 objects updated"),
        "{}",
        updated.stderr
    );
    assert_eq!(updated.ok(), "web changed\n");
    assert!(fewest >= 2, "only {fewest} ran");
    let second = await_running(&cloud, 0, 3);
    assert!(second.is_disjoint(&first), "all were replaced");
    let told = cloud.welkin_with(0, &words("exec web/2 -- printenv LEVEL"), b"");
    assert_eq!(told.ok(), "2\n");

    // What does not come up is undone; what was not reached yet was never touched.
    let mut line = words("update web -- sh -c");
    line.push("exit 3".to_string());
    let (failed, fewest) = watched(&cloud, || cloud.welkin_with(0, &line, b""));
    assert_eq!(failed.code, 1);
    assert!(
        failed
            .stderr
            .contains("was undone: web/0 ended with code 3"),
        "{}",
        failed.stderr
    );
    assert!(fewest >= 2, "only {fewest} ran");
    assert_eq!(await_running(&cloud, 1, 3), second, "the older ones serve");
    let again = cloud.welkin(2, "update --rollback web");
    assert_eq!(again.code, 1, "it was undone already");

    // By hand.
    let updated = cloud.welkin(0, "update web --env LEVEL=3").ok();
    assert_eq!(updated, "web changed\n");
    assert_eq!(
        cloud.welkin(1, "update --rollback web").ok(),
        "web changed\n"
    );
    let told = cloud.welkin_with(0, &words("exec web/1 -- printenv LEVEL"), b"");
    assert_eq!(told.ok(), "2\n");
    await_running(&cloud, 2, 3);
}

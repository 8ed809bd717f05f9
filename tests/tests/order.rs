//! Apps that come after others, in a cloud of three nodes without any privilege.

use std::time::Duration;

use end_to_end::{LoopbackCloud, objects_of, running_of, until, words};

/// A user without any privilege: nobody.
const NOBODY: u32 = 65534;
const PATIENCE: Duration = Duration::from_secs(40);

/// Started by its node at this time, when it runs; in milliseconds.
fn started(cloud: &LoopbackCloud, app: &str) -> Option<u64> {
    let objects = objects_of(&cloud.welkin(2, &format!("ps {app} -a -o json")));
    running_of(objects).first()?["started"].as_u64()
}

#[test]
fn apps_start_in_their_order_whatever_the_order_in_which_they_are_made() {
    let cloud = LoopbackCloud::new(3, Some(NOBODY));
    let waiting = cloud.welkin(
        0,
        "run -d --name web --after db --restart always -- sleep 1000",
    );
    let told = "web is waiting for db";
    assert!(waiting.stderr.contains(told), "{}", waiting.stderr);
    assert_eq!(waiting.ok(), "web\n");
    until("it is listed why", PATIENCE, || {
        let listed = cloud.welkin(1, "ps").ok();
        let told = "waiting for db, which is not there";
        listed.contains(told).then_some(())
    });

    // It is there, but not healthy until a file is.
    let flags = "run -d --name db --restart always --health-interval 1 --health-start-period 30 \
                 --health";
    let mut line = words(flags);
    line.push("test -e /tmp/ready".to_string());
    line.extend(words("-- sleep 1000"));
    let _started = cloud.welkin_with(1, &line, b"").ok();
    until("it is told why", PATIENCE, || {
        let explained = cloud.welkin(2, "explain web").ok();
        explained
            .contains("waiting for db: 0 of 1 are healthy")
            .then_some(())
    });
    assert_eq!(started(&cloud, "web"), None);
    let _ready = cloud.welkin(0, "exec db -- touch /tmp/ready").ok();
    let web = until("web runs", PATIENCE, || started(&cloud, "web"));
    assert!(started(&cloud, "db").is_some_and(|db| db < web));

    // What ends later stops nothing, and what is started again does not wait.
    let _stopped = cloud.welkin(0, "stop db").ok();
    let _killed = cloud.welkin(0, "kill web").ok();
    until("web runs again", PATIENCE, || {
        started(&cloud, "web").filter(|again| *again > web)
    });

    // A program in the foreground waits with its app.
    let file = "name = \"job\"\nrun = [\"sleep\", \"1\"]\n";
    let applied = cloud.welkin_with(2, &words("apply -d -"), file.as_bytes());
    assert_eq!(applied.ok(), "job created\n");
    let echoed = cloud.welkin(0, "run --after job -- echo done").ok();
    assert_eq!(echoed, "done\n");
    let ended = objects_of(&cloud.welkin(0, "ps job -a -o json"));
    assert_eq!(ended[0]["last_exit"]["reason"]["code"], 0);

    let circle = cloud.welkin(1, "run -d --name a --after b -- sleep 1");
    assert_eq!(circle.ok(), "a\n");
    let refused = cloud.welkin(2, "run -d --name b --after a -- sleep 1");
    assert_ne!(refused.code, 0);
    let told = "b comes after a, a comes after b";
    assert!(refused.stderr.contains(told), "{}", refused.stderr);
}

const FILE: &str = r#"
[[app]]
name = "front"
run = ["sleep", "1000"]
restart = "always"
after = ["back"]
[[app]]
name = "back"
run = ["sleep", "1000"]
restart = "always"
"#;

#[test]
fn a_file_of_several_apps_is_applied_in_any_order() {
    let cloud = LoopbackCloud::new(1, Some(NOBODY));
    let applied = cloud.welkin_with(0, &words("apply -"), FILE.as_bytes());
    assert_eq!(applied.ok(), "back created\nfront created\n");
    let again = cloud.welkin_with(0, &words("apply -"), FILE.as_bytes());
    assert_eq!(again.ok(), "back unchanged\nfront unchanged\n");
    let written = cloud.welkin(0, "inspect --spec front").ok();
    assert!(written.contains("after = [\"back\"]"), "{written}");

    let circle = format!("{FILE}after = \"front\"\n");
    let refused = cloud.welkin_with(0, &words("apply -"), circle.as_bytes());
    assert_eq!(refused.code, 2);
    let told = "front comes after back, back comes after front";
    assert!(refused.stderr.contains(told), "{}", refused.stderr);
}

//! Objects whose programs run and do not serve, on one node without any privilege.

use std::net::TcpListener;
use std::time::Duration;

use end_to_end::{LoopbackCloud, objects_of, until, words};

/// A user without any privilege: nobody.
const NOBODY: u32 = 65534;
const PATIENCE: Duration = Duration::from_secs(40);

/// Health and restarts of the only object of an app.
fn health(cloud: &LoopbackCloud, app: &str) -> (serde_json::Value, u64) {
    let objects = objects_of(&cloud.welkin(0, &format!("ps {app} -a -o json")));
    let object = objects.first().cloned().unwrap_or_default();
    let restarts = object["restarts"].as_u64().unwrap_or_default();
    (object["health"].clone(), restarts)
}

fn resolved(cloud: &LoopbackCloud, app: &str) -> usize {
    let answer = cloud
        .welkin(0, &format!("name resolve {app} -o json"))
        .json();
    answer["endpoints"].as_array().map_or(0, Vec::len)
}

#[test]
fn an_unhealthy_object_is_not_listed_and_started_again() {
    let cloud = LoopbackCloud::new(1, Some(NOBODY));
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = free.local_addr().expect("its address").port();
    drop(free);
    let serve = format!("cd /tmp; touch up; exec python3 -m http.server {port}");
    let flags = format!(
        "run -d --name web --restart always --health http:{port}/up --health-interval 1 \
         --health-retries 2 -- sh -c"
    );
    let mut line = words(&flags);
    line.push(serve);
    let _started = cloud.welkin_with(0, &line, b"").ok();
    until("it is healthy", PATIENCE, || {
        (health(&cloud, "web").0 == "healthy").then_some(())
    });
    assert_eq!(resolved(&cloud, "web"), 1);

    // From now on it runs and answers 404.
    let _removed = cloud.welkin(0, "exec web -- rm /tmp/up").ok();
    until("it is started again, and healthy", PATIENCE, || {
        (health(&cloud, "web") == ("healthy".into(), 1)).then_some(())
    });
    let seen = cloud.welkin(0, "inspect web -o json").json();
    let why = &seen[0]["objects"][0]["last_exit"]["reason"]["unhealthy"];
    assert_eq!(why, "HTTP/1.0 404 File not found", "{seen}");

    // What is printed is a file that says the same.
    let written = cloud.welkin(0, "inspect --spec web").ok();
    assert!(written.contains("health.interval = \"1s\""), "{written}");
    let applied = cloud.welkin_with(0, &words("apply -"), written.as_bytes());
    assert_eq!(applied.ok(), "web unchanged\n");

    // A command inside the object, which hangs; nobody is to start it again.
    let mut line = words("run -d --name slow --health-interval 1 --health-retries 1");
    line.extend(words(
        "--health-timeout 0.2 --health-start-period 0 --health",
    ));
    line.push("sleep 600".to_string());
    line.extend(words("-- sleep 1000"));
    let _started = cloud.welkin_with(0, &line, b"").ok();
    let why = until("it is unhealthy", PATIENCE, || {
        let (health, restarts) = health(&cloud, "slow");
        assert_eq!(restarts, 0);
        health["unhealthy"]["why"].as_str().map(str::to_string)
    });
    assert_eq!(why, "no answer within 0.2 s");
    assert_eq!(resolved(&cloud, "slow"), 0);
    let listed = cloud.welkin(0, "ps slow").ok();
    assert!(listed.contains("running (unhealthy)"), "{listed}");
}

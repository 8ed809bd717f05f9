//! A cloud of three nodes that nobody gave any privilege, on loopback: everything that needs no
//! root, from joining to the death of a node.

use std::fs;
use std::time::{Duration, Instant};

use end_to_end::{LoopbackCloud, objects_of, running_of, until, words};
use serde_json::Value;

/// A user without any privilege: nobody.
const NOBODY: u32 = 65534;
const PATIENCE: Duration = Duration::from_secs(40);

fn running(cloud: &LoopbackCloud, node: usize, app: &str) -> Vec<Value> {
    running_of(objects_of(
        &cloud.welkin(node, &format!("ps {app} -a -o json")),
    ))
}

fn await_running(cloud: &LoopbackCloud, node: usize, app: &str, count: usize) -> Vec<Value> {
    until(&format!("{count} of {app} run"), PATIENCE, || {
        let running = running(cloud, node, app);
        (running.len() == count).then_some(running)
    })
}

fn names_of_hosts(cloud: &LoopbackCloud, objects: &[Value]) -> Vec<String> {
    let table = cloud.welkin(0, "nodes -o json").json();
    let nodes = table["nodes"].as_array().cloned().unwrap_or_default();
    let name = |object: &Value| {
        let node = nodes.iter().find(|it| it["node"] == object["node"])?;
        node["name"].as_str().map(str::to_string)
    };
    objects.iter().filter_map(name).collect()
}

#[test]
fn a_cloud_without_root_does_all_that_needs_none() {
    let cloud = LoopbackCloud::new(3, Some(NOBODY));
    let mut arguments =
        words("run -d --name web --replicas 3 --spread --restart always --cpu 0.1 -- sh -c");
    arguments.push("echo here is $HOSTNAME; exec sleep 1000".to_string());
    let _web = cloud.welkin_with(1, &arguments, b"").ok();
    let objects = await_running(&cloud, 2, "web", 3);
    let mut hosts = names_of_hosts(&cloud, &objects);
    hosts.sort();
    assert_eq!(hosts, ["n0", "n1", "n2"], "spread over all");
    for node in 0..3 {
        let log = cloud.welkin(node, "logs web").ok();
        for slot in ["web/0", "web/1", "web/2"] {
            let told = log
                .lines()
                .any(|line| line.starts_with(slot) && line.contains("here is"));
            assert!(told, "{slot}, from n{node}: {log}");
        }
    }

    let inspected = cloud.welkin(0, "inspect web -o json").json();
    let off = inspected.to_string();
    assert!(
        off.contains("protections_off"),
        "says which protections are off: {off}"
    );

    for slot in 0..3 {
        let echoed = cloud.welkin_with(0, &words(&format!("exec -i web/{slot} -- cat")), b"in");
        assert_eq!(echoed.ok(), "in", "exec, wherever it is");
        let file = cloud.state_dir(0).join(format!("file{slot}"));
        fs::write(&file, format!("payload {slot}")).expect("root may write anywhere");
        let _in = cloud
            .welkin(0, &format!("cp {} web/{slot}:/tmp/file", file.display()))
            .ok();
        let read = cloud.welkin(2, &format!("exec web/{slot} -- cat /tmp/file"));
        assert_eq!(read.ok(), format!("payload {slot}"));
    }

    let _scaled = cloud.welkin(2, "scale web=5").ok();
    await_running(&cloud, 0, "web", 5);
    let _scaled = cloud.welkin(1, "scale web=2").ok();
    await_running(&cloud, 0, "web", 2);

    let _draining = cloud.welkin(0, "node drain n1").ok();
    until("n1 is empty", PATIENCE, || {
        let objects = running(&cloud, 0, "web");
        let hosts = names_of_hosts(&cloud, &objects);
        (hosts.len() == 2 && !hosts.contains(&"n1".to_string())).then_some(())
    });
    let _open = cloud.welkin(0, "node resume n1").ok();
    let gone = cloud.welkin(1, "rm -f web");
    assert_eq!(gone.code, 0, "{}", gone.stderr);
}

#[test]
fn without_root_too_a_dead_node_is_replaced_and_welcomed_back() {
    let cloud = LoopbackCloud::new(3, Some(NOBODY));
    let _app = cloud
        .welkin(0, "run -d --name app --restart always -- sleep 1000")
        .ok();
    let before = await_running(&cloud, 0, "app", 1);
    let host = names_of_hosts(&cloud, &before).remove(0);
    let victim = host[1..].parse().expect("nodes are n0, n1, n2");
    let witness = (victim + 1) % 3;
    cloud.kill(victim);
    let after = until("it runs elsewhere", PATIENCE, || {
        let objects = running(&cloud, witness, "app");
        objects
            .into_iter()
            .find(|it| it["node"] != before[0]["node"])
    });
    assert_ne!(after["object"], before[0]["object"]);

    let _back = cloud.welkin(victim, "up").ok();
    until("one runs, no more, as all see it", PATIENCE, || {
        (0..3)
            .all(|node| running(&cloud, node, "app").len() == 1)
            .then_some(())
    });
}

#[test]
fn tickets_without_root_are_counted_and_cannot_be_forged() {
    let cloud = LoopbackCloud::new(1, Some(NOBODY));
    let ticket = cloud.welkin(0, "invite --uses 1").ok().trim().to_string();
    let stranger = LoopbackCloud::strangers(2, Some(NOBODY));
    let line = |ticket: &str| format!("join {ticket} --listen 127.0.0.1:0");
    let mut forged = ticket.clone();
    let last = forged.pop().expect("a ticket is long");
    forged.push(if last == 'a' { 'b' } else { 'a' });
    let refused = stranger.welkin(0, &line(&forged));
    assert_ne!(refused.code, 0, "forged");
    let _in = stranger.welkin(0, &line(&ticket)).ok();
    let used_up = stranger.welkin(1, &line(&ticket));
    assert_ne!(used_up.code, 0, "used up");
    assert!(used_up.stderr.contains("ticket"), "{}", used_up.stderr);
    let expired = cloud.welkin(0, "invite --ttl 1s").ok().trim().to_string();
    #[expect(
        clippy::disallowed_methods,
        reason = "what expires does so by the clock"
    )]
    let made = Instant::now();
    until("its second is over", PATIENCE, || {
        (made.elapsed() > Duration::from_millis(1500)).then_some(())
    });
    let late = stranger.welkin(1, &line(&expired));
    assert_ne!(late.code, 0);
    assert!(late.stderr.contains("expired"), "{}", late.stderr);
}

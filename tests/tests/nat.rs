//! Nodes that move, and nodes that nobody can dial.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use end_to_end::{LabCloud, until, welkin};
use serde_json::Value;

/// How long a node may be away that was carried to another network.
const BACK: Duration = Duration::from_secs(5);

/// Id of a node, as another sees it.
fn id_of(cloud: &LabCloud, host: &str, name: &str) -> String {
    let nodes = cloud.nodes(host);
    let node = nodes.iter().find(|it| it["name"] == name);
    let id = node.and_then(|it| it["node"].as_str()).expect("a node");
    id.to_owned()
}

/// Waits until a program runs on `host` that was asked for on `asker`: both directions work. A call
/// that was on its way when the host moved may wait for long; others are made meanwhile.
fn await_answers(cloud: &LabCloud, asker: &str, host: &str, limit: Duration) {
    let program = welkin();
    let line = format!(
        "timeout 2 {} run --host {host} -- echo here",
        program.display()
    );
    until(&format!("{host} works for {asker}"), limit, || {
        (cloud.shell(asker, &line).stdout == "here\n").then_some(())
    });
}

#[test]
fn a_machine_that_moves_is_back_within_seconds() {
    let cloud = LabCloud::new(3, None);
    #[expect(clippy::disallowed_methods, reason = "links must have an age")]
    let formed = Instant::now();
    let before = id_of(&cloud, "h2", "h3");
    let _app = cloud
        .welkin("h2", "run -d --name app --host h3 -- sleep 1000")
        .ok();
    let objects = |it: &[Value]| it.iter().map(|it| it["object"].clone()).collect::<Vec<_>>();
    let running = objects(&cloud.await_running("h2", "app", 1));
    // Of younger links either side may take the one that it has dialled itself for the newer one.
    until("links have an age", Duration::from_secs(10), || {
        (formed.elapsed() > Duration::from_secs(6)).then_some(())
    });
    // h3 has dialled its links, those of h1 were dialled by others.
    for (host, number) in [("h3", 103), ("h1", 101), ("h3", 203)] {
        let address = Ipv4Addr::new(10, 77, 0, number);
        cloud.host(host).move_to(address).expect("it is up");
        await_answers(&cloud, "h2", host, BACK);
        cloud.await_up(3);
        until("the others know its address", BACK, || {
            let line = format!("node inspect {host} -o json");
            let node = cloud.welkin("h2", &line).stdout;
            node.contains(&address.to_string()).then_some(())
        });
    }
    // Asleep for so long that it is missed, and awake elsewhere.
    let daemon = cloud.shell("h3", "pgrep -x welkin | head -1").ok();
    let signal = |name: &str| cloud.shell("h3", &format!("kill -{name} {}", daemon.trim()));
    let _asleep = signal("STOP").ok();
    until("it is missed", Duration::from_secs(20), || {
        (cloud.nodes_up("h1").len() == 2).then_some(())
    });
    let address = Ipv4Addr::new(10, 77, 0, 153);
    cloud.host("h3").move_to(address).expect("it is up");
    let _awake = signal("CONT").ok();
    await_answers(&cloud, "h1", "h3", BACK);
    cloud.await_up(3);
    assert_eq!(id_of(&cloud, "h2", "h3"), before);
    assert_eq!(objects(&cloud.await_running("h2", "app", 1)), running);
}

//! Nodes that move, and nodes that nobody can dial.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use end_to_end::{LabCloud, until, welkin};
use lab::{Lab, Nat};
use serde_json::Value;

/// How long a node may be away that was carried to another network.
const BACK: Duration = Duration::from_secs(5);
/// The same for one that moved while it slept. It is mostly back as soon, but not always:
/// `docs/BAD-DAYS.md`, *Known to be wrong*.
const AWAKE: Duration = Duration::from_secs(20);

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
    let daemon = cloud.shell("h3", "pgrep -of '[-]-foreground'").ok();
    let signal = |name: &str| cloud.shell("h3", &format!("kill -{name} {}", daemon.trim()));
    let _asleep = signal("STOP").ok();
    until("it is missed", Duration::from_secs(20), || {
        (cloud.nodes_up("h1").len() == 2).then_some(())
    });
    let address = Ipv4Addr::new(10, 77, 0, 153);
    cloud.host("h3").move_to(address).expect("it is up");
    let _awake = signal("CONT").ok();
    await_answers(&cloud, "h1", "h3", AWAKE);
    cloud.await_up(3);
    assert_eq!(id_of(&cloud, "h2", "h3"), before);
    assert_eq!(objects(&cloud.await_running("h2", "app", 1)), running);
}

/// By whom `host` reaches a node, if not by itself.
fn via(cloud: &LabCloud, host: &str, name: &str) -> Option<String> {
    let nodes = cloud.nodes(host);
    let node = nodes.iter().find(|it| it["name"] == name)?;
    node["via"].as_str().map(str::to_owned)
}

/// Two machines that have no address in common, and two that both reach.
fn two_behind_routers() -> LabCloud {
    let lab = Lab::builder().hosts(4);
    let lab = lab
        .behind("h3", Nat::Symmetric)
        .behind("h4", Nat::Symmetric);
    let cloud = LabCloud::of(lab, |_host| {});
    await_answers(&cloud, "h3", "h4", Duration::from_secs(20));
    cloud
}

#[test]
fn machines_behind_routers_work_together_through_others() {
    let cloud = two_behind_routers();
    let app = "run -d --name app --host h4 -- sh -c";
    let mut words = end_to_end::words(app);
    words.push("echo hello; exec sleep 1000".to_owned());
    let _app = cloud.welkin_with("h3", &words, b"").ok();
    until("its log is read", Duration::from_secs(10), || {
        (cloud.welkin("h3", "logs app").stdout == "hello\n").then_some(())
    });
    let relay = until("the way is known", Duration::from_secs(20), || {
        via(&cloud, "h3", "h4")
    });
    assert!(["h1", "h2"].contains(&relay.as_str()), "{relay}");
    let table = cloud.welkin("h3", "nodes").ok();
    assert!(table.contains(&format!("up via {relay}")), "{table}");
    let node = cloud.welkin("h1", "node inspect h4").ok();
    assert!(node.contains("relayed by"), "{node}");
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("file");
    std::fs::write(&file, "a".repeat(1 << 20)).expect("there is room");
    let copy = format!("cp {} app:/tmp/copied", file.display());
    let _copied = cloud.welkin("h3", &copy).ok();
    let length = cloud.welkin("h3", "exec app -- wc -c /tmp/copied").ok();
    assert!(length.starts_with("1048576 "), "{length}");

    // The one that carries loses its power.
    cloud.host(&relay).kill().expect("it was up");
    let exec = format!("timeout 2 {} exec app -- echo here", welkin().display());
    until("the other carries", BACK, || {
        (cloud.shell("h3", &exec).stdout == "here\n").then_some(())
    });
    until("the loss is known", Duration::from_secs(10), || {
        (cloud.nodes_up("h3").len() == 3).then_some(())
    });
    // Nobody took those behind routers for lost meanwhile.
    for host in ["h1", "h2", "h3", "h4"]
        .into_iter()
        .filter(|it| *it != relay)
    {
        let events = cloud.welkin(host, "events").stdout;
        let lost = |name: &str| {
            let line = |line: &&str| line.contains("node.unreachable") && line.contains(name);
            events.lines().find(line).map(str::to_owned)
        };
        assert_eq!(lost("h3 does not"), None, "{host}");
        assert_eq!(lost("h4 does not"), None, "{host}");
    }
    cloud.host(&relay).start().expect("it boots");
    let _up = cloud.welkin(&relay, "up").ok();
    cloud.await_up(4);
}

/// Most routers keep one port for all: two links that are sent on at once make their own way.
#[test]
fn a_link_through_a_third_becomes_direct_where_routers_allow_it() {
    let lab = Lab::builder().hosts(3);
    let lab = lab.behind("h2", Nat::Cone).behind("h3", Nat::Cone);
    let cloud = LabCloud::of(lab, |_host| {});
    await_answers(&cloud, "h2", "h3", Duration::from_secs(20));
    until("it is direct", Duration::from_secs(30), || {
        let nodes = cloud.nodes("h2");
        let node = nodes.iter().find(|it| it["name"] == "h3")?;
        (node["rtt_us"].is_u64() && node["via"].is_null()).then_some(())
    });
    // Its frames do not come by the third any more.
    let halves = ["h2", "h3"];
    cloud
        .lab
        .cut(&["h1"], &halves, lab::Ways::Both)
        .expect("hosts");
    await_answers(&cloud, "h2", "h3", Duration::from_secs(20));
}

/// The router of a laptop gets another address, and the laptop sees nothing of it.
#[test]
fn a_machine_behind_a_router_that_moves_is_back_within_seconds() {
    let cloud = two_behind_routers();
    let before = id_of(&cloud, "h1", "h4");
    let address = Ipv4Addr::new(10, 77, 0, 104);
    cloud.host("h4").move_to(address).expect("it is up");
    for host in ["h1", "h3"] {
        await_answers(&cloud, host, "h4", BACK * 2);
    }
    cloud.await_up(4);
    assert_eq!(id_of(&cloud, "h1", "h4"), before);
}

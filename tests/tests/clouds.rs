//! Several machines: one answer everywhere, real programs, and machines that die.

use std::process::Command;
use std::time::{Duration, Instant};

use end_to_end::{LabCloud, run, until, words};
use lab::Wan;

fn wan() -> Option<Wan> {
    Some(Wan::builtin())
}

#[test]
fn every_node_gives_the_same_answer() {
    let cloud = LabCloud::new(3, wan());
    let _web = cloud
        .welkin(
            "h3",
            "run -d --name web --replicas 2 --restart always -- sleep 1000",
        )
        .ok();
    cloud.await_running("h1", "web", 2);
    for name in cloud.names() {
        assert_eq!(cloud.nodes_up(&name), ["h1", "h2", "h3"], "{name}");
        let mut ids: Vec<String> = cloud
            .objects(&name, "web")
            .iter()
            .filter_map(|it| it["object"].as_str().map(str::to_string))
            .collect();
        ids.sort();
        assert_eq!(ids.len(), 2, "{name}");
        let prefix = &ids[0][..8];
        let there = cloud.welkin(&name, &format!("exec {prefix} -- echo here"));
        assert_eq!(there.ok(), "here\n", "exec from {name}");
    }
    let logs = cloud.welkin("h2", "run -- sh -c true");
    assert_eq!(logs.code, 0, "{}", logs.stderr);
}

#[test]
fn real_servers_run_and_are_reached_by_name() {
    let cloud = LabCloud::new(3, None);
    let _redis = cloud
        .welkin_with(
            "h1",
            &words("run -d --name cache --restart always --port redis=6379 -- redis-server --save --protected-mode no --bind 0.0.0.0"),
            b"",
        )
        .ok();
    cloud.await_running("h2", "cache", 1);
    let endpoint = cloud.welkin("h3", "name resolve cache -o json").json();
    let address = endpoint["endpoints"][0]["address"]
        .as_str()
        .expect("an address")
        .to_string();
    until("redis answers", Duration::from_secs(20), || {
        let pong = cloud.shell("h2", &format!("redis-cli -h {address} ping"));
        (pong.stdout.trim() == "PONG").then_some(())
    });

    let nginx = "run -d --name web --replicas 2 --port http=8080 --restart always -- \
                 sh -c";
    let mut arguments = words(nginx);
    arguments.push(
        "printf 'daemon off; pid /tmp/p; error_log stderr; events {} http { access_log off; \
         server { listen 8080; location / { return 200 \"from $hostname\\n\"; } } }' > /tmp/c; \
         exec /usr/sbin/nginx -c /tmp/c"
            .to_string(),
    );
    let _web = cloud.welkin_with("h2", &arguments, b"").ok();
    cloud.await_running("h1", "web", 2);
    let endpoints = cloud.welkin("h1", "name resolve web -o json").json();
    let fetch = "import sys,urllib.request as u;print(u.urlopen(sys.argv[1]).read().decode())";
    for endpoint in endpoints["endpoints"].as_array().expect("a list") {
        let address = endpoint["address"].as_str().expect("an address");
        let page = until("nginx answers", Duration::from_secs(20), || {
            let url = format!("http://{address}:8080/");
            let ran = cloud.shell("h3", &format!("python3 -c '{fetch}' {url}"));
            (ran.code == 0).then_some(ran.stdout)
        });
        assert!(page.starts_with("from web-"), "{page}");
    }
}

#[test]
fn postgres_runs_as_a_user_of_its_own() {
    let cloud = LabCloud::new(2, None);
    let mut arguments =
        words("run -d --name db --restart always --user postgres --port sql=5432 -- sh -c");
    arguments.push(
        "b=$(ls -d /usr/lib/postgresql/*/bin | tail -1); mkdir -p /tmp/db && \
         $b/initdb -D /tmp/db/data -A trust >/dev/null && \
         exec $b/postgres -D /tmp/db/data -k /tmp -c listen_addresses=0.0.0.0"
            .to_string(),
    );
    let _db = cloud.welkin_with("h1", &arguments, b"").ok();
    let answer = until("postgres answers", Duration::from_secs(60), || {
        let mut query = words("exec --user postgres db -- sh -c");
        query.push(
            "b=$(ls -d /usr/lib/postgresql/*/bin | tail -1); \
             $b/psql -h /tmp postgres -Atc 'select 6*7'"
                .to_string(),
        );
        let ran = cloud.welkin_with("h2", &query, b"");
        (ran.code == 0).then_some(ran.stdout)
    });
    assert_eq!(answer, "42\n");
}

#[test]
fn a_killed_machine_is_noticed_and_its_objects_run_elsewhere() {
    let cloud = LabCloud::new(5, wan());
    let _web = cloud
        .welkin(
            "h1",
            "run -d --name web --replicas 3 --restart always -- sleep 1000",
        )
        .ok();
    let before = cloud.await_running("h1", "web", 3);
    let node = before[0]["node"].as_str().expect("a node").to_string();
    let victim = cloud.name_of("h1", &node);
    #[expect(clippy::disallowed_methods, reason = "what is measured is time")]
    let killed = Instant::now();
    cloud.host(&victim).kill().expect("it was up");
    let others: Vec<String> = cloud
        .names()
        .into_iter()
        .filter(|name| *name != victim)
        .collect();
    for name in &others {
        until("the loss is known", Duration::from_secs(8), || {
            (cloud.nodes_up(name).len() == 4).then_some(())
        });
    }
    let running = cloud.await_running(&others[0], "web", 3);
    assert!(
        killed.elapsed() < Duration::from_secs(12),
        "{:?}",
        killed.elapsed()
    );
    assert!(
        running.iter().all(|it| it["node"] != node.as_str()),
        "{running:?}"
    );

    cloud.host(&victim).start().expect("boots again");
    let _back = cloud.welkin(&victim, "up").ok();
    cloud.await_up(5);
    until("three run, no more", Duration::from_secs(30), || {
        let objects = cloud.objects(&victim, "web");
        let alive = objects.iter().filter(|it| it["phase"] != "ended").count();
        (alive == 3).then_some(())
    });
}

#[test]
fn drain_moves_everything_and_never_drops_to_zero() {
    let cloud = LabCloud::new(3, None);
    let _app = cloud
        .welkin("h1", "run -d --name app --restart always -- sleep 1000")
        .ok();
    let before = cloud.await_running("h1", "app", 1);
    let node = before[0]["node"].as_str().expect("a node").to_string();
    let _draining = cloud
        .welkin("h2", &format!("node drain {}", &node[..12]))
        .ok();
    until("it runs elsewhere", Duration::from_secs(20), || {
        let running = end_to_end::running_of(cloud.objects("h3", "app"));
        assert!(!running.is_empty(), "at every moment one runs");
        (running.len() == 1 && running[0]["node"] != node.as_str()).then_some(())
    });
    let _open = cloud
        .welkin("h2", &format!("node resume {}", &node[..12]))
        .ok();
    cloud.await_up(3);
}

#[test]
fn down_hands_over_and_up_resumes() {
    let cloud = LabCloud::new(3, None);
    let _app = cloud
        .welkin(
            "h1",
            "run -d --name app --host h2 --restart no -- sleep 1000",
        )
        .ok();
    let _moves = cloud
        .welkin("h1", "run -d --name moves --restart always -- sleep 1000")
        .ok();
    let _down = cloud.welkin("h2", "down").ok();
    until("h2 is down", Duration::from_secs(15), || {
        let nodes = cloud.nodes("h1");
        let h2 = nodes.iter().find(|it| it["name"] == "h2")?;
        (h2["state"] == "down").then_some(())
    });
    cloud.await_running("h1", "moves", 1);
    let _up = cloud.welkin("h2", "up").ok();
    cloud.await_up(3);
}

#[test]
fn tickets_are_counted_expire_and_belong_to_one_cloud() {
    let cloud = LabCloud::new(2, None);
    let once = cloud.welkin("h1", "invite --uses 1").ok();
    let mut lab = LabCloud::new(1, None);
    let stranger = lab.welkin("h1", &format!("join {}", once.trim()));
    assert_ne!(stranger.code, 0, "it belongs to a cloud already");
    assert!(stranger.stderr.contains("cloud"), "{}", stranger.stderr);
    lab = cloud;
    let _removed = lab.welkin("h1", "node rm --force h2").ok();
    until("h2 is out", Duration::from_secs(10), || {
        (lab.nodes_up("h1") == ["h1"]).then_some(())
    });
    let again = lab.welkin("h2", &format!("join {}", once.trim()));
    assert_ne!(again.code, 0, "a removed node is out for good");
    let forged = lab.welkin("h1", "join welkin1-aaaa");
    assert_ne!(forged.code, 0);
}

/// A state directory is copied to another machine, and started there too.
#[test]
fn a_copy_of_a_node_is_refused_and_both_are_named() {
    let cloud = LabCloud::new(3, wan());
    #[expect(clippy::disallowed_methods, reason = "links must have an age")]
    let formed = Instant::now();
    let _down = cloud.welkin("h3", "down").ok();
    let _gone = cloud.welkin("h1", "node rm -f h3").ok();
    let state = |host: &str| cloud.host(host).state_dir_outside().to_owned();
    let (original, copy) = (state("h2"), state("h3"));
    let copying = format!(
        "rm -rf {copy}/* && cp -a {original}/. {copy}/ && rm -rf {copy}/objects/*",
        copy = copy.display(),
        original = original.display(),
    );
    let _copied = run(Command::new("sh").args(["-c", &copying]), b"").ok();
    // A younger link may be one that both sides dialled at once.
    until(
        "links are older than a dial",
        Duration::from_secs(10),
        || (formed.elapsed() > Duration::from_secs(6)).then_some(()),
    );
    let _up = cloud.welkin("h3", "up").ok();
    let [first, second] = ["h2", "h3"].map(|host| cloud.host(host).address().to_string());
    for host in ["h1", "h3"] {
        until("both are named", Duration::from_secs(30), || {
            let report = cloud.welkin(host, "doctor").stdout;
            let names = |text: &str| report.contains(text);
            (names("node.twice") && names(&first) && names(&second)).then_some(())
        });
    }
    let refused = cloud.welkin("h3", "run -d -- sleep 1000");
    assert_ne!(refused.code, 0, "{refused:?}");
    assert!(refused.stderr.contains(&first), "{refused:?}");
    // The others lost nobody, and take calls.
    assert_eq!(cloud.nodes_up("h1"), ["h1", "h2"]);
    let _web = cloud
        .welkin("h2", "run -d --name web --replicas 2 -- sleep 1000")
        .ok();
    let _running = cloud.await_running("h1", "web", 2);
    // What the remedy says: away with the copy, and join as a node of its own.
    let _down = cloud.welkin("h3", "down").ok();
    let removing = format!("rm -rf {}/*", copy.display());
    let _removed = run(Command::new("sh").args(["-c", &removing]), b"").ok();
    let ticket = cloud.welkin("h2", "invite").ok();
    let join = format!("join {} --name h4", ticket.trim());
    let _joined = cloud.welkin("h3", &join).ok();
    cloud.await_up(3);
    let _running = cloud.await_running("h3", "web", 2);
}

//! Golden bytes: what goes between nodes and onto disks must read the same in the next version.
//! A change here is a change of the protocol: see `docs/checklists/new-wire-version.md`.

use std::collections::{BTreeMap, BTreeSet};

use expect_test::{Expect, expect};
use serde::Serialize;
use wire::driver::{ShimReport, ShimRequest, Tenure};
use wire::fact::{
    Availability, Capacity, Exit, ExitReason, NodeFacts, ObjectFacts, Phase, Platform,
};
use wire::id::{AppId, CloudId, NodeId, ObjectId, TicketId, UnixMillis, Version};
use wire::job::{Attempt, Job, Run, Schedule};
use wire::peer::{
    AppRecord, Ask, Door, MemberItem, MemberState, Message, News, Revision, Signature, Statement,
    StatementBody, Ticket, TicketBody, Wanted,
};
use wire::relay::{Direction, Frame, LineWelcome, Part};
use wire::spec::{AppSpec, Program, Resources, Restart};

fn check<T: Serialize>(value: &T, expect: Expect) {
    let bytes = wire::encode(value).expect("encodes");
    let hex: Vec<String> = bytes
        .chunks(32)
        .map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect())
        .collect();
    expect.assert_eq(&hex.join("\n"));
}

fn node() -> NodeId {
    NodeId([0xab; 32])
}

fn spec() -> AppSpec {
    AppSpec {
        name: "web".into(),
        replicas: 2,
        program: Program {
            arguments: vec!["python3".into(), "-m".into(), "http.server".into()],
            ..Program::default()
        },
        ports: BTreeMap::from([("http".into(), 8000)]),
        resources: Resources {
            cpu_millis: 500,
            memory_bytes: 128 << 20,
            processes: 64,
        },
        restart: Restart::OnFailure {
            retries_max: Some(3),
        },
        placement: wire::spec::Placement {
            host: None,
            constraints: vec!["memory>=8G".parse().expect("a constraint")],
            spread: true,
        },
        stop: wire::spec::Stop::default(),
        remove_when_done: false,
        on_partition: wire::spec::OnPartition::Available,
        health: None,
        after: BTreeSet::new(),
        schedule: None,
        deadline_ms: None,
    }
}

fn object() -> ObjectFacts {
    ObjectFacts {
        object: ObjectId([0x11; 16]),
        app: AppId::of_name("web"),
        app_name: "web".into(),
        index: 1,
        node: node(),
        epoch: 1,
        revision: 7,
        phase: Phase::Running,
        restarts: 2,
        created: UnixMillis(1_700_000_000_000),
        started: Some(UnixMillis(1_700_000_000_100)),
        last_exit: Some(Exit {
            reason: ExitReason::Signal(9),
            at: UnixMillis(1_700_000_000_050),
            asked: true,
        }),
        pid: Some(4242),
        protections_off: vec![],
        halted: false,
        revised: Version {
            millis: 1_700_000_000_000,
            counter: 3,
            node: 9,
        },
        restart: Restart::Always,
        health: None,
        run: 0,
    }
}

fn run() -> Run {
    Run {
        number: 3,
        due: UnixMillis(1_700_000_000_000),
        heeded: UnixMillis(1_700_000_060_000),
        skipped: 1,
        attempt: Some(Attempt {
            object: ObjectId([0x11; 16]),
            node: node(),
            started: Some(UnixMillis(1_700_000_000_100)),
            exit: Some(Exit {
                reason: ExitReason::Code(0),
                at: UnixMillis(1_700_000_000_200),
                asked: false,
            }),
        }),
    }
}

#[test]
fn schedules() {
    check(
        &Schedule::At {
            at: UnixMillis(1_700_000_000_000),
        },
        expect!["000680d095ffbc31"],
    );
    check(
        &Schedule::Every {
            interval_ms: 90_000,
        },
        expect!["010390bf05"],
    );
    let cron = Schedule::Cron {
        expression: "0 3 * * mon-fri".into(),
    };
    check(&cron, expect!["02100f302033202a202a206d6f6e2d667269"]);
    let json = serde_json::to_string(&cron).expect("encodes");
    expect![[r#"{"cron":{"expression":"0 3 * * mon-fri"}}"#]].assert_eq(&json);
}

#[test]
fn an_app_id_is_made_from_its_name() {
    expect!["977e88c3048d50ca5a52f888356337db"].assert_eq(&AppId::of_name("web").to_string());
}

#[test]
fn statements_and_tickets() {
    let admission = StatementBody::Admission {
        cloud: CloudId([1; 32]),
        node: node(),
        ticket: Some(TicketId([2; 16])),
        at: UnixMillis(1_700_000_000_000),
    };
    let signed = admission.signed_bytes().expect("encodes");
    assert!(signed.starts_with(b"welkin/1/statement\0"));
    check(
        &Statement {
            body: admission,
            signer: [1; 32],
            signature: Signature([3; 64]),
        },
        expect![[r#"
            bd01005a20010101010101010101010101010101010101010101010101010101
            010101010120abababababababababababababababababababababababababab
            abababababab01100202020202020202020202020202020280d095ffbc310101
            0101010101010101010101010101010101010101010101010101010101014003
            0303030303030303030303030303030303030303030303030303030303030303
            03030303030303030303030303030303030303030303030303030303030303"#]],
    );
    let ticket = Ticket {
        body: TicketBody {
            cloud: CloudId([1; 32]),
            id: TicketId([2; 16]),
            issuer: node(),
            uses: 1,
            not_after: UnixMillis(1_700_000_000_000),
            labels: BTreeMap::from([("site".into(), "home".into())]),
            doors: vec![Door {
                node: node(),
                addresses: vec!["192.0.2.1:7117".into()],
            }],
        },
        signature: Signature([4; 64]),
    };
    let text = ticket.to_text().expect("encodes");
    expect!["welkin1-3mazqajaaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaearaaqcaibaeaqcaibaeaqcaibaearavov2xk5lvov2xk5lvov2xk5lvov2xk5lvov2xk5lvov2xk5lvovqdagqsx73ymibarzws5dfarug63lfaeysbk5lvov2xk5lvov2xk5lvov2xk5lvov2xk5lvov2xk5lvov2xk5laehdcojsfyyc4mroge5domjrg5aaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaq"].assert_eq(&text);
    assert_eq!(Ticket::from_text(&text), Ok(ticket));
}

#[test]
fn gossip() {
    let facts = NodeFacts {
        node: node(),
        version: (1 << 32) | 5,
        name: "a".into(),
        program_version: "0.1.0".into(),
        platform: Platform {
            os: "linux".into(),
            arch: "x86_64".into(),
            kernel: "6.18".into(),
        },
        addresses: vec!["192.0.2.1:7117".into()],
        labels: BTreeMap::new(),
        availability: Availability::Open,
        capacity: Capacity {
            cpu_millis: 2000,
            memory_bytes: 8 << 30,
            ..Capacity::default()
        },
        level: 2,
        relays: vec![node()],
    };
    let news = News {
        statements: vec![],
        facts: vec![facts],
    };
    check(
        &Message::Rumors(news),
        expect![[r#"
            0087010001830120abababababababababababababababababababababababab
            abababababababab8580808010016105302e312e3012056c696e757806783836
            5f363404362e3138010e3139322e302e322e313a3731313700000cd00f808080
            80200000000000020120abababababababababababababababababababababab
            abababababababababab"#]],
    );
    let items = vec![MemberItem {
        node: 0x0102_0304_0506_0708,
        boot: 3,
        incarnation: 1,
        state: MemberState::Suspect,
    }];
    let items = Message::SyncItems {
        members: items,
        news: News::default(),
        wanted: 5,
        estranged: true,
    };
    check(
        &items,
        expect!["0313010c888e98a8c0e08081010301010200000501"],
    );
}

#[test]
fn lines() {
    let welcome = LineWelcome {
        seen: "192.0.2.1:7117".into(),
        carries: true,
    };
    check(&welcome, expect!["100e3139322e302e322e313a3731313701"]);
    let frame = Frame {
        direction: Direction::From,
        node: node(),
        part: Part::Second(7),
        bytes: b"packet",
    };
    let bytes = data_encoding::HEXLOWER.encode(&frame.encode());
    expect![
        "0102abababababababababababababababababababababababababababababababab000000077061636b6574"
    ]
    .assert_eq(&bytes);
}

/// What a node of level 1 said: its bytes are read as long as such nodes and their disks are around.
#[test]
fn what_an_older_node_said_is_read() {
    let read = |hex: &str| {
        data_encoding::HEXLOWER
            .decode(hex.replace(char::is_whitespace, "").as_bytes())
            .expect("hex")
    };
    let rumors = read(
        "006300016020abababababababababababababababababababababababababab
         abababababab8580808010016105302e312e3012056c696e7578067838365f36
         3404362e3138010e3139322e302e322e313a3731313700000cd00f8080808020
         0000000000",
    );
    let Ok(Message::Rumors(news)) = wire::decode(&rumors, 1024) else {
        panic!("it is read");
    };
    assert_eq!((news.facts[0].name.as_str(), news.facts[0].level), ("a", 1));
    // And one of level 2, which told no relays.
    let rumors = read(
        "006400016120abababababababababababababababababababababababababab
         abababababab8580808010016105302e312e3012056c696e7578067838365f36
         3404362e3138010e3139322e302e322e313a3731313700000cd00f8080808020
         000000000002",
    );
    let Ok(Message::Rumors(news)) = wire::decode(&rumors, 1024) else {
        panic!("it is read");
    };
    assert_eq!((news.facts[0].level, news.facts[0].relays.len()), (2, 0));
    let record = read(
        "ee0210977e88c3048d50ca5a52f888356337db0880d095ffbc310102ce010880
         d095ffbc310102014d03776562021d0307707974686f6e33022d6d0b68747470
         2e7365727665720000000000010468747470c03e07f403808080404001020103
         0e00010a6d656d6f72793e3d384701030f904e000000000080d095ffbc310880
         d095ffbc310102000880d095ffbc310102014b030000004603776562021d0307
         707974686f6e33022d6d0b687474702e73657276657200000000000007f40380
         80804040010201030e00010a6d656d6f72793e3d384701030f904e0000000101
         0b7765622f3120656e6465640174101111111111111111111111111111111110
         977e88c3048d50ca5a52f888356337db037765620120abababababababababab
         abababababababababababababababababababababab0107010280d095ffbc31
         01e4d095ffbc3101090109b2d095ffbc310101922100000880d095ffbc310309
         020003000000000880d095ffbc310102",
    );
    let record: AppRecord = wire::decode(&record, 4096).expect("it is read");
    assert_eq!(record.wanted.spec, Some(spec()));
    assert_eq!(record.objects, [object()]);
    assert_eq!(record.begun, Version::default());
    assert_eq!(record.job, Job::default());
}

#[test]
fn questions() {
    let reserve = Ask::Reserve {
        lease: 99,
        app: AppId::of_name("web"),
        resources: spec().resources,
        ports: vec![8000],
    };
    check(
        &Message::Ask {
            question: 7,
            ask: Box::new(reserve),
        },
        expect![[r#"
            042007041d6310977e88c3048d50ca5a52f888356337db07f403808080404001
            c03e"#]],
    );
    check(
        &Ask::SetRestart {
            object: ObjectId([0x11; 16]),
            restart: Restart::Always,
        },
        expect!["0c12101111111111111111111111111111111102"],
    );
}

#[test]
fn records() {
    let version = Version {
        millis: 1_700_000_000_000,
        counter: 1,
        node: 2,
    };
    let record = AppRecord {
        app: AppId::of_name("web"),
        version,
        wanted: Wanted {
            previous: Some(Box::new(Revision {
                revised: Version::default(),
                spec: AppSpec {
                    ports: BTreeMap::new(),
                    ..spec()
                },
            })),
            rolls_back: true,
            undone: Some("web/1 ended".into()),
            ..Wanted::new(spec(), version, UnixMillis(1_700_000_000_000))
        },
        objects: vec![object()],
        objects_born: Version::default(),
        decisions: vec![],
        settled: version,
        begun: Version::default(),
        job: Job {
            born: version,
            runs: vec![run()],
        },
    };
    check(
        &record,
        expect![[r#"
            da0310977e88c3048d50ca5a52f888356337db0880d095ffbc310102d5010880
            d095ffbc310102015003776562021d0307707974686f6e33022d6d0b68747470
            2e7365727665720000000000010468747470c03e07f403808080404001020103
            0e00010a6d656d6f72793e3d384701030f904e000000000000000080d095ffbc
            310880d095ffbc310102000880d095ffbc310102014e03000000490377656202
            1d0307707974686f6e33022d6d0b687474702e73657276657200000000000007
            f4038080804040010201030e00010a6d656d6f72793e3d384701030f904e0000
            0000000001010b7765622f3120656e6465640001751011111111111111111111
            11111111111110977e88c3048d50ca5a52f888356337db037765620120ababab
            ababababababababababababababababababababababababababababab010701
            0280d095ffbc3101e4d095ffbc3101090109b2d095ffbc310101922100000880
            d095ffbc31030902000003000000000880d095ffbc310102030000005f0880d0
            95ffbc31010201540380d095ffbc31e0a499ffbc310101441011111111111111
            11111111111111111120abababababababababababababababababababababab
            abababababababababab01e4d095ffbc3101090000c8d195ffbc3100"#]],
    );
}

#[test]
fn shims() {
    check(&ShimRequest::Stop { grace_ms: 10_000 }, expect!["0202904e"]);
    let tenure = Tenure {
        freeze_at_us: 7_000_000,
        kill_at_us: 9_000_000,
    };
    check(
        &ShimRequest::Tenure(tenure),
        expect!["0408c09fab03c0a8a504"],
    );
    let lapsed = Exit {
        reason: ExitReason::Lapsed,
        at: UnixMillis(1_700_000_000_050),
        asked: false,
    };
    check(&ShimReport::Exited(lapsed), expect!["010805b2d095ffbc3100"]);
    check(&ExitReason::Overdue, expect!["07"]);
    let running = ShimReport::Running {
        pid: 4242,
        started: UnixMillis(1_700_000_000_000),
        protections_off: vec!["no cgroup".into()],
    };
    check(
        &running,
        expect!["0013922180d095ffbc3101096e6f206367726f7570"],
    );
}

#[test]
fn json_of_a_specification() {
    let json = serde_json::to_string_pretty(&spec()).expect("encodes");
    expect![[r#"
        {
          "name": "web",
          "replicas": 2,
          "program": {
            "arguments": [
              "python3",
              "-m",
              "http.server"
            ],
            "environment": {},
            "directory": null,
            "user": null,
            "terminal": false,
            "stdin": false
          },
          "ports": {
            "http": 8000
          },
          "resources": {
            "cpu_millis": 500,
            "memory_bytes": 134217728,
            "processes": 64
          },
          "restart": {
            "on-failure": {
              "retries_max": 3
            }
          },
          "placement": {
            "host": null,
            "constraints": [
              "memory>=8G"
            ],
            "spread": true
          },
          "stop": {
            "signal": 15,
            "grace_ms": 10000
          },
          "remove_when_done": false,
          "on_partition": "available",
          "health": null,
          "after": [],
          "schedule": null,
          "deadline_ms": null
        }"#]]
    .assert_eq(&json);
    assert_eq!(
        serde_json::from_str::<AppSpec>(&json).expect("decodes"),
        spec()
    );
}

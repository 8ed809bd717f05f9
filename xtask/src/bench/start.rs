//! `welkin run -- true`, warm, the whole process from outside, with limits and isolation on, beside
//! `runc run` and `podman run` of the same root with the same limits.

use std::fs;
use std::path::Path;
use std::process::Command;

use end_to_end::{LoopbackCloud, words};
use serde_json::{Value, json};

use super::{Figure, time_ms};

/// The machine's root, bound elsewhere: runc does not take `/` itself.
struct Root(tempfile::TempDir);

impl Root {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let bound = Command::new("mount")
            .args(["--bind", "/"])
            .arg(root.path())
            .status();
        assert!(
            bound.is_ok_and(|status| status.success()),
            "mount --bind needs root"
        );
        Self(root)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // What stays mounted must not be removed with the directory.
        let gone = Command::new("umount").arg(self.path()).status();
        if !gone.is_ok_and(|status| status.success()) {
            self.0.disable_cleanup(true);
        }
    }
}

/// A bundle with the limits and namespaces that we use too.
fn bundle(root: &Path) -> tempfile::TempDir {
    let bundle = tempfile::tempdir().expect("a directory");
    let made = Command::new("runc")
        .arg("spec")
        .current_dir(bundle.path())
        .status();
    assert!(
        made.is_ok_and(|status| status.success()),
        "runc is not installed: make bench"
    );
    let path = bundle.path().join("config.json");
    let text = fs::read_to_string(&path).expect("runc wrote it");
    let mut config: Value = serde_json::from_str(&text).expect("it is JSON");
    config["process"]["args"] = json!(["true"]);
    config["process"]["terminal"] = json!(false);
    config["process"]["rlimits"] = json!([]);
    config["root"] = json!({ "path": root, "readonly": true });
    config["linux"]["resources"] = json!({
        "memory": { "limit": 128 << 20 },
        "cpu": { "quota": 50_000, "period": 100_000 },
        "pids": { "limit": 64 },
    });
    if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
        namespaces.retain(|it| it["type"] != "network");
    }
    fs::write(&path, config.to_string()).expect("the directory is ours");
    bundle
}

pub(super) fn measure(runs: usize) -> Vec<Figure> {
    let cloud = LoopbackCloud::new(1, None);
    let root = Root::new();
    let bundle = bundle(root.path());
    let ours = words("run --cpu 0.5 --memory 128M --processes 64 -- true");
    let mut samples = [const { Vec::new() }; 3];
    for run in 0..=runs {
        let welkin = time_ms(cloud.command(0).args(&ours));
        let id = format!("welkin-bench-{}-{run}", std::process::id());
        let runc = time_ms(
            Command::new("runc")
                .args(["run", "--bundle"])
                .arg(bundle.path())
                .arg(id),
        );
        // The first of each warms up. A third of the runs is enough for the slow one.
        if run > 0 {
            samples[0].push(welkin);
            samples[1].push(runc);
        }
        if run % 3 == 1 {
            samples[2].push(time_ms(&mut podman(root.path())));
        }
    }
    let [welkin, runc, podman] = samples;
    let runc = Figure::new("runc run, same root and limits", "ms", runc);
    let podman = Figure::new("podman run, same root and limits", "ms", podman);
    let welkin = Figure::new("welkin run -- true, whole process", "ms", welkin);
    let (to_runc, to_podman) = (
        welkin.median() / runc.median(),
        welkin.median() / podman.median(),
    );
    let goal =
        format!("half of runc ({to_runc:.2} of it), a tenth of podman ({to_podman:.3} of it)");
    let reached = to_runc <= 0.5 && to_podman <= 0.1;
    vec![welkin.goal(goal, reached), runc, podman]
}

fn podman(root: &Path) -> Command {
    let mut command = Command::new("podman");
    command.args(words(
        "--runtime runc --cgroup-manager cgroupfs run --rm --ulimit nofile=20000:20000 \
         --ulimit nproc=4096:4096 --network host --read-only --read-only-tmpfs=false \
         --memory 128m --cpus 0.5 --pids-limit 64 --rootfs",
    ));
    command.arg(root).arg("true");
    command
}

//! What is left behind by objects that come and go: 200 of them, started, stopped and removed in
//! batches of twenty for some minutes. Whatever is counted must be what it was before.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use end_to_end::{LoopbackCloud, until};

use super::{Figure, median, now};

const BATCHES: usize = 10;
const BATCH: usize = 20;
/// How much the memory of the daemon may grow from the first third of the time to the last.
const GOAL_MIB: f64 = 1.0;

/// What a node uses, by kind.
type Census = BTreeMap<&'static str, usize>;

pub(super) fn measure(minutes: u64) -> Vec<Figure> {
    let cloud = LoopbackCloud::new(1, None);
    let mut churn = Churn::new(&cloud);
    // Once around, so that what is made once and kept is there.
    churn.fill();
    churn.empty();
    let before = churn.census();
    let (mut rss, mut objects) = (Vec::new(), 0);
    let began = now();
    churn.fill();
    while began.elapsed() < Duration::from_secs(60 * minutes) {
        churn.end_oldest();
        churn.start();
        objects += BATCH;
        rss.push(resident_mib(churn.daemon));
    }
    churn.empty();
    let after = churn.await_census(&before);
    eprintln!("bench: {objects} objects came and went; before {before:?}, after {after:?}");
    let mut figures: Vec<Figure> = before
        .iter()
        .map(|(what, count)| {
            let left = after[what].abs_diff(*count);
            let samples = vec![u32::try_from(left).map_or(f64::INFINITY, f64::from)];
            let figure = Figure::new(format!("churn leaves behind: {what}"), "", samples);
            figure.goal("none", after[what] <= *count)
        })
        .collect();
    let third = rss.len() / 3;
    let growth = median(&rss[rss.len() - third..]) - median(&rss[..third]);
    figures.push(Figure::new("churn: resident memory", "MiB", rss));
    let growth = Figure::new("the same: last third less the first", "MiB", vec![growth]);
    let flat = growth.median() <= GOAL_MIB;
    figures.push(growth.goal(format!("{GOAL_MIB} MiB"), flat));
    figures
}

/// A node and what runs on it.
struct Churn<'a> {
    cloud: &'a LoopbackCloud,
    daemon: i32,
    state_dir: PathBuf,
    /// What all of its control groups are named after.
    groups: String,
    /// Apps that run, the oldest first.
    apps: VecDeque<String>,
    made: usize,
}

impl<'a> Churn<'a> {
    fn new(cloud: &'a LoopbackCloud) -> Self {
        let nodes = cloud.welkin(0, "nodes -o json").json();
        let node = nodes["nodes"][0]["node"].as_str().expect("it is a node");
        Self {
            cloud,
            daemon: cloud.daemon(0).expect("it runs"),
            state_dir: cloud.state_dir(0),
            groups: format!("welkin-{}", &node[..10]),
            apps: VecDeque::new(),
            made: 0,
        }
    }

    fn start(&mut self) {
        let name = format!("batch{}", self.made);
        self.made += 1;
        let line = format!("run -d --name {name} --replicas {BATCH} --processes 8 -- sleep 100000");
        let _started = self.cloud.welkin(0, &line).ok();
        self.apps.push_back(name);
    }

    fn end_oldest(&mut self) {
        let Some(name) = self.apps.pop_front() else {
            return;
        };
        let _stopped = self.cloud.welkin(0, &format!("stop {name}")).ok();
        let _removed = self.cloud.welkin(0, &format!("rm {name}")).ok();
    }

    fn fill(&mut self) {
        while self.apps.len() < BATCHES {
            self.start();
        }
    }

    fn empty(&mut self) {
        while !self.apps.is_empty() {
            self.end_oldest();
        }
        self.cloud.await_no_objects(0);
    }

    /// The census once it is no more than `before`, or what it is when patience ends: what ends
    /// on its own, such as idle connections, has a minute.
    fn await_census(&self, before: &Census) -> Census {
        let began = now();
        until("a census", Duration::from_secs(120), || {
            let census = self.census();
            let is_same = before.iter().all(|(what, count)| census[what] <= *count);
            (is_same || began.elapsed() > Duration::from_secs(60)).then_some(census)
        })
    }

    fn census(&self) -> Census {
        let processes = self.processes();
        let namespaces: BTreeSet<PathBuf> = processes
            .iter()
            .flat_map(|process| links(&process.join("ns")))
            .collect();
        let daemon = PathBuf::from(format!("/proc/{}", self.daemon));
        let descriptors = links(&daemon.join("fd"));
        let is_socket = |it: &&PathBuf| it.to_string_lossy().starts_with("socket:");
        let sockets = descriptors.iter().filter(is_socket).count();
        let mounts: usize = [daemon.join("mountinfo"), "/proc/self/mountinfo".into()]
            .iter()
            .map(|path| fs::read_to_string(path).unwrap_or_default())
            .map(|text| text.lines().count())
            .sum();
        BTreeMap::from([
            ("processes", processes.len()),
            ("threads of the daemon", entries(&daemon.join("task"))),
            ("namespaces", namespaces.len()),
            ("mounts", mounts),
            (
                "control groups",
                groups(Path::new("/sys/fs/cgroup"), &self.groups),
            ),
            ("sockets", sockets),
            ("other descriptors", descriptors.len() - sockets),
            ("files of the state directory", files(&self.state_dir)),
        ])
    }

    /// The daemon, and whatever names its state directory or is in a control group of its node.
    fn processes(&self) -> Vec<PathBuf> {
        let state_dir = self.state_dir.to_string_lossy();
        let is_ours = |process: &PathBuf| {
            let read = |name| fs::read(process.join(name)).unwrap_or_default();
            let says = |name, what: &str| String::from_utf8_lossy(&read(name)).contains(what);
            process.ends_with(self.daemon.to_string())
                || says("cmdline", &state_dir)
                || says("cgroup", &self.groups)
        };
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        all.map(|entry| entry.path()).filter(is_ours).collect()
    }
}

fn entries(directory: &Path) -> usize {
    fs::read_dir(directory).map_or(0, Iterator::count)
}

/// Where the symbolic links of a directory lead.
fn links(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .collect()
}

/// Everything below a directory that is no directory.
fn files(directory: &Path) -> usize {
    below(directory, &|_| false).1
}

/// Directories below one of this name, with it, in every hierarchy.
fn groups(root: &Path, name: &str) -> usize {
    below(root, &|path| {
        path.components().any(|part| part.as_os_str() == name)
    })
    .0
}

/// How many directories below `directory` are `counted`, and how many other files there are.
fn below(directory: &Path, counted: &dyn Fn(&Path) -> bool) -> (usize, usize) {
    let (mut directories, mut others) = (0, 0);
    let mut open = vec![directory.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                directories += usize::from(counted(&entry.path()));
                open.push(entry.path());
            } else {
                others += 1;
            }
        }
    }
    (directories, others)
}

fn resident_mib(pid: i32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = text.lines().find_map(|line| {
        let field = line.strip_prefix("VmRSS:")?;
        field.split_whitespace().next()?.parse::<u32>().ok()
    });
    kib.map_or(f64::NAN, |kib| f64::from(kib) / 1024.0)
}

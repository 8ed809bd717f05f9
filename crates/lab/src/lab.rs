//! A lab and its hosts, as tests use them. This module keeps the books (names, directories,
//! records) and says who does what in which order; the doing is in the modules beside it.
//!
//! A host is *up* or *down*. `kill` and `start` go between the two; the address and the directories
//! stay. A lab goes down once, by [`Lab::down`] or by being dropped, also by a panic.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sched::{CloneFlags, setns};

use crate::builder::{Builder, HostPlan};
use crate::capabilities::Capabilities;
use crate::cgroups::HostCgroups;
use crate::door::{self, Door};
use crate::errors::{DownError, HostError, NetworkError, StartError};
use crate::fabric::{Fabric, ethernet_address};
use crate::init::Init;
use crate::keeper::Keeper;
use crate::link::{Link, LinkChange};
use crate::nat::Router;
use crate::rundir::{self, InitRecord, Record, RunDirectory};
use crate::status::{DoorRecord, HostStatus, LinkStatus, Status};
use crate::switch::Switch;
use crate::tap::{self, Station};
use crate::wan::Wan;
use crate::{fallback, notice, settle};

/// Many hosts on this machine and the network between them. Dropping it ends all of them and takes
/// everything away that it has made.
#[derive(Debug)]
pub struct Lab {
    core: Arc<Core>,
    hosts: Vec<Host>,
}

/// One host of a lab. Clones are the same host.
#[derive(Clone, Debug)]
pub struct Host {
    core: Arc<Core>,
    index: usize,
}

/// Which directions a cut or a change is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ways {
    /// Both directions.
    Both,
    /// Only frames from the left to the right.
    LeftToRight,
}

#[derive(Debug)]
struct Core {
    name: String,
    capabilities: Capabilities,
    wan: Option<Wan>,
    plans: Vec<HostPlan>,
    run: RunDirectory,
    record: Mutex<Record>,
    closed: AtomicBool,
    slots: Vec<Mutex<Slot>>,
    /// Where hosts have namespaces.
    engine: Option<Engine>,
    /// Where hosts are that have moved since they were booted.
    moved: Mutex<BTreeMap<usize, Ipv4Addr>>,
}

#[derive(Debug)]
struct Engine {
    switch: Switch,
    keeper: Keeper,
}

/// What runs of a host. `Marked` is a host without namespaces.
#[derive(Debug)]
enum Slot {
    Down,
    Marked,
    Up(Box<Up>),
}

#[derive(Debug)]
struct Up {
    init: Init,
    cgroups: HostCgroups,
    door: Arc<Door>,
}

impl Lab {
    /// A lab to be: three hosts, a perfect network, and a name of its own.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(crate) fn start(
        name: String,
        capabilities: Capabilities,
        wan: Option<Wan>,
        seed: u64,
        data: PathBuf,
        plans: Vec<HostPlan>,
    ) -> Result<Self, StartError> {
        rundir::sweep();
        let record = Record {
            data: data.clone(),
            cgroups: plans
                .iter()
                .flat_map(|plan| plan.cgroups.directories().to_vec())
                .collect(),
            inits: Vec::new(),
            mark: (!capabilities.isolation).then(|| mark_of_lab(&name)),
        };
        let run = RunDirectory::claim(&name, &record).map_err(|error| match error {
            rundir::ClaimError::Taken => StartError::NameTaken(name.clone()),
            rundir::ClaimError::Io(error) => StartError::Io("claim its name", error),
        })?;
        let count = plans.len();
        let engine = capabilities
            .isolation
            .then(|| Engine::start(count, seed))
            .transpose();
        let engine = engine.map_err(|error| {
            run.remove().ok();
            StartError::Io("start its network", error)
        })?;
        let core = Arc::new(Core {
            name,
            capabilities,
            wan,
            run,
            record: Mutex::new(record),
            closed: AtomicBool::new(false),
            slots: plans.iter().map(|_| Mutex::new(Slot::Down)).collect(),
            plans,
            engine,
            moved: Mutex::default(),
        });
        let host = |index| Host {
            core: Arc::clone(&core),
            index,
        };
        let hosts: Vec<Host> = (0..count).map(host).collect();
        // From here on, dropping the lab takes everything away.
        let lab = Self { core, hosts };
        make_data(&data).map_err(|error| StartError::Io("make its data directory", error))?;
        lab.reset_network();
        for host in &lab.hosts {
            let name = host.name().to_owned();
            host.start()
                .map_err(|error| StartError::Host(name, error))?;
        }
        if !lab.core.capabilities.isolation {
            notice::fallback_once(&lab.core.capabilities.missing);
        }
        Ok(lab)
    }

    /// The name, which no other lab on this machine has now.
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// What this lab can do here. See [`Capabilities::of_this_machine`] to ask without a lab.
    pub fn capabilities(&self) -> &Capabilities {
        &self.core.capabilities
    }

    /// All hosts, in order of their numbers.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The host of this name: `h1`, `h2`, ....
    ///
    /// # Panics
    ///
    /// If there is none; see [`Lab::find`].
    pub fn host(&self, name: &str) -> &Host {
        self.find(name)
            .unwrap_or_else(|error| panic!("lab {}: {error}", self.name()))
    }

    /// The host of this name.
    pub fn find(&self, name: &str) -> Result<&Host, NetworkError> {
        self.hosts
            .iter()
            .find(|host| host.name() == name)
            .ok_or_else(|| NetworkError::NoSuchHost(name.to_owned()))
    }

    /// Makes both directions between two hosts such a link, from now on.
    pub fn link(&self, a: &str, b: &str, link: Link) -> Result<(), NetworkError> {
        self.edit_links(a, b, Ways::Both, |_| link)
    }

    /// Makes the direction from `from` to `to` such a link, from now on.
    pub fn link_one_way(&self, from: &str, to: &str, link: Link) -> Result<(), NetworkError> {
        self.edit_links(from, to, Ways::LeftToRight, |_| link)
    }

    /// Changes some properties of a link and leaves the others.
    pub fn change_link(
        &self,
        left: &str,
        right: &str,
        ways: Ways,
        change: LinkChange,
    ) -> Result<(), NetworkError> {
        self.edit_links(left, right, ways, |link| change.applied_to(link))
    }

    /// The link from one host to another, as it is now.
    pub fn link_between(&self, from: &str, to: &str) -> Result<Link, NetworkError> {
        let (from, to) = (self.find(from)?.index, self.find(to)?.index);
        Ok(self.switch()?.read(|fabric| fabric.link(from, to)))
    }

    /// Cuts every path between a host on the left and one on the right. When this returns, nothing
    /// passes any more, also of what was in flight. Cuts add up until [`Lab::heal`].
    pub fn cut(
        &self,
        left: &[impl AsRef<str>],
        right: &[impl AsRef<str>],
        ways: Ways,
    ) -> Result<(), NetworkError> {
        let (left, right) = (self.indices(left)?, self.indices(right)?);
        let crossing = left
            .iter()
            .flat_map(|from| right.iter().map(move |to| (*from, *to)));
        self.switch()?.change(|fabric| {
            for (from, to) in crossing.filter(|(from, to)| from != to) {
                fabric.set_cut(from, to, true);
                if ways == Ways::Both {
                    fabric.set_cut(to, from, true);
                }
            }
        });
        Ok(())
    }

    /// Removes all cuts.
    pub fn heal(&self) -> Result<(), NetworkError> {
        let count = self.hosts.len();
        self.switch()?.change(|fabric| {
            for (from, to) in pairs(count) {
                fabric.set_cut(from, to, false);
            }
        });
        Ok(())
    }

    /// Makes every link again what the WAN says (or perfect, without one).
    pub fn reset_links(&self) -> Result<(), NetworkError> {
        self.switch()?;
        self.reset_network();
        Ok(())
    }

    /// Everything there is to know about the lab now.
    pub fn status(&self) -> Status {
        let count = self.hosts.len();
        let (links, counters) = match &self.core.engine {
            None => (Vec::new(), crate::Counters::default()),
            Some(engine) => engine.switch.read(|fabric| {
                let links = pairs(count).map(|(from, to)| self.link_status(fabric, from, to));
                (links.collect(), fabric.counters())
            }),
        };
        Status {
            name: self.name().to_owned(),
            owner_pid: std::process::id(),
            run_directory: self.core.run.path().to_owned(),
            capabilities: self.core.capabilities.clone(),
            hosts: self.hosts.iter().map(Host::status).collect(),
            links,
            counters,
        }
    }

    /// Ends all hosts and takes everything away. Dropping the lab does the same, but can only print
    /// what went wrong.
    pub fn down(self) -> Result<(), DownError> {
        self.core.down()
    }

    pub(crate) fn run_directory(&self) -> &Path {
        self.core.run.path()
    }

    fn switch(&self) -> Result<&Switch, NetworkError> {
        let engine = self.core.engine.as_ref();
        Ok(&engine.ok_or(NetworkError::NoNetwork)?.switch)
    }

    fn indices(&self, names: &[impl AsRef<str>]) -> Result<Vec<usize>, NetworkError> {
        let find = |name: &_| Ok(self.find(AsRef::as_ref(name))?.index);
        names.iter().map(find).collect()
    }

    fn edit_links(
        &self,
        left: &str,
        right: &str,
        ways: Ways,
        edit: impl Fn(Link) -> Link,
    ) -> Result<(), NetworkError> {
        let (left, right) = (self.find(left)?.index, self.find(right)?.index);
        if left == right {
            return Err(NetworkError::SameHost);
        }
        self.switch()?.change(|fabric| {
            let there = edit(fabric.link(left, right));
            let back = edit(fabric.link(right, left));
            there.check().map_err(NetworkError::BadLink)?;
            fabric.set_link(left, right, there);
            if ways == Ways::Both {
                back.check().map_err(NetworkError::BadLink)?;
                fabric.set_link(right, left, back);
            }
            Ok(())
        })
    }

    fn reset_network(&self) {
        let Some(engine) = &self.core.engine else {
            return;
        };
        engine.switch.change(|fabric| {
            for (from, to) in pairs(self.hosts.len()) {
                let wan = self.core.wan.as_ref();
                fabric.set_link(
                    from,
                    to,
                    wan.map_or_else(Link::default, |it| it.link(from, to)),
                );
            }
        });
    }

    fn link_status(&self, fabric: &Fabric, from: usize, to: usize) -> LinkStatus {
        LinkStatus {
            from: self.hosts[from].name().to_owned(),
            to: self.hosts[to].name().to_owned(),
            cut: fabric.is_cut(from, to),
            link: fabric.link(from, to),
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = self.core.down() {
            notice::say(&format!("lab {}: {error}", self.core.name));
        }
    }
}

impl Host {
    /// `h1`, `h2`, ...; also the host name that programs see.
    pub fn name(&self) -> &str {
        &self.plan().name
    }

    /// Its address, or that of the router that it is behind: others see it there.
    pub fn address(&self) -> Ipv4Addr {
        let moved = lock(&self.core.moved).get(&self.index).copied();
        moved.unwrap_or(self.plan().address)
    }

    /// The site of the WAN that it is at.
    pub fn site(&self) -> Option<&str> {
        self.plan().site.as_deref()
    }

    /// The directory for state, as programs on the host name it: `/var/lib/welkin`, or a path of its
    /// own where hosts have no mounts of their own.
    pub fn state_dir(&self) -> PathBuf {
        self.seen_as(crate::builder::STATE, &self.plan().state)
    }

    /// The directory for sockets, as programs on the host name it: `/run/welkin`, or a path of its
    /// own.
    pub fn run_dir(&self) -> PathBuf {
        self.seen_as(crate::builder::RUN, &self.plan().run)
    }

    /// The same directory as [`Host::state_dir`], as this process names it.
    pub fn state_dir_outside(&self) -> &Path {
        &self.plan().state
    }

    /// The same directory as [`Host::run_dir`], as this process names it.
    pub fn run_dir_outside(&self) -> &Path {
        &self.plan().run
    }

    /// Whether it is up.
    pub fn is_up(&self) -> bool {
        !matches!(*self.slot(), Slot::Down)
    }

    /// A command that will run on this host as it is up *now*; if it is down when the command is
    /// made or spawned, spawning fails with `EHOSTDOWN`.
    ///
    /// The child is a relay: its pid is outside the host, signals sent to it reach the program, and
    /// it ends as the program ends. Set no uid on the command, for only root can enter.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let program = program.as_ref();
        match &*self.slot() {
            Slot::Marked => fallback::command(program, &self.mark()),
            Slot::Up(up) => door::command(program, Some(Arc::clone(&up.door))),
            Slot::Down => door::command(program, None),
        }
    }

    /// Runs `work` on a thread that is in the network of this host, in this process. Sockets that it
    /// makes and returns stay in that network, also when used by other threads.
    pub fn in_network<T: Send>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send,
    ) -> io::Result<T> {
        let door = match &*self.slot() {
            Slot::Marked => None,
            Slot::Up(up) => Some(Arc::clone(&up.door)),
            Slot::Down => return Err(io::Error::from_raw_os_error(libc::EHOSTDOWN)),
        };
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                if let Some(door) = door {
                    setns(&door.init, CloneFlags::CLONE_NEWNET)?;
                }
                work()
            });
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Cuts the power: everything on the host dies at once. Returns when it is gone; a host that is
    /// down stays down.
    pub fn kill(&self) -> Result<(), HostError> {
        self.core.kill(self.index)
    }

    /// Carries it to another place while it runs: from now on its address, or that of the router that
    /// it is behind, is `address`, and nothing reaches it at the old one. Booted anew it is where it
    /// was at first.
    pub fn move_to(&self, address: Ipv4Addr) -> Result<(), HostError> {
        let engine = self.core.engine.as_ref().ok_or(HostError::NoNetwork)?;
        if !self.is_up() {
            return Err(HostError::Down);
        }
        self.place(engine, address).map_err(HostError::Io)?;
        lock(&self.core.moved).insert(self.index, address);
        Ok(())
    }

    fn place(&self, engine: &Engine, address: Ipv4Addr) -> io::Result<()> {
        let moved = Some(address);
        engine
            .switch
            .change(|fabric| fabric.set_place(self.index, moved));
        if self.plan().nat.is_none() {
            self.in_network(|| tap::readdress(address))?;
        }
        let station = Station {
            ethernet: ethernet_address(self.index),
            address,
        };
        for index in (0..self.core.plans.len()).filter(|it| *it != self.index) {
            let core = Arc::clone(&self.core);
            let other = Self { core, index };
            // Behind a router it finds everybody by the router.
            if other.is_up() && other.plan().nat.is_none() {
                other.in_network(|| tap::meet(station))?;
            }
        }
        Ok(())
    }

    /// Boots it again, with the same address and the same directories.
    pub fn start(&self) -> Result<(), HostError> {
        let mut slot = self.slot();
        if self.core.closed.load(Ordering::SeqCst) {
            return Err(HostError::Closed);
        }
        if !matches!(*slot, Slot::Down) {
            return Err(HostError::AlreadyUp);
        }
        self.plan().make_directories().map_err(HostError::Io)?;
        *slot = match &self.core.engine {
            None => Slot::Marked,
            Some(engine) => Slot::Up(Box::new(self.boot(engine).map_err(HostError::Io)?)),
        };
        drop(slot);
        self.core.write_record().map_err(HostError::Io)
    }

    pub(crate) fn door_record(&self) -> Option<DoorRecord> {
        match &*self.slot() {
            Slot::Down => None,
            Slot::Marked => Some(DoorRecord::Mark(self.mark())),
            Slot::Up(up) => Some(DoorRecord::Init {
                pid: up.init.pid().as_raw(),
                started: up.init.started(),
                cgroups: up.cgroups.directories().to_vec(),
            }),
        }
    }

    fn boot(&self, engine: &Engine) -> io::Result<Up> {
        let plan = self.plan();
        let name = format!("lab-{}", plan.name);
        lock(&self.core.moved).remove(&self.index);
        engine.switch.change(|fabric| {
            fabric.set_place(self.index, None);
            if let Some(nat) = plan.nat {
                fabric.set_router(self.index, Router::new(nat, plan.address));
            }
        });
        let init = engine.keeper.run(move || Init::start(&name))??;
        let cgroups = plan.cgroups.make_around(init.pid().as_raw());
        let settled = settle::settle(&init, &plan.household).and_then(|device| {
            engine.switch.plug(self.index, device)?;
            Ok(Arc::new(Door {
                init: init.handle().try_clone()?,
                cgroups: cgroups.doors()?,
            }))
        });
        match settled {
            Ok(door) => Ok(Up {
                init,
                cgroups,
                door,
            }),
            Err(error) => {
                engine.switch.unplug(self.index);
                init.kill();
                init.wait_gone(&cgroups)
                    .and_then(|()| cgroups.remove())
                    .ok();
                Err(error)
            }
        }
    }

    fn status(&self) -> HostStatus {
        let slot = self.slot();
        HostStatus {
            name: self.name().to_owned(),
            address: self.address(),
            site: self.site().map(str::to_owned),
            up: !matches!(*slot, Slot::Down),
            init_pid: match &*slot {
                Slot::Up(up) => Some(up.init.pid().as_raw()),
                Slot::Down | Slot::Marked => None,
            },
            state_directory: self.plan().state.clone(),
        }
    }

    fn seen_as(&self, inside: &str, outside: &Path) -> PathBuf {
        match self.core.engine {
            Some(_) => PathBuf::from(inside),
            None => outside.to_owned(),
        }
    }

    fn mark(&self) -> String {
        format!("{}{}/", mark_of_lab(&self.core.name), self.name())
    }

    fn plan(&self) -> &HostPlan {
        &self.core.plans[self.index]
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        lock(&self.core.slots[self.index])
    }
}

impl Engine {
    fn start(hosts: usize, seed: u64) -> io::Result<Self> {
        Ok(Self {
            switch: Switch::start(Fabric::new(hosts, seed), hosts)?,
            keeper: Keeper::start()?,
        })
    }
}

impl Core {
    fn kill(&self, index: usize) -> Result<(), HostError> {
        let mut slot = lock(&self.slots[index]);
        self.strike(index, &slot);
        self.bury(index, &slot).map_err(HostError::Io)?;
        *slot = Slot::Down;
        drop(slot);
        self.write_record().map_err(HostError::Io)
    }

    /// The moment of death: no frame moves and no process runs any more. Does not wait.
    fn strike(&self, index: usize, slot: &Slot) {
        if let Some(engine) = &self.engine {
            engine.switch.unplug(index);
        }
        if let Slot::Up(up) = slot {
            up.init.kill();
        }
    }

    /// Waits until nothing is left of a struck host but its directories.
    fn bury(&self, index: usize, slot: &Slot) -> io::Result<()> {
        match slot {
            Slot::Down => Ok(()),
            Slot::Marked => {
                let host = &self.plans[index].name;
                fallback::kill_marked(&format!("{}{host}/", mark_of_lab(&self.name)))
            }
            Slot::Up(up) => {
                up.init.wait_gone(&up.cgroups)?;
                up.cgroups.remove()
            }
        }
    }

    fn down(&self) -> Result<(), DownError> {
        if self.closed.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        for (index, slot) in self.slots.iter().enumerate() {
            self.strike(index, &lock(slot));
        }
        let mut done = Ok(());
        for (index, slot) in self.slots.iter().enumerate() {
            let mut slot = lock(slot);
            done = done.and(self.bury(index, &slot));
            *slot = Slot::Down;
        }
        if let Some(engine) = &self.engine {
            engine.switch.stop();
            engine.keeper.stop();
        }
        // Without the record nobody could finish this: keep it if something is left.
        done.and_then(|()| rundir::remove_tree(&lock(&self.record).data))
            .and_then(|()| self.run.remove())
            .map_err(DownError)
    }

    fn write_record(&self) -> io::Result<()> {
        let mut inits = Vec::new();
        for slot in &self.slots {
            if let Slot::Up(up) = &*lock(slot) {
                inits.push(InitRecord {
                    pid: up.init.pid().as_raw(),
                    started: up.init.started(),
                });
            }
        }
        let mut record = lock(&self.record);
        record.inits = inits;
        self.run.write(&record)
    }
}

/// An empty directory that is ours alone, in place of one that a lab has left before a reboot.
fn make_data(data: &Path) -> io::Result<()> {
    rundir::remove_tree(data)?;
    DirBuilder::new().mode(0o700).create(data)
}

/// The beginning of the marks of a lab's programs.
fn mark_of_lab(name: &str) -> String {
    format!("{name}/")
}

/// All directions between different hosts.
fn pairs(hosts: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..hosts).flat_map(move |from| {
        (0..hosts)
            .filter(move |to| *to != from)
            .map(move |to| (from, to))
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! One node: everything that it is made of, put together and run.
//!
//! What it is not: clever. The loop tells the kernel what happened and carries out what it wants;
//! every decision is the kernel's.
//!
//! # The loop
//!
//! ```text
//! disk ─────┐                                   ┌─► disk
//! links ────┤                                   ├─► links
//! shims ────┼─► inputs (bounded) ─► Kernel ─────┼─► shims
//! server ───┤        handle, poll_output        ├─► server (answers)
//! timer ────┘                                   └─► events, alarms
//! ```
//!
//! Nothing that the loop does waits for anything but room in the disk's queue, and while it waits it
//! takes the disk's answers; so it cannot lock up. Whoever sends inputs waits when the loop is behind:
//! back-pressure reaches peers and callers. Datagrams are dropped instead.
//!
//! # Its end
//!
//! `Output::Halt` (`welkin down`) and SIGTERM (a service manager) end it alike: callers get the
//! answers that are ready, messages that are on their way get a second, the disk is written, the
//! socket is removed. Objects are not touched: moving them away first is what `node/down` is for.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::{Signer, SigningKey};
use kernel::Kernel;
use kernel::instant::Instant;
use kernel::world::{Config, Ending, Input, Output, Token};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::disk::{NodeState, Table};
use wire::fact::Availability;
use wire::id::{CloudId, NodeId};
use wire::peer::{JoinAnswer, Signature};

use crate::calls::Calls;
use crate::disk::{self, Disk, DiskError};
use crate::doctor::Patient;
use crate::events::Events;
use crate::frames::FrameReader;
use crate::home::{self, Admission, Home, HomeError, ROOT_PORT, ROOT_STATE_DIR, socket_path};
use crate::join::{self, JoinError};
use crate::links::{Arrival, BindError, Links};
use crate::measure::{self, Meter};
use crate::metrics::Metrics;
use crate::notify;
use crate::probes::Probes;
use crate::server::{self, Heartbeat, Policy, Server};
use crate::shims::Shims;
use crate::streams::{Caller, STREAMS_MAX, Streams};
use crate::{addresses, clock};

/// Threads of [`run`] for what waits: the loop on one, bulk bytes on the other.
const WORKERS: usize = 2;
/// Threads of [`run`] for what blocks: starting objects, reading logs.
const BLOCKING_MAX: usize = 16;
/// Inputs that wait for the kernel.
const INPUTS_MAX: usize = 1024;
/// Joins and streams that wait for the loop.
const ARRIVALS_MAX: usize = 256;
/// Inputs taken before the timer is looked at again.
const BURST: usize = 64;
/// Between two looks at the clock and the load of the machine.
pub(crate) const PULSE: Duration = Duration::from_secs(5);
/// Own addresses are looked at every so many pulses, and when interfaces have changed.
const PULSES_PER_LOOK: u32 = 3;
/// How long answers and messages that are on their way may take when the node ends.
const FAREWELL: Duration = Duration::from_secs(1);
/// A timer that the kernel does not move after it was told the time is asked for no sooner.
const STUCK_TIMER: Duration = Duration::from_millis(20);

/// What a daemon is told by whoever starts it.
#[derive(Debug, Clone)]
pub struct Options {
    /// The state directory; see [`home::default_state_dir`].
    pub state_dir: PathBuf,
    /// Where links listen (UDP). When empty: where the node was last told to listen. When it never
    /// was: all interfaces, at port 7117 for the default state directory of root, else at the port
    /// that was used last, or a free one.
    pub listen: Vec<SocketAddr>,
    /// The name that the node would like when its cloud gave it none; its host name when absent.
    pub name: Option<String>,
    /// Labels that it begins with.
    pub labels: BTreeMap<String, String>,
    /// What a machine that belongs to no cloud yet joins with; without it, it founds one. Not
    /// looked at when it belongs to one.
    pub ticket: Option<String>,
    /// Whether it relays for members that cannot reach each other.
    pub carries: bool,
    /// Version of the program.
    pub program_version: String,
}

impl Options {
    /// The defaults for this state directory.
    #[must_use]
    pub fn new(state_dir: PathBuf) -> Self {
        Self {
            state_dir,
            listen: Vec::new(),
            name: None,
            labels: BTreeMap::new(),
            ticket: None,
            carries: true,
            program_version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// What is known of a node that answers calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// The node.
    pub node: NodeId,
    /// Its cloud.
    pub cloud: CloudId,
    /// Where it answers system calls.
    pub socket: PathBuf,
    /// Where other nodes reach it, `ip:port`, best first.
    pub addresses: Vec<String>,
}

/// Why a node does not run. What it had stored is as it was.
#[derive(Debug)]
pub enum ServeError {
    /// The state directory cannot be used.
    Home(HomeError),
    /// It belongs to no cloud, and none could be founded or joined.
    Join(Box<JoinError>),
    /// The disk cannot be used.
    Disk(DiskError),
    /// Links cannot begin.
    Bind(BindError),
    /// System calls cannot be answered.
    Socket {
        /// Where.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The machine refuses something that every program needs.
    System {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        error: io::Error,
    },
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Home(error) => error.fmt(f),
            Self::Join(error) => error.fmt(f),
            Self::Disk(error) => error.fmt(f),
            Self::Bind(error) => error.fmt(f),
            Self::Socket { path, error } => {
                write!(f, "cannot listen on {}: {error}", path.display())
            }
            Self::System { action, error } => write!(f, "cannot {action}: {error}"),
        }
    }
}

impl std::error::Error for ServeError {}

impl From<HomeError> for ServeError {
    fn from(error: HomeError) -> Self {
        Self::Home(error)
    }
}

impl From<JoinError> for ServeError {
    fn from(error: JoinError) -> Self {
        Self::Join(Box::new(error))
    }
}

impl From<DiskError> for ServeError {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}

impl From<BindError> for ServeError {
    fn from(error: BindError) -> Self {
        Self::Bind(error)
    }
}

impl ServeError {
    fn system(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::System { action, error }
    }
}

/// Runs a node until it is told to end, by a call or by SIGTERM or SIGINT. A machine that belongs to
/// no cloud yet joins one or founds one first.
///
/// # Errors
/// [`ServeError`], when it cannot start.
pub async fn serve(options: Options) -> Result<(), ServeError> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = ServeError::system("wait for signals");
    let signals = || {
        Ok((
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        ))
    };
    let (mut terminate, mut interrupt) = signals().map_err(listen)?;
    let told = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    tokio::pin!(told);
    let host = tokio::select! {
        host = Box::pin(Host::start(options)) => host?,
        // A join can take a while; what it wrote by then a second attempt uses.
        () = &mut told => return Ok(()),
    };
    notify::notify(notify::READY);
    host.run_until(told).await;
    Ok(())
}

/// [`serve`] on a runtime that suits it: a node is mostly idle and must stay small, so there are
/// two threads for everything that waits and few for what blocks.
///
/// # Errors
/// As [`serve`].
pub fn run(options: Options) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING_MAX)
        .enable_all()
        .build()
        .map_err(ServeError::system("start threads"))?;
    let served = runtime.block_on(Box::pin(serve(options)));
    // What still blocks (a slow disk below a log that nobody reads any more) is not waited for.
    runtime.shutdown_background();
    served
}

/// A node that answers calls.
#[derive(Debug)]
pub struct Host {
    ready: Ready,
    world: World,
    server: TaskTracker,
    background: CancellationToken,
    /// Held until the end.
    _home: Home,
}

impl Host {
    /// Takes the state directory and begins: when this returns, calls are answered once
    /// [`Host::run_until`] is polled.
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn start(options: Options) -> Result<Self, ServeError> {
        Self::start_with(options, own_program()).await
    }

    /// The same, with another program whose `shim DIR` holds an object.
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn start_with(options: Options, program: PathBuf) -> Result<Self, ServeError> {
        let home = Home::open(&options.state_dir)?;
        raise_open_files();
        if !home.is_member() {
            Box::pin(begin(&home, &options)).await?;
        }
        let admission = home.admission()?;
        let control_groups = drivers::exec::prepare_control_groups();
        let cloud = admission.cloud;
        let (inputs, inputs_end) = mpsc::channel(INPUTS_MAX);
        let (world, addresses) =
            World::new(&home, &options, admission, program, (&inputs, inputs_end)).await?;
        let ready = Ready {
            node: home.node(),
            cloud,
            socket: socket_path(&options.state_dir),
            addresses,
        };
        let background = CancellationToken::new();
        let server = world.server(&ready, &home, control_groups, background.clone())?;
        let pulse = pulse(inputs, world.links.clone(), ready.addresses.clone());
        let stop = background.clone();
        world
            .tasks
            .spawn(async move { stop.run_until_cancelled_owned(pulse).await });
        Ok(Self {
            ready,
            world,
            server,
            background,
            _home: home,
        })
    }

    /// What is known of it.
    #[must_use]
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Runs until the kernel says that it has ended, or `told` does.
    pub async fn run_until(mut self, told: impl Future<Output = ()>) {
        tokio::select! {
            () = self.world.run() => tracing::info!("the node was asked to end"),
            () = told => {
                let ending = if notify::is_machine_stopping().await {
                    tracing::info!("the node ends with its machine");
                    Ending::Shutdown
                } else {
                    tracing::info!("the node ends; its objects go on");
                    Ending::Restart
                };
                let _halted = self.world.tell(Input::Ending(ending)).await;
            }
        }
        notify::notify(notify::STOPPING);
        self.background.cancel();
        self.world.calls.close();
        self.server.close();
        if timeout(FAREWELL, self.server.wait()).await.is_err() {
            tracing::debug!("some callers did not take their answers in time");
        }
        self.world.links.close(FAREWELL).await;
        // Nobody is left to take them, and the thread must not wait for that.
        self.world.answers.close();
        self.world.disk.close();
        // As long as objects go on in them, they stay.
        drivers::exec::remove_control_groups(self.ready.node);
        if let Err(error) = std::fs::remove_file(&self.ready.socket) {
            tracing::debug!(%error, "the socket was gone already");
        }
    }
}

/// Joins the cloud of the ticket, or founds one.
async fn begin(home: &Home, options: &Options) -> Result<(), JoinError> {
    let name = options.name.as_deref();
    let joined = match &options.ticket {
        Some(ticket) => {
            // Only asks: any free port will do, but the interface may matter.
            let free = |address: &SocketAddr| SocketAddr::new(address.ip(), 0);
            let mut listen: Vec<_> = options.listen.iter().map(free).collect();
            if listen.is_empty() {
                listen = everywhere(0).to_vec();
            }
            join::join(home, ticket, name, &listen).await?
        }
        None => join::found(home, name)?,
    };
    tracing::info!(cloud = %joined.cloud.short(), name = joined.name, "this machine is a node now");
    Ok(())
}

/// All interfaces.
fn everywhere(port: u16) -> [SocketAddr; 2] {
    let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    [v4, SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))]
}

/// A node of many objects and streams needs more descriptors than the cautious limit that programs
/// start with. Objects do not inherit it: shims set it back.
fn raise_open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_soft, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}

fn own_program() -> PathBuf {
    let running = PathBuf::from("/proc/self/exe");
    match std::env::current_exe() {
        Ok(path) if path.is_file() => path,
        // An upgrade has deleted the file; the running one can still be executed.
        Ok(_) | Err(_) => running,
    }
}

/// What a kernel is told at birth, but for what was found on this machine.
fn config(
    home: &Home,
    options: &Options,
    admission: Admission,
    is_new: bool,
) -> Result<Config, ServeError> {
    let mut config = Config {
        node: home.node(),
        cloud: admission.cloud,
        name: options.name.clone().unwrap_or_default(),
        labels: options.labels.clone(),
        program_version: options.program_version.clone(),
        platform: measure::platform(),
        addresses: Vec::new(),
        cpu_millis: measure::size().cpu_millis,
        memory_bytes: measure::size().memory_bytes,
        hidden_directories: hidden_directories(home),
        wall: clock::wall(),
        seed: [0; 32],
        statements: Vec::new(),
        facts: Vec::new(),
        stored: Vec::new(),
        survivors: Vec::new(),
    };
    getrandom::fill(&mut config.seed)
        .map_err(|error| ServeError::system("get randomness")(io::Error::other(error)))?;
    if let JoinAnswer::Admitted {
        name,
        labels,
        statements,
        facts,
    } = admission.answer
    {
        // The cloud's word about the name: it is unique there.
        config.name = if name.is_empty() { config.name } else { name };
        config.labels.extend(labels);
        // A node that remembers has newer ones.
        if is_new {
            (config.statements, config.facts) = (statements, facts);
        }
    }
    if config.name.is_empty() {
        config.name = measure::host_name();
    }
    Ok(config)
}

/// What a node whose disk is lost goes on with instead of it.
///
/// A boot number must not be used twice, and the node has forgotten which it has used: a start at
/// the first one, soon after the last, was taken for the life before, and nobody brought it back
/// what it had lost. At a number by chance it is above those, and so is a start of its own for
/// everybody; or below, and then others tell it.
fn state_after_loss(config: &Config) -> Option<disk::Row> {
    let chance = config.seed.first_chunk().copied().unwrap_or_default();
    let state = NodeState {
        cloud: config.cloud,
        node: config.node,
        boot_reserved: 1 + u32::from(u16::from_le_bytes(chance)),
        name: config.name.clone(),
        labels: config.labels.clone(),
        availability: Availability::Open,
    };
    let sealed = wire::disk::seal(&state).ok()?;
    Some((Table::Node, b"node".to_vec(), sealed))
}

/// Tells the kernel now and then what nobody else tells it.
async fn pulse(inputs: mpsc::Sender<Input>, links: Links, mut known: Vec<String>) {
    let mut meter = Meter::new(measure::size());
    let mut ticks = tokio::time::interval(PULSE);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut count = 0_u32;
    let mut told = Vec::new();
    loop {
        let has_moved = tokio::select! {
            _ = ticks.tick() => false,
            () = links.moved() => true,
        };
        if !has_moved {
            count = count.wrapping_add(1);
            told.push(Input::Wall(clock::wall()));
            told.push(Input::Load(meter.load()));
        }
        if has_moved || count.is_multiple_of(PULSES_PER_LOOK) {
            let addresses = addresses::of(&links.bound());
            if !addresses.is_empty() && addresses != known {
                known.clone_from(&addresses);
                told.push(Input::Addresses(addresses));
            }
        }
        for input in told.drain(..) {
            if inputs.send(input).await.is_err() {
                return;
            }
        }
    }
}

fn hidden_directories(home: &Home) -> Vec<String> {
    let mut hidden = vec![home.directory().display().to_string()];
    // Of a node of root that runs beside this one, or of this one, before it is made.
    let run = Path::new(home::ROOT_SOCKET).parent();
    hidden.extend(run.map(|run| run.display().to_string()));
    hidden
}

async fn listen(
    home: &Home,
    options: &Options,
    inputs: &mpsc::Sender<Input>,
    arrivals: &mpsc::Sender<Arrival>,
    metrics: &Metrics,
) -> Result<Links, ServeError> {
    let bind = async |listen: &[SocketAddr]| {
        let (inputs, arrivals) = (inputs.clone(), arrivals.clone());
        let metrics = metrics.clone();
        Links::bind(
            home.key(),
            listen,
            inputs,
            arrivals,
            metrics,
            options.carries,
        )
        .await
    };
    let default = options.state_dir.as_path() == Path::new(ROOT_STATE_DIR);
    let (wanted, last_port) = if !options.listen.is_empty() {
        (options.listen.clone(), None)
    } else if let listen = home.last_listen()?
        && !listen.is_empty()
    {
        (listen, home.last_port())
    } else if default {
        (everywhere(ROOT_PORT).to_vec(), None)
    } else {
        (everywhere(0).to_vec(), home.last_port())
    };
    let links = match last_port.map(|port| at_port(&wanted, port)) {
        // The port that it happened to have last may be somebody else's now.
        Some(last) if last != wanted => match bind(&last).await {
            Ok(links) => links,
            Err(_taken) => bind(&wanted).await?,
        },
        Some(_) | None => bind(&wanted).await?,
    };
    if !options.listen.is_empty() {
        home.keep_listen(&options.listen)?;
    }
    if let Some(address) = links.bound().first() {
        home.keep_port(address.port())?;
    }
    Ok(links)
}

/// The same addresses, with this port where any would do.
fn at_port(wanted: &[SocketAddr], port: u16) -> Vec<SocketAddr> {
    let fill = |address: &SocketAddr| match address.port() {
        0 => SocketAddr::new(address.ip(), port),
        _ => *address,
    };
    wanted.iter().map(fill).collect()
}

/// The kernel and all that carries out what it wants.
#[derive(Debug)]
struct World {
    kernel: Kernel,
    key: SigningKey,
    inputs: mpsc::Receiver<Input>,
    arrivals: mpsc::Receiver<Arrival>,
    answers: mpsc::Receiver<Input>,
    disk: Disk,
    links: Links,
    shims: Shims,
    probes: Probes,
    calls: Calls,
    streams: Streams,
    events: Events,
    metrics: Metrics,
    /// Machines that wait to be admitted.
    joins: HashMap<u64, oneshot::Sender<JoinAnswer>>,
    joins_seen: u64,
    /// Inputs that an output made at once.
    echoes: VecDeque<Input>,
    tasks: TaskTracker,
    heartbeat: Heartbeat,
    /// The timer that the kernel did not move after it was told the time.
    stuck: Option<Instant>,
}

/// The kernel said that everything is said.
struct Halted;

impl World {
    /// Puts everything together but the server; also says where the node is reached.
    async fn new(
        home: &Home,
        options: &Options,
        admission: Admission,
        program: PathBuf,
        (inputs, inputs_end): (&mpsc::Sender<Input>, mpsc::Receiver<Input>),
    ) -> Result<(Self, Vec<String>), ServeError> {
        let metrics = Metrics::default();
        let events = Events::new(metrics.clone());
        let opened = disk::open(&home.disk_path())?;
        let lost = opened.lost(home.has_run());
        if let Some((alarm, detail)) = lost.clone() {
            events.alarm(alarm, detail);
        }
        let (arrivals, arrivals_end) = mpsc::channel(ARRIVALS_MAX);
        let (answers, answers_end) = mpsc::channel(disk::ANSWERS_MAX);
        let links = Box::pin(listen(home, options, inputs, &arrivals, &metrics)).await?;
        let addresses = addresses::of(&links.bound());
        let shims = Shims::new(program, home.objects(), inputs.clone(), metrics.clone());
        let survivors = shims
            .recover()
            .await
            .map_err(ServeError::system("look for objects"))?;
        let is_new = !opened
            .rows
            .iter()
            .any(|(table, ..)| *table == Table::Statements);
        let mut config = Config {
            addresses: addresses.clone(),
            stored: opened.rows,
            survivors,
            ..config(home, options, admission, is_new)?
        };
        if lost.is_some() {
            let row = state_after_loss(&config);
            config.stored.extend(row);
        }
        let disk = Disk::start(opened.store, answers, metrics.clone())
            .map_err(ServeError::system("start a thread"))?;
        let streams = Streams {
            here: home.node(),
            links: links.clone(),
            shims: shims.clone(),
            events: events.clone(),
            metrics: metrics.clone(),
            places: Arc::new(Semaphore::new(STREAMS_MAX)),
        };
        let world = Self {
            kernel: Kernel::new(clock::now(), config),
            key: home.key().clone(),
            inputs: inputs_end,
            arrivals: arrivals_end,
            answers: answers_end,
            disk,
            links,
            probes: Probes::new(shims.clone(), home.node(), inputs.clone()),
            shims,
            calls: Calls::new(inputs.clone()),
            streams,
            events,
            metrics,
            joins: HashMap::new(),
            joins_seen: 0,
            echoes: VecDeque::new(),
            tasks: TaskTracker::new(),
            heartbeat: Heartbeat::new(),
            stuck: None,
        };
        Ok((world, addresses))
    }

    fn server(
        &self,
        ready: &Ready,
        home: &Home,
        control_groups: Vec<String>,
        stop: CancellationToken,
    ) -> Result<TaskTracker, ServeError> {
        let listener = server::listen(&ready.socket).map_err(|error| {
            let path = ready.socket.clone();
            ServeError::Socket { path, error }
        })?;
        let patient = Patient {
            state_dir: home.directory().to_path_buf(),
            bound: self.links.bound(),
            addresses: ready.addresses.clone(),
            alarms: Vec::new(),
            control_groups,
        };
        let tasks = TaskTracker::new();
        let server = Server {
            calls: self.calls.clone(),
            streams: self.streams.clone(),
            events: self.events.clone(),
            metrics: self.metrics.clone(),
            policy: Policy::of_this_process(),
            patient: Arc::new(patient),
            others: Arc::default(),
            heartbeat: self.heartbeat.clone(),
            tasks: tasks.clone(),
            stop,
        };
        tasks.spawn(server.run(listener));
        Ok(tasks)
    }

    async fn run(&mut self) {
        // What the kernel wants from birth.
        let mut state = self.carry_out().await;
        // By now it has said who the members are.
        self.links.serve();
        while state.is_ok() {
            state = self.turn().await;
        }
    }

    /// Waits for something to happen and deals with it.
    async fn turn(&mut self) -> Result<(), Halted> {
        self.heartbeat.beat();
        let due = self.kernel.poll_timeout();
        let wait = due.map(|due| self.until(due));
        // Not left to the select: a stream of inputs that never ends would put the time off. But what
        // has arrived by now comes first: on a machine that stalls, answers are not late because
        // this node is.
        if wait.is_some_and(|wait| wait.is_zero()) {
            self.tell_arrived().await?;
            return self.tick(due).await;
        }
        tokio::select! {
            biased;
            Some(answer) = self.answers.recv() => self.tell(answer).await?,
            Some(input) = self.inputs.recv() => {
                self.tell(input).await?;
                self.tell_arrived().await?;
                // Inputs that never end must not keep joins and streams waiting for ever.
                if let Ok(arrival) = self.arrivals.try_recv() {
                    self.welcome(arrival).await?;
                }
            }
            Some(arrival) = self.arrivals.recv() => self.welcome(arrival).await?,
            () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {
                self.tick(due).await?;
            }
        }
        Ok(())
    }

    /// Tells the kernel what is there already, as far as it does not keep coming.
    async fn tell_arrived(&mut self) -> Result<(), Halted> {
        for _ in 0..BURST {
            let Ok(input) = self.inputs.try_recv() else {
                break;
            };
            self.tell(input).await?;
        }
        Ok(())
    }

    /// Tells the kernel the time that it asked for.
    async fn tick(&mut self, due: Option<Instant>) -> Result<(), Halted> {
        self.kernel.handle_timeout(clock::now());
        self.carry_out().await?;
        self.stuck = self.kernel.poll_timeout().filter(|next| Some(*next) == due);
        Ok(())
    }

    fn until(&self, due: Instant) -> Duration {
        let wait = due.since(clock::now());
        if self.stuck == Some(due) {
            wait.max(STUCK_TIMER)
        } else {
            wait
        }
    }

    async fn tell(&mut self, input: Input) -> Result<(), Halted> {
        self.metrics.input();
        self.kernel.handle(clock::now(), input);
        self.carry_out().await
    }

    async fn welcome(&mut self, arrival: Arrival) -> Result<(), Halted> {
        match arrival {
            Arrival::Join {
                node,
                request,
                answer,
            } => {
                self.joins.retain(|_, waiting| !waiting.is_closed());
                self.joins_seen += 1;
                self.joins.insert(self.joins_seen, answer);
                let token = Token(self.joins_seen);
                let input = Input::Join {
                    token,
                    node,
                    request,
                };
                self.tell(input).await
            }
            Arrival::Stream(stream) => {
                let streams = self.streams.clone();
                let reader = FrameReader::new(stream);
                self.tasks
                    .spawn(async move { streams.serve(reader, Caller::Member).await });
                Ok(())
            }
        }
    }

    /// Carries out everything that the kernel wants.
    async fn carry_out(&mut self) -> Result<(), Halted> {
        loop {
            while let Some(output) = self.kernel.poll_output() {
                self.perform(output).await?;
            }
            let Some(echo) = self.echoes.pop_front() else {
                return Ok(());
            };
            self.metrics.input();
            self.kernel.handle(clock::now(), echo);
        }
    }

    async fn perform(&mut self, output: Output) -> Result<(), Halted> {
        match output {
            Output::Datagram { to, bytes } => self.links.datagram(to, bytes),
            Output::Message { to, bytes } => {
                if let Err(bytes) = self.links.message(to, bytes) {
                    self.metrics.message_undelivered();
                    self.echoes.push_back(Input::Undelivered { to, bytes });
                }
            }
            Output::Persist { batch, writes } => {
                let (answers, taken) = (&mut self.answers, &mut self.echoes);
                self.disk.persist(batch, writes, answers, taken).await;
            }
            Output::Reply { call, result } => self.calls.answer(call, *result),
            Output::AnswerJoin { token, answer } => {
                let waiting = self.joins.remove(&token.0);
                if waiting.is_some_and(|waiting| waiting.send(*answer).is_err()) {
                    tracing::debug!("a machine that wanted to join went away");
                }
            }
            Output::Launch(launch) => self.shims.launch(*launch),
            Output::Stop { object, grace_ms } => self.shims.stop(object, grace_ms),
            Output::Tenure { object, tenure } => self.shims.tenure(object, tenure),
            Output::Signal { object, signal } => self.shims.signal(object, signal),
            Output::Discard { object } => self.shims.discard(object),
            Output::Probe {
                object,
                probe,
                check,
                timeout_ms,
            } => self.probes.probe(object, probe, check, timeout_ms),
            Output::Measure { token, objects } => self.shims.measure(token, objects),
            Output::Sign { token, bytes } => {
                let signature = Signature(self.key.sign(&bytes).to_bytes());
                self.echoes.push_back(Input::Signed { token, signature });
            }
            Output::Peer {
                node,
                addresses,
                relays,
            } => self.links.admit(node, &addresses, &relays),
            Output::Lines { relays } => self.links.hold_lines(relays),
            Output::Expel { node } => self.links.expel(node),
            Output::Event(event) => self.events.push(event),
            Output::Alarm { alarm, detail } => self.events.alarm(alarm, detail),
            Output::Halt => return Err(Halted),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use kernel::alarm::Alarm;

    use super::*;

    async fn host(state_dir: &Path) -> Host {
        let options = Options {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            ..Options::new(state_dir.to_path_buf())
        };
        Box::pin(Host::start(options)).await.unwrap()
    }

    /// Joins and streams were looked at only when no input waited: a busy node let nobody in.
    #[tokio::test]
    async fn inputs_that_never_end_keep_nobody_waiting() {
        let directory = tempfile::tempdir().unwrap();
        let mut host = host(directory.path()).await;
        let (inputs, inputs_end) = mpsc::channel(INPUTS_MAX);
        let (arrivals, arrivals_end) = mpsc::channel(1);
        (host.world.inputs, host.world.arrivals) = (inputs_end, arrivals_end);
        for _ in 0..INPUTS_MAX {
            inputs.try_send(Input::Wall(clock::wall())).unwrap();
        }
        let (answer, _waiting) = oneshot::channel();
        let ticket = wire::peer::Ticket {
            body: wire::peer::TicketBody {
                cloud: CloudId([5; 32]),
                id: wire::id::TicketId([6; 16]),
                issuer: NodeId([7; 32]),
                uses: 1,
                not_after: wire::id::UnixMillis(1),
                labels: BTreeMap::new(),
                doors: Vec::new(),
            },
            signature: Signature([0; 64]),
        };
        let name = "new".to_owned();
        let join = Arrival::Join {
            node: NodeId([8; 32]),
            request: Box::new(wire::peer::JoinRequest { ticket, name }),
            answer,
        };
        arrivals.try_send(join).unwrap();
        while host.world.joins_seen == 0 {
            assert!(host.world.turn().await.is_ok());
        }
        assert!(inputs.capacity() < INPUTS_MAX - BURST, "inputs still wait");
    }

    #[test]
    fn a_port_is_filled_in_where_any_would_do() {
        let wanted: Vec<SocketAddr> = ["127.0.0.1:0", "[::1]:5"]
            .map(|text| text.parse().unwrap())
            .to_vec();
        let filled: Vec<_> = at_port(&wanted, 9)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(filled, ["127.0.0.1:9", "[::1]:5"]);
    }

    /// An empty file is a new disk to the library, and nobody was told that the old one was gone.
    #[tokio::test]
    async fn a_node_whose_disk_is_gone_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let first = host(directory.path()).await;
        assert_eq!(first.world.events.alarms().len(), 0);
        first.run_until(std::future::ready(())).await;
        std::fs::write(directory.path().join("disk.redb"), b"").unwrap();
        let again = host(directory.path()).await;
        let alarms = again.world.events.alarms();
        assert_eq!(alarms.len(), 1);
        assert_eq!(alarms[0].alarm, Alarm::DiskLost);
        assert!(
            alarms[0].detail.contains("disk.redb is empty"),
            "{alarms:?}"
        );
    }

    /// A node that was founded on one address came back on all of them.
    #[tokio::test]
    async fn a_node_comes_back_where_it_was_told_to_listen() {
        let directory = tempfile::tempdir().unwrap();
        let first = host(directory.path()).await;
        let addresses = first.ready().addresses.clone();
        first.run_until(std::future::ready(())).await;
        let options = Options::new(directory.path().to_path_buf());
        let again = Box::pin(Host::start(options)).await.unwrap();
        assert_eq!(again.ready().addresses, addresses);
        assert!(addresses[0].starts_with("127.0.0.1:"), "{addresses:?}");
    }
}

//! System calls over the Unix socket of the node.
//!
//! What it is not: it decides nothing but who may call: root, the user that runs the node, and
//! members of the group `welkin`, if there is one. Everybody may connect, so that everybody else
//! hears why not.
//!
//! | request | answer |
//! | --- | --- |
//! | `POST /v1/PATH` | the system call of that path; see [`wire::call`] |
//! | `POST /v1/stream` with `Upgrade: welkin-stream/1` | 101, then frames; see [`wire::stream`] |
//! | `GET /v1/openapi.json` | the `OpenAPI` document of all calls |
//! | `GET /v1/health` | `{"status":"ok"}` while the node's loop turns, else 503 |
//! | `GET /metrics` | `OpenMetrics` |

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use kernel::instant::Instant;
use kernel::limits::GRACE_MAX;
use nix::unistd::{Group, User};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::call::{CALL_BYTES_MAX, Problem, ProblemCode, Request, Response};

use crate::api;
use crate::calls::Calls;
use crate::clock;
use crate::daemon::PULSE;
use crate::doctor::{self, Patient};
use crate::events::Events;
use crate::frames::FrameReader;
use crate::metrics::{self, Metrics};
use crate::streams::{Caller, Streams};

/// Connections at one time.
const CONNECTIONS_MAX: usize = 1024;
/// Further ones that are being told so; what comes then waits in the socket's backlog.
const REFUSALS_MAX: usize = 256;
/// How long one of these may take to hear it.
const REFUSAL: Duration = Duration::from_millis(500);
/// Of those, connections of callers who may not call, or of whom that is not known yet.
const OTHERS_MAX: usize = 64;
/// Of those, connections of one user.
const OTHERS_OF_USER_MAX: usize = 4;
/// How long a member of the group is known to be one.
const PERMITTED: Duration = Duration::from_secs(60);
/// Users who are known to be members of the group.
const PERMITTED_MAX: usize = 256;
/// How long the head of a request may take, and an idle connection live.
const HEAD: Duration = Duration::from_secs(60);
/// How long the body of a request may take.
const BODY: Duration = Duration::from_secs(30);
/// A body that may be longer than this is a long one.
const SHORT_BODY_BYTES: u64 = 16 * 1024;
/// Long bodies that are being read at one time: with all that is short, 48 MiB.
const LONG_BODIES_MAX: usize = 64;
/// How long the answer of a call may take, beside what it itself allows. The kernel's own deadlines
/// are shorter: this one is for a kernel that does not answer.
const CALL: Duration = Duration::from_secs(60);
/// The loop turns at least at every pulse; beyond this it is stuck.
const STUCK: Duration = Duration::from_secs(20);
/// How long a connection of a foreign caller may last.
const FOREIGN: Duration = Duration::from_secs(5);
/// What one connection may buffer.
const BUFFER_BYTES: usize = 64 * 1024;
/// The group whose members may call.
const GROUP: &str = "welkin";

/// Places for those of all callers of this process.
static LONG_BODIES: Semaphore = Semaphore::const_new(LONG_BODIES_MAX);

type Answer = hyper::Response<Full<Bytes>>;

/// Makes the socket. Whoever listened there before is gone: the state directory is locked.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    if !directory.is_dir() {
        std::fs::create_dir_all(directory)?;
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755))?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    // A socket's path may have 107 bytes, the directory's any number: name it by its descriptor.
    let flags = nix::libc::O_PATH | nix::libc::O_DIRECTORY;
    let holder = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(directory)?;
    let short: PathBuf = ["/proc/self/fd", &holder.as_raw_fd().to_string()]
        .iter()
        .collect();
    let listener = UnixListener::bind(short.join(name))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Who may call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Policy {
    own_uid: u32,
    root_uid: u32,
}

impl Policy {
    pub(crate) fn of_this_process() -> Self {
        Self {
            own_uid: nix::unistd::geteuid().as_raw(),
            root_uid: 0,
        }
    }

    fn is_owner(self, uid: u32) -> bool {
        uid == self.root_uid || uid == self.own_uid
    }
}

fn is_group_member(uid: u32, gid: u32) -> bool {
    let Ok(Some(group)) = Group::from_name(GROUP) else {
        return false;
    };
    let is_named = || match User::from_uid(nix::unistd::Uid::from_raw(uid)) {
        Ok(Some(user)) => user.gid == group.gid || group.mem.contains(&user.name),
        Ok(None) | Err(_) => false,
    };
    group.gid.as_raw() == gid || is_named()
}

fn forbidden() -> Problem {
    let text =
        "only root, the user who runs the node and members of the group `welkin` may call it";
    Problem::new(ProblemCode::Forbidden, text)
        .remedy("as root: groupadd -f welkin && usermod -aG welkin USER, then log in again")
}

/// When the loop of the node last turned. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Heartbeat(Arc<AtomicU64>);

impl Heartbeat {
    /// That has just beaten.
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicU64::new(clock::now().as_micros())))
    }

    pub(crate) fn beat(&self) {
        self.0.store(clock::now().as_micros(), Ordering::Relaxed);
    }

    fn age(&self) -> Duration {
        clock::now().since(Instant::from_micros(self.0.load(Ordering::Relaxed)))
    }
}

/// Callers who do not own the node.
#[derive(Debug, Default)]
pub(crate) struct Others {
    /// Connections of users of whom it is not known that they may call.
    waiting: Mutex<HashMap<u32, usize>>,
    /// Users and groups that may, and since when that is known. Nobody else can take their places.
    permitted: Mutex<HashMap<(u32, u32), Instant>>,
}

impl Others {
    fn is_permitted(&self, uid: u32, gid: u32) -> bool {
        let permitted = self.permitted.lock();
        let permitted = permitted.unwrap_or_else(PoisonError::into_inner);
        let since = permitted.get(&(uid, gid));
        since.is_some_and(|since| clock::now().since(*since) < PERMITTED)
    }

    fn permit(&self, uid: u32, gid: u32) {
        let permitted = self.permitted.lock();
        let mut permitted = permitted.unwrap_or_else(PoisonError::into_inner);
        if permitted.len() >= PERMITTED_MAX {
            permitted.clear();
        }
        permitted.insert((uid, gid), clock::now());
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u32, usize>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more connection of this user.
    fn place(self: &Arc<Self>, uid: u32) -> Option<OtherPlace> {
        let mut waiting = self.waiting();
        let all: usize = waiting.values().sum();
        let own = waiting.get(&uid).copied().unwrap_or(0);
        if all >= OTHERS_MAX || own >= OTHERS_OF_USER_MAX {
            return None;
        }
        waiting.insert(uid, own + 1);
        let others = Arc::clone(self);
        Some(OtherPlace { others, uid })
    }
}

/// The place of one connection.
struct OtherPlace {
    others: Arc<Others>,
    uid: u32,
}

impl Drop for OtherPlace {
    fn drop(&mut self) {
        let mut waiting = self.others.waiting();
        let left = waiting.get(&self.uid).map_or(0, |own| own - 1);
        if left == 0 {
            waiting.remove(&self.uid);
        } else {
            waiting.insert(self.uid, left);
        }
    }
}

fn busy(why: String) -> Problem {
    Problem::new(ProblemCode::Busy, why).remedy("try again in a moment")
}

/// Tells a caller that there is no place, without waiting for anything.
fn turn_away(connection: &UnixStream, problem: &Problem) {
    let body = serde_json::to_string(problem).unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/problem+json\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    if let Err(error) = connection.try_write(answer.as_bytes()) {
        tracing::debug!(%error, "a caller that was turned away does not hear it");
    }
}

/// Tells a caller that the node has as many as it takes, and listens until that is heard: whoever
/// still writes its request would not read the answer of one who has left.
async fn refuse_one_more(connection: UnixStream) {
    let text = format!("{CONNECTIONS_MAX} callers are connected to the node, and it takes no more");
    turn_away(&connection, &busy(text));
    let mut unheard = [0; 1024];
    let listening = async {
        while connection.readable().await.is_ok() {
            match connection.try_read(&mut unheard) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
                Ok(0) => return,
                Ok(_) | Err(_) => {}
            }
        }
    };
    if timeout(REFUSAL, listening).await.is_err() {
        tracing::debug!("a caller that was refused did not go");
    }
}

/// How long the answer of a call may take; `None` for as long as it takes.
fn deadline(request: &Request) -> Option<Duration> {
    if matches!(request, Request::Wait(_)) {
        return None;
    }
    // How long objects may take to end, only their app's supervisor knows.
    let asked = |grace_ms: u32| Duration::from_millis(grace_ms.into());
    let grace = if let Request::StopApp(stop) = request {
        stop.grace_ms.map_or(GRACE_MAX, asked)
    } else if matches!(request, Request::Remove(_)) {
        GRACE_MAX
    } else {
        Duration::ZERO
    };
    Some(CALL + grace)
}

/// What requests are answered with. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) calls: Calls,
    pub(crate) streams: Streams,
    pub(crate) events: Events,
    pub(crate) metrics: Metrics,
    pub(crate) policy: Policy,
    /// What does not change about this machine's health.
    pub(crate) patient: Arc<Patient>,
    pub(crate) others: Arc<Others>,
    pub(crate) heartbeat: Heartbeat,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

impl Server {
    /// Serves until stopped.
    pub(crate) async fn run(self, listener: UnixListener) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.stop.cancelled() => return,
            };
            let connection = match accepted {
                Ok((connection, _)) => connection,
                Err(error) => {
                    // Out of descriptors, most likely: others must end first.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                self.receive(connection, place);
            } else if let Ok(turn) = Arc::clone(&refusals).acquire_owned().await {
                self.tasks.spawn(async move {
                    refuse_one_more(connection).await;
                    drop(turn);
                });
            }
        }
    }

    fn receive(&self, connection: UnixStream, place: OwnedSemaphorePermit) {
        let server = self.clone();
        let Ok(who) = connection.peer_cred() else {
            return;
        };
        let (uid, gid) = (who.uid(), who.gid());
        if self.policy.is_owner(uid) || self.others.is_permitted(uid, gid) {
            self.tasks.spawn(async move {
                server.converse(connection, true).await;
                drop(place);
            });
        } else if let Some(other) = self.others.place(uid) {
            self.tasks.spawn(async move {
                server
                    .converse_with_other(connection, uid, gid, other)
                    .await;
                drop(place);
            });
        } else {
            // It gets no task.
            let text =
                format!("your user has {OTHERS_OF_USER_MAX} connections whose right is unknown");
            turn_away(&connection, &busy(text));
        }
    }

    /// Serves a caller who is not an owner: whether it is in the group, the system must look up.
    async fn converse_with_other(
        self,
        connection: UnixStream,
        uid: u32,
        gid: u32,
        place: OtherPlace,
    ) {
        let may = tokio::task::spawn_blocking(move || is_group_member(uid, gid)).await;
        if may.unwrap_or(false) {
            self.others.permit(uid, gid);
            drop(place);
            self.converse(connection, true).await;
        } else if timeout(FOREIGN, self.converse(connection, false))
            .await
            .is_err()
        {
            tracing::debug!(uid, "a caller who may not call held its connection");
        }
    }

    async fn converse(self, connection: UnixStream, may: bool) {
        let stop = self.stop.clone();
        let service = service_fn(move |request| {
            let server = self.clone();
            async move { Ok::<_, Infallible>(server.answer(request, may).await) }
        });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(BUFFER_BYTES)
            .serve_connection(TokioIo::new(connection), service)
            .with_upgrades();
        tokio::pin!(serving);
        let served = tokio::select! {
            served = &mut serving => served,
            () = stop.cancelled() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = served {
            tracing::debug!(%error, "a connection broke");
        }
    }

    async fn answer(self, request: hyper::Request<Incoming>, may: bool) -> Answer {
        if !may {
            return refuse(&forbidden());
        }
        let path = request.uri().path().to_owned();
        let call = path.strip_prefix(api::PREFIX).and_then(api::known_path);
        match (request.method(), path.as_str()) {
            (&Method::POST, api::STREAM_PATH) => self.upgrade(request),
            (&Method::POST, _) if let Some(call) = call => self.call(call, request).await,
            (&Method::GET, "/v1/openapi.json") => json(document()),
            (&Method::GET, "/v1/health") => self.health(),
            (&Method::GET, "/metrics") => with_type(
                StatusCode::OK,
                metrics::CONTENT_TYPE,
                self.metrics.text().into(),
            ),
            (_, api::STREAM_PATH) => wrong_method("POST"),
            _ if call.is_some() => wrong_method("POST"),
            (_, "/v1/openapi.json" | "/v1/health" | "/metrics") => wrong_method("GET"),
            (_, path) => refuse(&api::unknown_path(
                path.strip_prefix(api::PREFIX).unwrap_or(path),
            )),
        }
    }

    fn health(&self) -> Answer {
        let age = self.heartbeat.age();
        if age < STUCK {
            return json(Bytes::from_static(b"{\"status\":\"ok\"}"));
        }
        let text = format!("the node has done nothing for {} s", age.as_secs());
        refuse(
            &Problem::new(ProblemCode::Unreachable, text)
                .remedy("if it stays so, restart the daemon: objects go on"),
        )
    }

    async fn call(&self, path: &'static str, request: hyper::Request<Incoming>) -> Answer {
        let began = clock::now();
        let answer = match self.try_call(path, request.into_body()).await {
            Ok(bytes) => json(bytes),
            Err(problem) => refuse(&problem),
        };
        self.metrics
            .called(path, answer.status().as_u16(), clock::now().since(began));
        answer
    }

    async fn try_call(&self, path: &'static str, body: Incoming) -> Result<Bytes, Problem> {
        let body = read_body(body).await?;
        let request = api::parse(path, &body)?;
        drop(body);
        let deadline = deadline(&request);
        let asking = self.calls.ask(request);
        let mut response = if let Some(deadline) = deadline {
            let late = |_| Problem::new(ProblemCode::TimedOut, "the node did not answer in time");
            timeout(deadline, asking).await.map_err(late)??
        } else {
            asking.await?
        };
        if let Response::Doctor(findings) = &mut response {
            let mut patient = Patient::clone(&self.patient);
            patient.alarms = self.events.alarms();
            let mut mine = findings.clone();
            let examined = tokio::task::spawn_blocking(move || {
                doctor::examine(&patient, &mut mine);
                mine
            });
            if let Ok(examined) = examined.await {
                *findings = examined;
            }
        }
        api::to_json(&response).map(Bytes::from)
    }

    fn upgrade(self, mut request: hyper::Request<Incoming>) -> Answer {
        let wanted = request
            .headers()
            .get(UPGRADE)
            .and_then(|value| value.to_str().ok());
        if !wanted.is_some_and(|wanted| wanted.eq_ignore_ascii_case(api::STREAM_PROTOCOL)) {
            let text = format!(
                "a stream needs the header `Upgrade: {}`",
                api::STREAM_PROTOCOL
            );
            return refuse(&Problem::new(ProblemCode::Invalid, text));
        }
        let upgrading = hyper::upgrade::on(&mut request);
        let (streams, stop) = (self.streams, self.stop);
        self.tasks.spawn(async move {
            match upgrading.await {
                Ok(upgraded) => {
                    let Ok(parts) = upgraded.downcast::<TokioIo<UnixStream>>() else {
                        return tracing::error!("a stream came over something that is no socket");
                    };
                    let (socket, early) = (parts.io.into_inner(), parts.read_buf.to_vec());
                    let reader = FrameReader::with_early(socket, early);
                    let serving = streams.serve(reader, Caller::Local);
                    if stop.run_until_cancelled(serving).await.is_none() {
                        tracing::debug!("a stream was cut: the node stops");
                    }
                }
                Err(error) => tracing::debug!(%error, "a stream was not opened"),
            }
        });
        let mut answer = Answer::new(Full::default());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = answer.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static(api::STREAM_PROTOCOL));
        answer
    }
}

async fn read_body(body: Incoming) -> Result<Bytes, Problem> {
    let is_short = body
        .size_hint()
        .upper()
        .is_some_and(|bytes| bytes <= SHORT_BODY_BYTES);
    let _place = match LONG_BODIES.try_acquire() {
        _ if is_short => None,
        Ok(place) => Some(place),
        Err(_full) => {
            let text = format!("the node is reading {LONG_BODIES_MAX} long calls already");
            return Err(busy(text));
        }
    };
    let limited = Limited::new(body, CALL_BYTES_MAX);
    match timeout(BODY, limited.collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => {
            let text = format!("the body cannot be read ({error}); at most {CALL_BYTES_MAX} bytes");
            Err(Problem::new(ProblemCode::Invalid, text))
        }
        Err(_elapsed) => Err(Problem::new(
            ProblemCode::TimedOut,
            "the body did not arrive",
        )),
    }
}

fn document() -> Bytes {
    static DOCUMENT: OnceLock<Bytes> = OnceLock::new();
    DOCUMENT
        .get_or_init(|| api::document().to_string().into())
        .clone()
}

fn with_type(status: StatusCode, content_type: &'static str, body: Bytes) -> Answer {
    let mut answer = Answer::new(Full::new(body));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

fn json(body: Bytes) -> Answer {
    with_type(StatusCode::OK, "application/json", body)
}

fn refuse(problem: &Problem) -> Answer {
    let body = serde_json::to_vec(problem).unwrap_or_default();
    with_type(
        api::status(problem),
        "application/problem+json",
        body.into(),
    )
}

fn wrong_method(method: &'static str) -> Answer {
    let text = format!("this path is for {method} only");
    let mut answer = refuse(&Problem::new(ProblemCode::Invalid, text));
    *answer.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(method));
    answer
}

const _: () = assert!(PULSE.as_millis() * 2 < STUCK.as_millis());
const _: () = assert!(kernel::limits::CALL_DEADLINE.as_millis() < CALL.as_millis());

#[cfg(test)]
mod tests;

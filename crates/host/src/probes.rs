//! One probe of an object's health, when the kernel asks for one.
//!
//! What it is not: it decides neither when to probe nor what a failure means. It keeps a probe within
//! its time and its bytes, and tells the kernel once how it went; see `docs/protocols/health.md`.

use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kernel::world::Input;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use wire::call::Problem;
use wire::fact::ExitReason;
use wire::health::{Check, WHY_BYTES_MAX};
use wire::id::{NodeId, ObjectId};
use wire::spec::Program;
use wire::stream::{Frame, Kind, Open, What};

use crate::frames::{FrameReader, write_frame};
use crate::shims::{self, Shims};

/// Probes of this node that go on at the same time: each command is a process or two.
const PROBES_MAX: usize = 64;
/// Bytes that are read of an answer to find its status line.
const ANSWER_BYTES_MAX: u64 = 4096;

/// Carries out probes. Those that wait for others are no more than there are objects.
#[derive(Debug)]
pub(crate) struct Probes {
    shims: Shims,
    node: NodeId,
    permits: Arc<Semaphore>,
    inputs: mpsc::Sender<Input>,
    tasks: TaskTracker,
}

impl Probes {
    pub(crate) fn new(shims: Shims, node: NodeId, inputs: mpsc::Sender<Input>) -> Self {
        Self {
            shims,
            node,
            permits: Arc::new(Semaphore::new(PROBES_MAX)),
            inputs,
            tasks: TaskTracker::new(),
        }
    }

    /// Probes an object once and tells the kernel how it went.
    pub(crate) fn probe(&self, object: ObjectId, probe: u64, check: Check, timeout_ms: u32) {
        let (permits, inputs) = (self.permits.clone(), self.inputs.clone());
        let (node, directory) = (self.node, self.shims.directory(object));
        self.tasks.spawn(async move {
            // Never closed.
            let _permit = permits.acquire().await;
            let limit = Duration::from_millis(timeout_ms.into());
            let tried = async {
                match check {
                    Check::Command(command) => run(node, object, &directory, command).await,
                    Check::Http { port, path } => request(port, &path).await,
                    Check::Tcp { port } => reach(port).await.map(drop),
                }
            };
            // What is dropped closes its connection: a shim kills the command then.
            let outcome = timeout(limit, tried).await.unwrap_or_else(|_elapsed| {
                let seconds = limit.as_secs_f32();
                Err(format!("no answer within {seconds} s"))
            });
            let probed = Input::Probed {
                object,
                probe,
                outcome,
            };
            if inputs.send(probed).await.is_err() {
                tracing::debug!(%object, "a probe came after the end of the kernel");
            }
        });
    }
}

async fn reach(port: u16) -> Result<TcpStream, String> {
    let connected = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await;
    connected.map_err(|error| format!("port {port} cannot be reached: {error}"))
}

/// Asks at a port of this machine and looks at the status.
async fn request(port: u16, path: &str) -> Result<(), String> {
    let broken = |error: io::Error| format!("port {port} gives no answer: {error}");
    let mut stream = reach(port).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: welkin\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(broken)?;
    let mut answer = Vec::new();
    let mut limited = stream.take(ANSWER_BYTES_MAX);
    while !answer.contains(&b'\n') {
        if limited.read_buf(&mut answer).await.map_err(broken)? == 0 {
            break;
        }
    }
    judge(&answer, port)
}

/// What the beginning of an answer says (RFC 9112 section 4).
fn judge(answer: &[u8], port: u16) -> Result<(), String> {
    let line = answer.split(|byte| *byte == b'\n').next();
    let line = String::from_utf8_lossy(line.unwrap_or_default());
    let line = line.trim_end();
    let status = line
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1))
        .and_then(|digits| digits.parse::<u16>().ok());
    match status {
        Some(200..=399) => Ok(()),
        Some(_) => Err(line.to_owned()),
        None => Err(format!("what answers at port {port} speaks no HTTP")),
    }
}

/// Runs a command inside the object.
async fn run(
    node: NodeId,
    object: ObjectId,
    directory: &Path,
    command: String,
) -> Result<(), String> {
    let broken = |error: io::Error| format!("its shim takes no command: {error}");
    let program = Program {
        arguments: ["/bin/sh", "-c", &command].map(str::to_owned).into(),
        ..Program::default()
    };
    let what = What::Probe { program };
    let open = Open { node, object, what };
    let json = serde_json::to_vec(&open).map_err(|error| error.to_string())?;
    let stream = shims::connect(directory).map_err(broken)?;
    let (reader, mut sender) = stream.into_split();
    let open = Frame::new(Kind::Open, &json);
    write_frame(&mut sender, &open).await.map_err(broken)?;
    let mut frames = FrameReader::new(reader);
    let mut said = Vec::new();
    loop {
        let frame = frames.next().await.map_err(|error| error.to_string())?;
        let Some(Frame { kind, payload }) = frame else {
            return Err("its shim ended".to_owned());
        };
        if matches!(kind, Kind::Stdout | Kind::Stderr) {
            keep_end(&mut said, &payload);
        } else if kind == Kind::Failure {
            let problem = serde_json::from_slice::<Problem>(&payload);
            return Err(problem.map_or_else(|error| error.to_string(), |it| it.detail));
        } else if kind == Kind::Exit {
            let reason = serde_json::from_slice::<ExitReason>(&payload);
            let reason = reason.map_err(|error| error.to_string())?;
            return if reason.is_success() {
                Ok(())
            } else {
                Err(complaint(&reason, &said))
            };
        }
    }
}

/// Adds to the last [`WHY_BYTES_MAX`] bytes of what was said.
fn keep_end(said: &mut Vec<u8>, more: &[u8]) {
    said.extend_from_slice(more);
    let surplus = said.len().saturating_sub(WHY_BYTES_MAX);
    said.drain(..surplus);
}

/// The last line that was said, and how the command ended.
fn complaint(reason: &ExitReason, said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    let last = said.lines().rev().find(|line| !line.trim().is_empty());
    match last {
        Some(line) => format!("the command {reason}: {}", line.trim()),
        None => format!("the command {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[test]
    fn a_status_tells_whether_it_works() {
        assert_eq!(judge(b"HTTP/1.1 200 OK\r\nA: b\r\n", 80), Ok(()));
        assert_eq!(judge(b"HTTP/1.0 302 Found", 80), Ok(()));
        let refused = judge(b"HTTP/1.1 503 Service Unavailable\r\n", 80);
        assert_eq!(refused, Err("HTTP/1.1 503 Service Unavailable".to_owned()));
        for other in [
            &b"SSH-2.0-OpenSSH\r\n"[..],
            b"",
            b"HTTP/1.1",
            b"HTTP/1.1 x",
            b"\xff\n",
        ] {
            assert!(judge(other, 22).is_err(), "{other:?}");
        }
    }

    #[test]
    fn the_reason_is_the_last_line_of_a_bounded_end() {
        let mut said = Vec::new();
        keep_end(&mut said, &vec![b'x'; 100_000]);
        keep_end(&mut said, b"\nnot ready\n\n");
        assert_eq!(said.len(), WHY_BYTES_MAX);
        let why = complaint(&ExitReason::Code(1), &said);
        assert_eq!(why, "the command ended with code 1: not ready");
    }

    #[tokio::test]
    async fn no_more_of_an_answer_is_read_than_it_takes() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let endless = async move {
            let (mut caller, _) = listener.accept().await.unwrap();
            while caller.write_all(&[b'x'; 1000]).await.is_ok() {}
        };
        let (answer, ()) = tokio::join!(request(port, "/"), endless);
        assert!(answer.is_err());
        assert!(reach(port).await.is_err(), "nobody listens any more");
    }
}

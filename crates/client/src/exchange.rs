//! One HTTP exchange over the Unix socket: a connection, a request, an answer.

use std::future::{Future, poll_fn};
use std::path::Path;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::timeout;
use wire::call::{Problem, ProblemCode};

use crate::CallError;
use crate::connect::connect;

/// Longest answer that is read: a list of some hundred thousand objects.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;

/// The name of the protocol of [`wire::stream`] in the `Upgrade` header.
const STREAM_PROTOCOL: &str = "welkin-stream/1";

type Requests = http1::SendRequest<Full<Bytes>>;

/// Posts a call; the body of its successful answer. Without a patience it is waited for without end.
pub(crate) async fn post(
    socket: &Path,
    path: &str,
    body: Vec<u8>,
    patience: Option<Duration>,
) -> Result<Bytes, CallError> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("/v1/{path}"))
        .header(HOST, "welkin")
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)));
    let (status, answer) = ask(socket, request, patience).await?;
    if status.is_success() {
        Ok(answer)
    } else {
        Err(refusal(status, &answer))
    }
}

/// Asks `GET /v1/health`.
pub(crate) async fn health(socket: &Path, patience: Duration) -> Result<(), CallError> {
    let request = Request::builder()
        .method(Method::GET)
        .uri("/v1/health")
        .header(HOST, "welkin")
        .body(Full::default());
    let (status, answer) = ask(socket, request, Some(patience)).await?;
    if status.is_success() {
        Ok(())
    } else {
        Err(refusal(status, &answer))
    }
}

/// Asks for a stream; the connection once it carries frames.
pub(crate) async fn upgrade(
    socket: &Path,
    patience: Duration,
) -> Result<(UnixStream, Vec<u8>), CallError> {
    let request: Request<Full<Bytes>> = Request::builder()
        .method(Method::POST)
        .uri("/v1/stream")
        .header(HOST, "welkin")
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, STREAM_PROTOCOL)
        .body(Full::default())
        .map_err(broken)?;
    let connected = connect(socket).await?;
    let silent = silent(socket, &connected, patience);
    let io = TokioIo::new(connected);
    let (mut requests, connection) = http1::handshake(io).await.map_err(broken)?;
    let exchange = async {
        let response = requests.send_request(request).await.map_err(broken)?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let (status, answer) = whole(response).await?;
            return Err(refusal(status, &answer));
        }
        hyper::upgrade::on(response).await.map_err(broken)
    };
    let upgraded = timeout(patience, driven(connection.with_upgrades(), exchange))
        .await
        .unwrap_or(Err(silent))?;
    let parts = upgraded
        .downcast::<TokioIo<UnixStream>>()
        .map_err(|_other| CallError::Protocol("the stream is not the socket".to_owned()))?;
    Ok((parts.io.into_inner(), parts.read_buf.to_vec()))
}

async fn ask(
    socket: &Path,
    request: hyper::http::Result<Request<Full<Bytes>>>,
    patience: Option<Duration>,
) -> Result<(StatusCode, Bytes), CallError> {
    let request = request.map_err(broken)?;
    let connected = connect(socket).await?;
    let late = patience.map(|it| (it, silent(socket, &connected, it)));
    let io = TokioIo::new(connected);
    let (mut requests, connection): (Requests, _) = http1::handshake(io).await.map_err(broken)?;
    let exchange = async {
        let response = requests.send_request(request).await.map_err(broken)?;
        whole(response).await
    };
    let driven = driven(connection, exchange);
    match late {
        Some((patience, silent)) => timeout(patience, driven).await.unwrap_or(Err(silent)),
        None => driven.await,
    }
}

/// That the process at the other end took the call and did not answer in time.
fn silent(socket: &Path, connected: &UnixStream, waited: Duration) -> CallError {
    let peer = connected.peer_cred().ok();
    CallError::Silent {
        path: socket.to_path_buf(),
        pid: peer.and_then(|it| u32::try_from(it.pid()?).ok()),
        waited,
    }
}

async fn whole(response: Response<Incoming>) -> Result<(StatusCode, Bytes), CallError> {
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
    let collected = body.collect().await.map_err(broken)?;
    Ok((status, collected.to_bytes()))
}

/// Runs the exchange together with the connection that carries it, without a task of its own.
async fn driven<T>(connection: impl Future, exchange: impl Future<Output = T>) -> T {
    let (mut connection, mut exchange) = (pin!(connection), pin!(exchange));
    let mut connected = true;
    poll_fn(|context| {
        if connected && connection.as_mut().poll(context).is_ready() {
            connected = false;
        }
        match exchange.as_mut().poll(context) {
            Poll::Ready(answer) => Poll::Ready(answer),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// What an answer that is not a success means.
fn refusal(status: StatusCode, answer: &[u8]) -> CallError {
    if let Ok(problem) = serde_json::from_slice::<Problem>(answer) {
        return CallError::Problem(problem);
    }
    // A newer node may have kinds of problems that this program does not know: keep its words.
    let loose: Option<serde_json::Value> = serde_json::from_slice(answer).ok();
    let text = |field: &str| Some(loose.as_ref()?.get(field)?.as_str()?.to_owned());
    match text("detail") {
        Some(detail) => CallError::Problem(
            Problem::new(ProblemCode::Internal, detail).remedy(text("remedy").unwrap_or_default()),
        ),
        None => CallError::Protocol(format!(
            "the node answered {status}: {}",
            String::from_utf8_lossy(answer).trim()
        )),
    }
}

fn broken(error: impl std::fmt::Display) -> CallError {
    CallError::Protocol(format!("the node broke off the call: {error}"))
}

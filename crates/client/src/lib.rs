//! System calls of Welkin for Rust programs.
//!
//! A [`Client`] asks one node, over its Unix socket; any node answers any call. A call is a value
//! of [`wire::call`] and the answer has the type that the call names. Where bytes flow (terminals,
//! logs, files) a [`Stream`] of frames is opened instead.
//!
//! ```no_run
//! # async fn example() -> Result<(), client::CallError> {
//! let client = client::Client::at("/run/welkin/welkin.sock");
//! let nodes = client.call(wire::call::NodeList {}).await?.nodes;
//! # drop(nodes); Ok(()) }
//! ```
//!
//! What this crate is not: it decides nothing, keeps no state between calls and starts no tasks.
//! Dropping the future of a call drops its connection, and the node then abandons the call. A node
//! that takes calls and says nothing is given up on: see [`CallError::Silent`].

mod connect;
mod error;
mod exchange;
mod stream;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::timeout;

use wire::call::{Call, Request};
use wire::stream::Open;

pub use error::CallError;
pub use stream::{Reader, Stream, Writer};

/// How long a node may take to answer: longer than any deadline that it keeps itself, so that its
/// own words about what is late win.
const PATIENCE: Duration = Duration::from_secs(65);
/// How long it may take to say that it is well, which needs nobody else.
const HEALTH_PATIENCE: Duration = Duration::from_secs(2);
/// How often it is asked whether it is well while a call waits that may take any time.
const PULSE: Duration = Duration::from_secs(30);
/// How long it may take to say so then, when nobody is in a hurry.
const PULSE_PATIENCE: Duration = Duration::from_secs(15);

/// Whoever asks one node. Cheap to make and to clone: it holds no connection.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the node that listens on this Unix socket. Nothing is connected yet.
    #[must_use]
    pub fn at(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// Where the node listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Whether a node answers at all.
    pub async fn is_up(&self) -> bool {
        self.health().await.is_ok()
    }

    /// Whether a node answers at all, and if not, why.
    ///
    /// # Errors
    /// As [`Client::call`], but a node that says nothing is given up on after two seconds.
    pub async fn health(&self) -> Result<(), CallError> {
        exchange::health(&self.socket, HEALTH_PATIENCE).await
    }

    /// Makes a system call and waits for its answer.
    ///
    /// # Errors
    /// [`CallError::NotUp`] when nothing was asked because nobody listens;
    /// [`CallError::Problem`] when the node refused; [`CallError::Protocol`] when the connection
    /// broke or the answer makes no sense, and [`CallError::Silent`] when none came in time; in
    /// both cases the call may have had its effect.
    pub async fn call<C: Call>(&self, request: C) -> Result<C::Response, CallError> {
        let body = serde_json::to_vec(&request).map_err(|e| CallError::Protocol(e.to_string()))?;
        let patience = patience(&request.into());
        let mut post = Box::pin(exchange::post(&self.socket, C::PATH, body, patience));
        let answer = loop {
            match timeout(PULSE, &mut post).await {
                Ok(answer) => break answer?,
                Err(_elapsed) if patience.is_some() => {}
                Err(_elapsed) => {
                    let health = exchange::health(&self.socket, PULSE_PATIENCE).await;
                    if let Err(silent @ CallError::Silent { .. }) = health {
                        return Err(silent);
                    }
                }
            }
        };
        serde_json::from_slice(&answer).map_err(|error| {
            CallError::Protocol(format!("the answer to {} makes no sense: {error}", C::PATH))
        })
    }

    /// Opens a stream to an object.
    ///
    /// # Errors
    /// As [`Client::call`]. What the object's side finds wrong comes later, as a
    /// [`wire::stream::Kind::Failure`] frame.
    pub async fn open(&self, open: Open) -> Result<Stream, CallError> {
        let socket = exchange::upgrade(&self.socket, PATIENCE).await?;
        Stream::begin(socket, &open).await
    }
}

/// How long the answer to a call may take; `None` where only the node knows: how long objects may
/// take to end is in the specification of their app.
fn patience(request: &Request) -> Option<Duration> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "all others have the usual deadline"
    )]
    match request {
        Request::Wait(_) | Request::Remove(_) => None,
        Request::StopApp(stop) => stop
            .grace_ms
            .map(|grace_ms| PATIENCE + Duration::from_millis(grace_ms.into())),
        _ => Some(PATIENCE),
    }
}

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
//! Dropping the future of a call drops its connection, and the node then abandons the call.

mod connect;
mod error;
mod exchange;
mod stream;

use std::path::{Path, PathBuf};

use wire::call::Call;
use wire::stream::Open;

pub use error::CallError;
pub use stream::{Reader, Stream, Writer};

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
        exchange::health(&self.socket).await
    }

    /// Makes a system call and waits for its answer.
    ///
    /// # Errors
    /// [`CallError::NotUp`] when nothing was asked because nobody listens;
    /// [`CallError::Problem`] when the node refused; [`CallError::Protocol`] when the connection
    /// broke or the answer makes no sense, in which case the call may have had its effect.
    pub async fn call<C: Call>(&self, request: C) -> Result<C::Response, CallError> {
        let body = serde_json::to_vec(&request).map_err(|e| CallError::Protocol(e.to_string()))?;
        let answer = exchange::post(&self.socket, C::PATH, body).await?;
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
        let socket = exchange::upgrade(&self.socket).await?;
        Stream::begin(socket, &open).await
    }
}

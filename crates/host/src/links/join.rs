//! The stream of a join, from the side of the machine that asks.
//!
//! ```text
//! joiner                                    door
//!   bi stream: length, JoinRequest     ─►   the kernel checks the ticket
//!   length, JoinAnswer                 ◄─
//!   closes                             ─►
//! ```
//!
//! What it is not: it does not judge the answer; the kernel checks every statement in it.

use std::net::SocketAddr;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use iroh::Endpoint;
use iroh::endpoint::{Connection, SendStream, VarInt};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use wire::JOIN_ALPN;
use wire::peer::{Door, JOIN_BYTES_MAX, JoinAnswer, JoinRequest};

use super::accept::read_block;
use super::{BindError, bind, connect, direct};

/// How long a door may take to answer once it was reached.
const ANSWER: Duration = Duration::from_secs(20);

/// Asks doors for admission.
#[derive(Debug)]
pub(crate) struct Asker(Endpoint);

impl Asker {
    pub(crate) async fn bind(key: &SigningKey, listen: &[SocketAddr]) -> Result<Self, BindError> {
        bind(key, listen, None).await.map(Self)
    }

    /// Asks one door.
    ///
    /// # Errors
    /// A sentence: it cannot be reached, or did not keep the protocol.
    pub(crate) async fn ask(
        &self,
        door: &Door,
        request: &JoinRequest,
    ) -> Result<JoinAnswer, String> {
        let addresses = door
            .addresses
            .iter()
            .filter_map(|address| address.parse().ok())
            .collect();
        let connection = connect(&self.0, direct(door.node, addresses)?, JOIN_ALPN).await?;
        let answer = timeout(ANSWER, converse(&connection, request)).await;
        connection.close(VarInt::from_u32(0), b"thank you");
        answer.unwrap_or_else(|_| Err(format!("it did not answer within {} s", ANSWER.as_secs())))
    }

    pub(crate) async fn close(self) {
        if timeout(Duration::from_millis(500), self.0.close())
            .await
            .is_err()
        {
            tracing::debug!("the door did not acknowledge the end of the link");
        }
    }
}

async fn converse(connection: &Connection, request: &JoinRequest) -> Result<JoinAnswer, String> {
    let (mut send, mut receive) = connection
        .open_bi()
        .await
        .map_err(|error| error.to_string())?;
    let bytes = wire::encode(request).map_err(|error| error.to_string())?;
    write_block(&mut send, &bytes).await?;
    send.finish().map_err(|error| error.to_string())?;
    let bytes = read_block(&mut receive, JOIN_BYTES_MAX).await?;
    wire::decode(&bytes, JOIN_BYTES_MAX).map_err(|error| format!("its answer {error}"))
}

pub(super) async fn write_block(stream: &mut SendStream, bytes: &[u8]) -> Result<(), String> {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    stream
        .write_u32(length)
        .await
        .map_err(|error| error.to_string())?;
    stream
        .write_all(bytes)
        .await
        .map_err(|error| error.to_string())
}

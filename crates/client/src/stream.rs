//! A stream of frames to and from an object.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use wire::call::{Problem, ProblemCode};
use wire::stream::{Frame, HEADER_BYTES, Kind, Open, PAYLOAD_BYTES_MAX};

use crate::CallError;

/// Room for a whole frame.
const FRAME_BYTES_MAX: usize = HEADER_BYTES + PAYLOAD_BYTES_MAX;

/// An open stream. Dropping it closes it.
#[derive(Debug)]
pub struct Stream {
    reader: Reader,
    writer: Writer,
}

/// The half of a stream that frames come from.
#[derive(Debug)]
pub struct Reader {
    half: OwnedReadHalf,
    bytes: Vec<u8>,
    /// How much of `bytes` was given out.
    taken: usize,
}

/// The half of a stream that frames go to. Dropping it ends this direction only.
#[derive(Debug)]
pub struct Writer {
    half: OwnedWriteHalf,
    bytes: Vec<u8>,
}

impl Stream {
    /// Says on a fresh connection what is opened.
    pub(crate) async fn begin(
        (socket, early): (UnixStream, Vec<u8>),
        open: &Open,
    ) -> Result<Self, CallError> {
        let (read, write) = socket.into_split();
        let mut stream = Self {
            reader: Reader {
                half: read,
                bytes: early,
                taken: 0,
            },
            writer: Writer {
                half: write,
                bytes: Vec::new(),
            },
        };
        let payload = serde_json::to_vec(open).map_err(|e| CallError::Protocol(e.to_string()))?;
        if payload.len() > PAYLOAD_BYTES_MAX {
            let text = format!(
                "what is asked for has {} bytes where {PAYLOAD_BYTES_MAX} are allowed",
                payload.len()
            );
            let remedy = "pass long arguments and environments in a file";
            return Err(Problem::new(ProblemCode::Invalid, text)
                .remedy(remedy)
                .into());
        }
        let sent = stream.send(Frame::new(Kind::Open, &payload)).await;
        sent.map_err(|error| CallError::Protocol(format!("the node closed the stream: {error}")))?;
        Ok(stream)
    }

    /// Sends a frame. Not cancel safe: a dropped send may leave half a frame behind.
    ///
    /// # Errors
    /// When the other side has closed; the stream is over.
    pub async fn send(&mut self, frame: Frame) -> io::Result<()> {
        self.writer.send(frame).await
    }

    /// The next frame; `None` once the other side has closed. Cancel safe.
    ///
    /// # Errors
    /// When the connection broke, or what came is no frame; the stream is over.
    pub async fn next(&mut self) -> io::Result<Option<Frame>> {
        self.reader.next().await
    }

    /// The two halves, to be used at the same time.
    #[must_use]
    pub fn split(self) -> (Reader, Writer) {
        (self.reader, self.writer)
    }
}

impl Reader {
    /// The next frame; `None` once the other side has closed. Cancel safe.
    ///
    /// # Errors
    /// When the connection broke, or what came is no frame; the stream is over.
    pub async fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            let waiting = self.bytes.get(self.taken..).unwrap_or_default();
            match Frame::decode(waiting).map_err(|e| io::Error::other(e.to_string()))? {
                Some((frame, length_bytes)) => {
                    self.taken += length_bytes;
                    return Ok(Some(frame));
                }
                None => self.bytes.drain(..self.taken),
            };
            self.taken = 0;
            self.bytes.reserve(FRAME_BYTES_MAX);
            if self.half.read_buf(&mut self.bytes).await? == 0 {
                return if self.bytes.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }
}

impl Writer {
    /// Sends a frame. Not cancel safe: a dropped send may leave half a frame behind.
    ///
    /// # Errors
    /// When the other side has closed; the stream is over.
    pub async fn send(&mut self, frame: Frame) -> io::Result<()> {
        self.bytes.clear();
        frame.encode(&mut self.bytes);
        self.half.write_all(&self.bytes).await
    }
}

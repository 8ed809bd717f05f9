//! Frames of [`wire::stream`] on an asynchronous connection.
//!
//! What it is not: it gives frames no meaning.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use wire::call::Problem;
use wire::stream::{Frame, HEADER_BYTES, Kind, PAYLOAD_BYTES_MAX};

/// What is read at a time.
const CHUNK_BYTES: usize = 8 * 1024;

/// Why there is no next frame.
#[derive(Debug)]
pub(crate) enum FrameError {
    /// The connection broke, or ended inside a frame.
    Io(std::io::Error),
    /// What came is no frame.
    Malformed(wire::DecodeError),
}

impl std::fmt::Display for FrameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => write!(f, "the connection broke: {error}"),
            Self::Malformed(error) => write!(f, "a frame {error}"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Reads frames; keeps what belongs to the next one.
#[derive(Debug)]
pub(crate) struct FrameReader<R> {
    source: R,
    bytes: Vec<u8>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(source: R) -> Self {
        Self::with_early(source, Vec::new())
    }

    /// Of a source of which some bytes were read already.
    pub(crate) fn with_early(source: R, bytes: Vec<u8>) -> Self {
        Self { source, bytes }
    }

    /// The next frame; `None` at the end. May be dropped while it waits without losing anything.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            if let Some((frame, taken)) =
                Frame::decode(&self.bytes).map_err(FrameError::Malformed)?
            {
                self.bytes.drain(..taken);
                return Ok(Some(frame));
            }
            // A whole frame always fits, so this is bounded.
            debug_assert!(self.bytes.len() < HEADER_BYTES + PAYLOAD_BYTES_MAX);
            self.bytes.reserve(CHUNK_BYTES);
            let read = self
                .source
                .read_buf(&mut self.bytes)
                .await
                .map_err(FrameError::Io)?;
            if read == 0 && self.bytes.is_empty() {
                return Ok(None);
            }
            if read == 0 {
                let early = std::io::ErrorKind::UnexpectedEof.into();
                return Err(FrameError::Io(early));
            }
        }
    }

    /// The source, and what was read from it beyond the last frame.
    pub(crate) fn into_parts(self) -> (R, Vec<u8>) {
        (self.source, self.bytes)
    }
}

/// Writes one frame.
pub(crate) async fn write_frame<W: AsyncWrite + Unpin>(
    sink: &mut W,
    frame: &Frame,
) -> std::io::Result<()> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + frame.payload.len());
    frame.encode(&mut bytes);
    sink.write_all(&bytes).await?;
    sink.flush().await
}

/// The last frame of a stream that did not go well.
pub(crate) fn failure(problem: &Problem) -> Frame {
    let json = serde_json::to_vec(problem).unwrap_or_default();
    Frame::new(Kind::Failure, &json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_arrive_however_they_are_cut() {
        let frames = [
            Frame::new(Kind::Stdout, b"hello"),
            Frame::new(Kind::Stdout, &vec![7; PAYLOAD_BYTES_MAX]),
            Frame::new(Kind::StdinEnd, b""),
        ];
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| frame.encode(&mut bytes));
        let (mut near, far) = tokio::io::duplex(3000);
        let writing = async move { near.write_all(&bytes).await.unwrap() };
        let reading = async move {
            let mut reader = FrameReader::new(far);
            for frame in frames {
                assert_eq!(reader.next().await.unwrap(), Some(frame));
            }
            assert_eq!(reader.next().await.unwrap(), None);
        };
        tokio::join!(writing, reading);
    }

    #[tokio::test]
    async fn an_end_inside_a_frame_is_an_error() {
        let mut reader = FrameReader::new(&[3_u8, 0, 0][..]);
        assert!(matches!(reader.next().await, Err(FrameError::Io(_))));
    }
}

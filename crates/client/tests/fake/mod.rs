//! A node that only pretends: HTTP over a Unix socket, one thread per connection, answers from a
//! closure.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wire::stream::{Frame, HEADER_BYTES, Kind, decode_header};

/// What the pretended node does with a request.
pub(crate) enum Answer {
    /// A status and a JSON body.
    Json(u16, String),
    /// Switch protocols and hand over the frames.
    Stream(Box<dyn FnOnce(&mut Frames) + Send>),
    /// Close without a word.
    Hang,
}

/// Given the path below `/v1/` and the body.
pub(crate) type Script = dyn Fn(&str, &str) -> Answer + Send + Sync;

/// The server's end of a stream.
pub(crate) struct Frames(UnixStream);

impl Frames {
    /// The next frame of the caller, or `None` when it has gone.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        let mut header = [0; HEADER_BYTES];
        self.0.read_exact(&mut header).ok()?;
        let (kind, length) = decode_header(header).unwrap();
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).ok()?;
        Some(Frame { kind, payload })
    }

    /// Sends a frame; nothing happens when the caller has gone.
    pub(crate) fn send(&mut self, kind: Kind, payload: &[u8]) {
        let mut bytes = Vec::new();
        Frame::new(kind, payload).encode(&mut bytes);
        self.send_bytes(&bytes);
    }

    /// Sends bytes that need not be a frame.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        drop(self.0.write_all(bytes));
    }
}

/// Listens in `directory` and answers until the test process ends. The socket's path.
pub(crate) fn serve(
    directory: &Path,
    script: impl Fn(&str, &str) -> Answer + Send + Sync + 'static,
) -> PathBuf {
    let socket = directory.join("welkin.sock");
    // Bind by a short name, as a node must: the directory may be deep.
    let here = std::fs::File::open(directory).unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&here);
    let listener = UnixListener::bind(format!("/proc/self/fd/{fd}/welkin.sock")).unwrap();
    let script: Arc<Script> = Arc::new(script);
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let script = Arc::clone(&script);
            std::thread::spawn(move || drop(converse(connection, &*script)));
        }
    });
    socket
}

fn converse(mut connection: UnixStream, script: &Script) -> std::io::Result<()> {
    let mut reader = BufReader::new(connection.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let path = path.trim_start_matches("/v1/");
    if path == "health" {
        return reply(&mut connection, 200, "{}");
    }
    match script(path, &String::from_utf8_lossy(&body)) {
        Answer::Hang => Ok(()),
        Answer::Json(status, body) => reply(&mut connection, status, &body),
        Answer::Stream(talk) => {
            connection.write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
                  Upgrade: welkin-stream/1\r\n\r\n",
            )?;
            talk(&mut Frames(connection));
            Ok(())
        }
    }
}

fn reply(connection: &mut UnixStream, status: u16, body: &str) -> std::io::Result<()> {
    let length = body.len();
    write!(
        connection,
        "HTTP/1.1 {status} Said\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
}

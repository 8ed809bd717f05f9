//! `welkin cp`: files into and out of objects, as tar archives.
//!
//! What `Read` gives is an archive whose entries begin with the last part of the path that was
//! asked for. Here that first part is replaced by the name that the copy is to have.

mod archive;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use client::Stream;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use wire::call::Locate;
use wire::fact::ObjectFacts;
use wire::stream::{Frame, Kind, Open, PAYLOAD_BYTES_MAX, What};

use crate::context::{Context, object_name};
use crate::failure::{Failure, REMEDY_NOT_FOUND};
use crate::output::human;
use crate::{completion, manual, output, progress, session};

/// Pieces of an archive that wait between the network and the disk.
const PIECES: usize = 16;

/// Copy files into and out of objects
///
/// One of the two names an object and an absolute path in it, as in `web:/path`. The other
/// is a file or directory here, or - for a tar archive on standard input or output. A directory
/// is copied with all that is in it; into a directory that exists, under its own name.
#[derive(Debug, Args)]
#[command(after_help = manual::CP)]
pub(crate) struct Arguments {
    /// What to copy: `TARGET:/PATH`, a path, or -.
    #[arg(value_name = "SOURCE", add = ArgValueCompleter::new(completion::places))]
    source: Place,
    /// Where to: `TARGET:/PATH`, a path, or -.
    #[arg(value_name = "DESTINATION", add = ArgValueCompleter::new(completion::places))]
    destination: Place,
}

/// One end of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Object { target: String, path: String },
    Here(PathBuf),
    Archive,
}

impl std::str::FromStr for Place {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "-" {
            return Ok(Self::Archive);
        }
        match text.split_once(':') {
            // A colon behind a slash of a path here is part of that path: ./a:b, /x/a:b.
            Some((target, _)) if target.starts_with(['.', '/']) => Ok(Self::Here(text.into())),
            Some(("", _)) => Err(format!("`{text}` names no object: write web:/path")),
            Some((_, path)) if !path.starts_with('/') => Err(format!(
                "`{path}` must begin with a slash: the path in an object is absolute"
            )),
            Some((target, path)) => Ok(Self::Object {
                target: target.to_owned(),
                path: path.to_owned(),
            }),
            None => Ok(Self::Here(text.into())),
        }
    }
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    match (&arguments.source, &arguments.destination) {
        (Place::Object { target, path }, Place::Here(to)) => {
            let object = locate(context, target).await?;
            let copying = fetch(context, &object, path, to);
            progress::shown(context.screen, "copying", copying).await
        }
        (Place::Object { target, path }, Place::Archive) => {
            let object = locate(context, target).await?;
            pour(context, &object, path).await
        }
        (Place::Here(from), Place::Object { target, path }) => {
            let object = locate(context, target).await?;
            let copying = store(context, &object, from, path);
            progress::shown(context.screen, "copying", copying).await
        }
        (Place::Archive, Place::Object { target, path }) => {
            let object = locate(context, target).await?;
            swallow(context, &object, path).await
        }
        (Place::Object { .. }, Place::Object { .. }) => {
            Err(Failure::usage("one end of a copy must be here")
                .remedy("welkin cp SOURCE - | welkin cp - DESTINATION"))
        }
        (Place::Here(_) | Place::Archive, Place::Here(_) | Place::Archive) => {
            Err(Failure::usage("neither end names an object").remedy("welkin cp web:/path ."))
        }
    }
}

/// The object that a target means: the living one first, or the only one.
async fn locate(context: &Context, target: &str) -> Result<ObjectFacts, Failure> {
    let target = target.to_owned();
    let located = context.client.call(Locate { target }).await?;
    located.objects.into_iter().next().ok_or_else(|| {
        Failure::new(format!("{} has no objects", located.name))
            .remedy(format!("welkin explain {}", located.name))
    })
}

async fn open(context: &Context, object: &ObjectFacts, what: What) -> Result<Stream, Failure> {
    let open = Open {
        node: object.node,
        object: object.object,
        what,
    };
    Ok(context.client.open(open).await?)
}

/// From an object to a path here.
async fn fetch(
    context: &Context,
    object: &ObjectFacts,
    path: &str,
    to: &Path,
) -> Result<u8, Failure> {
    let what = What::Read {
        path: path.to_owned(),
    };
    let stream = open(context, object, what).await?;
    let (pieces, archive) = channel(PIECES);
    let (asked, to) = (path.to_owned(), to.to_path_buf());
    let unpacking = tokio::task::spawn_blocking(move || archive::unpack(archive, &asked, &to));
    let received = receive(stream, pieces).await;
    let unpacked = unpacking
        .await
        .map_err(|error| Failure::new(error.to_string()))?;
    // What the object said comes first: an archive that was cut off is only what follows from it.
    received.map_err(|failure| look_there(failure, object, path))?;
    unpacked?;
    Ok(0)
}

/// From an object to standard output.
async fn pour(context: &Context, object: &ObjectFacts, path: &str) -> Result<u8, Failure> {
    if context.screen.out_is_terminal {
        return Err(
            Failure::usage("an archive is not for a terminal").remedy("welkin cp … - | tar tv")
        );
    }
    let what = What::Read {
        path: path.to_owned(),
    };
    let mut stream = open(context, object, what).await?;
    let look = |failure| look_there(failure, object, path);
    while let Some(piece) = next_piece(&mut stream).await.map_err(look)? {
        output::write(&piece)?;
    }
    Ok(0)
}

/// A copy from an object that was refused, with how to see what is there.
fn look_there(failure: Failure, object: &ObjectFacts, path: &str) -> Failure {
    if !["", REMEDY_NOT_FOUND].contains(&failure.remedy.as_str()) {
        return failure;
    }
    let parent = Path::new(path).parent().unwrap_or(Path::new("/"));
    let look = ["ls", "-l", &parent.display().to_string()].map(str::to_owned);
    let look = human::command(&look);
    failure.remedy(format!("welkin exec {} -- {look}", object_name(object)))
}

/// From a path here to an object.
async fn store(
    context: &Context,
    object: &ObjectFacts,
    from: &Path,
    path: &str,
) -> Result<u8, Failure> {
    if !from.exists() && !from.is_symlink() {
        let parent = from.parent().filter(|it| !it.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new(".")).display().to_string();
        let look = human::command(&["ls".to_owned(), parent]);
        return Err(Failure::new(format!("there is no {}", from.display())).remedy(look));
    }
    let is_directory = path.ends_with('/') || is_directory(context, object, path).await?;
    let (into, name) = archive::destination(from, path, is_directory)?;
    let stream = open(context, object, What::Write { path: into }).await?;
    let (pieces, archive) = channel(PIECES);
    let from = from.to_path_buf();
    let packing = tokio::task::spawn_blocking(move || archive::pack(&from, &name, pieces));
    let sent = send(stream, archive).await;
    let packed = packing
        .await
        .map_err(|error| Failure::new(error.to_string()))?;
    // An archive that could not be made whole must not look as if it was.
    packed?;
    sent?;
    Ok(0)
}

/// From standard input to an object.
async fn swallow(context: &Context, object: &ObjectFacts, path: &str) -> Result<u8, Failure> {
    if std::io::stdin().is_terminal() {
        return Err(Failure::usage("an archive is expected on standard input")
            .remedy("tar c DIRECTORY | welkin cp - web:/path"));
    }
    let what = What::Write {
        path: path.to_owned(),
    };
    let stream = open(context, object, what).await?;
    let (pieces, archive) = channel(PIECES);
    let reading = async {
        let mut stdin = tokio::io::stdin();
        let mut buffer = vec![0; PAYLOAD_BYTES_MAX];
        loop {
            let read = stdin.read(&mut buffer).await?;
            let piece = buffer.get(..read).unwrap_or_default().to_vec();
            let end = piece.is_empty();
            let sent = pieces
                .send(if end { Piece::End } else { Piece::Data(piece) })
                .await;
            if end || sent.is_err() {
                return Ok::<_, Failure>(());
            }
        }
    };
    let (sent, read) = tokio::join!(send(stream, archive), reading);
    sent.and(read)?;
    Ok(0)
}

/// A part of an archive on its way to an object.
#[derive(Debug)]
enum Piece {
    Data(Vec<u8>),
    /// The archive is whole. Without it, the archive is given up.
    End,
}

/// Sends an archive, and waits until it was unpacked.
async fn send(stream: Stream, mut archive: Receiver<Piece>) -> Result<(), Failure> {
    let (mut reader, mut writer) = stream.split();
    let sending = async {
        while let Some(piece) = archive.recv().await {
            let frame = match &piece {
                Piece::Data(bytes) => Frame::new(Kind::Data, bytes),
                Piece::End => Frame::new(Kind::DataEnd, &[]),
            };
            // Why the object does not take it is what the object says.
            if writer.send(frame).await.is_err() || matches!(piece, Piece::End) {
                return true;
            }
        }
        false
    };
    let answer = async {
        loop {
            match reader.next().await {
                Ok(Some(frame)) if frame.kind == Kind::Failure => {
                    return Err(session::failure(&frame));
                }
                Ok(Some(frame)) if frame.kind == Kind::Exit => return Ok(()),
                Ok(Some(_)) => {}
                Ok(None) => return Err(Failure::new("the object broke the copy off")),
                Err(error) => return Err(Failure::new(format!("the copy broke off: {error}"))),
            }
        }
    };
    tokio::pin!(answer);
    tokio::select! {
        whole = sending => if whole { answer.await } else { Ok(()) },
        answer = &mut answer => answer,
    }
}

async fn receive(mut stream: Stream, pieces: Sender<Vec<u8>>) -> Result<(), Failure> {
    while let Some(piece) = next_piece(&mut stream).await? {
        if pieces.send(piece).await.is_err() {
            // Whoever unpacks has given up, and says why.
            return Ok(());
        }
    }
    Ok(())
}

/// The next piece of an archive; `None` when it is whole.
async fn next_piece(stream: &mut Stream) -> Result<Option<Vec<u8>>, Failure> {
    loop {
        let frame = stream.next().await;
        let frame = frame.map_err(|error| Failure::new(format!("the copy broke off: {error}")))?;
        let frame = frame.ok_or_else(|| Failure::new("the object broke the copy off"))?;
        match frame.kind {
            Kind::Data => return Ok(Some(frame.payload)),
            Kind::DataEnd | Kind::Exit => return Ok(None),
            Kind::Failure => return Err(session::failure(&frame)),
            Kind::Open
            | Kind::Stdin
            | Kind::StdinEnd
            | Kind::Stdout
            | Kind::Stderr
            | Kind::Resize
            | Kind::Signal
            | Kind::Log
            | Kind::Event
            | Kind::ShimRequest
            | Kind::ShimReport => {}
        }
    }
}

/// Whether the path in the object is a directory: the beginning of its archive says so.
async fn is_directory(
    context: &Context,
    object: &ObjectFacts,
    path: &str,
) -> Result<bool, Failure> {
    let what = What::Read {
        path: path.to_owned(),
    };
    let mut stream = open(context, object, what).await?;
    // What cannot be read does not exist, or will be refused when it is written.
    Ok(match next_piece(&mut stream).await {
        Ok(Some(piece)) => archive::begins_with_directory(&piece),
        Ok(None) | Err(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_apart() {
        let parse = |text: &str| text.parse::<Place>();
        let object = |target: &str, path: &str| {
            Ok(Place::Object {
                target: target.to_owned(),
                path: path.to_owned(),
            })
        };
        assert_eq!(parse("web:/etc/hosts"), object("web", "/etc/hosts"));
        assert_eq!(parse("web/0:/"), object("web/0", "/"));
        assert_eq!(parse("-"), Ok(Place::Archive));
        assert_eq!(parse("file"), Ok(Place::Here("file".into())));
        assert_eq!(parse("./a:b"), Ok(Place::Here("./a:b".into())));
        assert!(parse("web:etc").unwrap_err().contains("absolute"));
        assert!(parse(":/x").unwrap_err().contains("no object"));
    }
}

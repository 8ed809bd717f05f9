//! A support bundle: what a maintainer needs to see of a node that gives trouble, without secrets.
//!
//! A gzipped tar archive with one directory of its own name:
//!
//! | file | is | made by |
//! | --- | --- | --- |
//! | `README.txt` | what each file is, what is missing and why, what was removed | here |
//! | `versions.json`, `machine.txt` | versions, distribution, control groups, limits, features | [`machine`] |
//! | `doctor.txt`, `doctor.json` | what is wrong, alarms among it, and what to do | [`cloud`] |
//! | `cloud.json`, `nodes.json`, `apps.json`, `stats.json` | the cloud as the node sees it | [`cloud`] |
//! | `nodes/`, `apps/`, `explanations/` | all of each node that answers and of each app | [`cloud`] |
//! | `events.json` | what happened lately, on all nodes | [`cloud`] |
//! | `state-files.txt` | names and sizes in the state directory, never contents | [`machine`] |
//! | `daemon.log`, `daemon.log.old`, `journal.txt` | the end of what the node logged | [`machine`] |
//!
//! # Why nothing secret is in it
//!
//! Keys, the admission, the disk and what programs wrote are never opened; what programs were
//! started with is read only to know what to look for. What is gathered is a [`Part`], and no part
//! reaches the archive as it is: it takes only [`Clean`] bytes, which only [`Redaction`] makes. That
//! replaces the values of environments and arguments wherever they are told, and tickets.
//!
//! What it is not: anonymous. Names of nodes and apps, addresses, labels and paths are in it. So
//! the person who sends it sees first what is in it, and nothing is sent anywhere by Welkin.
//!
//! # Bounds
//!
//! One file has at most [`FILE_BYTES_MAX`], all together [`BUNDLE_BYTES_MAX`] before they are
//! compressed; a log keeps its end, a list its beginning. How many nodes and apps are asked, and
//! for how long, is in [`cloud`].

pub(crate) mod cloud;
pub(crate) mod machine;
pub(crate) mod redaction;

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use serde_json::{Value, json};
use wire::id::UnixMillis;

use crate::failure::Failure;
use crate::output::human;
use redaction::{Clean, Redaction};

/// Most bytes of one file.
const FILE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most bytes of all files together. Compressed, a mail can usually carry that.
const BUNDLE_BYTES_MAX: usize = 48 * 1024 * 1024;
/// Most sentences about what is missing.
const MISSING_MAX: usize = 1000;

/// Something that was gathered, as it was found.
#[derive(Debug)]
struct Part {
    /// Its path in the archive.
    name: String,
    /// What it is, in a few words.
    about: &'static str,
    content: Content,
}

/// What a part holds.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// Lines.
    Text(String),
    /// What a call answered.
    Json(Value),
}

/// What was gathered so far.
#[derive(Debug, Default)]
pub(crate) struct Bundle {
    parts: Vec<Part>,
    /// What does not go in, and tells what must not be in the rest.
    told: Vec<Content>,
    missing: Vec<String>,
}

/// A file of the archive, for whoever wants to know what is in it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct File {
    /// Its path below the directory of the archive.
    pub(crate) name: String,
    /// What it is.
    pub(crate) about: &'static str,
    /// How long it is.
    pub(crate) bytes: usize,
}

/// An archive that can be written.
#[derive(Debug)]
pub(crate) struct Packed {
    /// What is in it.
    pub(crate) files: Vec<File>,
    /// What could not be had, a sentence each.
    pub(crate) missing: Vec<String>,
    archive: Vec<u8>,
}

impl Bundle {
    /// Adds lines.
    pub(crate) fn text(&mut self, name: impl Into<String>, about: &'static str, text: String) {
        self.add(name.into(), about, Content::Text(text));
    }

    /// Adds an answer.
    pub(crate) fn json(
        &mut self,
        name: impl Into<String>,
        about: &'static str,
        answer: &impl Serialize,
    ) {
        match serde_json::to_value(answer) {
            Ok(value) => self.add(name.into(), about, Content::Json(value)),
            Err(error) => self.miss(format!("{}: {error}", name.into())),
        }
    }

    /// Learns what must not be seen from something that does not go in.
    pub(crate) fn learn(&mut self, told: Value) {
        self.told.push(Content::Json(told));
    }

    fn add(&mut self, name: String, about: &'static str, content: Content) {
        self.parts.push(Part {
            name,
            about,
            content,
        });
    }

    /// Notes what could not be had.
    pub(crate) fn miss(&mut self, sentence: String) {
        if self.missing.len() < MISSING_MAX {
            self.missing.push(sentence);
        }
    }

    /// Removes what nobody else may see, and makes an archive with the directory `top`.
    pub(crate) fn pack(mut self, top: &str, at: UnixMillis) -> io::Result<Packed> {
        let gathered = self.parts.iter().map(|part| &part.content);
        let redaction = Redaction::learn(gathered.chain(&self.told));
        let mut files = Vec::new();
        let mut contents = Vec::new();
        let mut left_bytes = BUNDLE_BYTES_MAX;
        for part in &self.parts {
            let bytes_max = FILE_BYTES_MAX.min(left_bytes);
            let (clean, is_whole) = redaction.clean(&part.content, bytes_max);
            if !is_whole {
                let text = format!("{}: it was longer, and was cut", part.name);
                self.missing.push(text);
            }
            left_bytes -= clean.bytes().len();
            files.push(File {
                name: part.name.clone(),
                about: part.about,
                bytes: clean.bytes().len(),
            });
            contents.push(clean);
        }
        let readme = Content::Text(readme(top, at, &files, &self.missing));
        let (readme, _) = redaction.clean(&readme, FILE_BYTES_MAX);
        let first = File {
            name: "README.txt".to_owned(),
            about: "what each file is",
            bytes: readme.bytes().len(),
        };
        files.insert(0, first);
        contents.insert(0, readme);
        let archive = archive(top, at, &files, &contents)?;
        Ok(Packed {
            files,
            missing: self.missing,
            archive,
        })
    }
}

impl Packed {
    /// What programs are told of it.
    pub(crate) fn to_json(&self, path: &Path) -> Value {
        let file =
            |file: &File| json!({"name": file.name, "bytes": file.bytes, "about": file.about});
        json!({
            "path": path.display().to_string(),
            "bytes": self.archive.len(),
            "files": self.files.iter().map(file).collect::<Vec<_>>(),
            "missing": self.missing,
        })
    }

    /// How long the archive is.
    pub(crate) fn archive_bytes(&self) -> usize {
        self.archive.len()
    }

    /// Writes it to a new file that only its owner may read; no other is overwritten.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Failure> {
        let cannot = |error: io::Error| {
            let text = format!("cannot write {}: {error}", path.display());
            Failure::new(text).remedy("welkin support-bundle --file FILE, with another name")
        };
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(path).map_err(cannot)?;
        let written = file.write_all(&self.archive).and_then(|()| file.sync_all());
        written.map_err(|error| {
            // Half a bundle is none.
            drop(fs::remove_file(path));
            cannot(error)
        })
    }
}

fn archive(top: &str, at: UnixMillis, files: &[File], contents: &[Clean]) -> io::Result<Vec<u8>> {
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for (file, clean) in files.iter().zip(contents) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(u64::try_from(clean.bytes().len()).unwrap_or(u64::MAX));
        header.set_mode(0o600);
        header.set_mtime(at.0 / 1000);
        let path = format!("{top}/{}", file.name);
        builder.append_data(&mut header, path, clean.bytes())?;
    }
    builder.into_inner()?.finish()
}

fn readme(top: &str, at: UnixMillis, files: &[File], missing: &[String]) -> String {
    let mut text = format!(
        "{top}, made at {} by welkin {}\n\n\
         What is in it:\n",
        human::moment(at),
        env!("CARGO_PKG_VERSION"),
    );
    for file in files {
        text.push_str(&format!("  {:<32} {}\n", file.name, file.about));
    }
    if !missing.is_empty() {
        text.push_str("\nWhat could not be had:\n");
        for sentence in missing {
            text.push_str(&format!("  {}\n", sentence.replace('\n', " ")));
        }
    }
    text.push_str(&format!(
        "\nWhat is not in it, or stands as {}: secret keys, admissions, the node's disk, tickets,\n\
         values of environment variables and arguments of programs, what programs wrote, and files\n\
         of programs. Names of variables and the names of programs are in it.\n\
         \n\
         What is in it and may be nobody else's business: names of nodes and apps, addresses,\n\
         labels, ports, users, paths, and what the node logged. Look through it before you send it.\n",
        redaction::REMOVED
    ));
    text
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    impl Packed {
        /// What a file of the archive holds.
        pub(super) fn text_of(&self, name: &str) -> String {
            let files = unpack(&self.archive);
            let found = files.into_iter().find(|(path, _)| path.ends_with(name));
            found.map_or_else(String::new, |(_, text)| text)
        }
    }

    fn unpack(archive: &[u8]) -> Vec<(String, String)> {
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(archive));
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            let path = entry.path().unwrap().display().to_string();
            entry.read_to_string(&mut text).unwrap();
            (path, text)
        });
        entries.collect()
    }

    #[test]
    fn all_that_is_packed_went_through_the_redaction() {
        let mut bundle = Bundle::default();
        let spec = json!({"environment": {"PASSWORD": "swordfish"}});
        bundle.json("apps/web.json", "an app", &spec);
        bundle.text("daemon.log", "a log", "said swordfish twice\n".to_owned());
        bundle.miss("nodes/b.json: it says swordfish".to_owned());
        let packed = bundle.pack("top", UnixMillis(0)).unwrap();
        let files = unpack(&packed.archive);
        let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            ["top/README.txt", "top/apps/web.json", "top/daemon.log"]
        );
        for ((name, text), file) in files.iter().zip(&packed.files) {
            assert!(!text.contains("swordfish"), "{name}: {text}");
            assert_eq!(text.len(), file.bytes, "{name}");
        }
        assert!(files[0].1.contains("apps/web.json"), "{}", files[0].1);
        assert!(
            files[0].1.contains("nodes/b.json: it says"),
            "{}",
            files[0].1
        );
        assert!(files[1].1.contains("PASSWORD"), "{}", files[1].1);
    }

    #[test]
    fn nothing_grows_without_bound() {
        let mut bundle = Bundle::default();
        let line = "0123456789abcde\n";
        for number in 0..20 {
            let text = line.repeat(FILE_BYTES_MAX / line.len() + 1);
            bundle.text(format!("{number}"), "too much", text);
        }
        let packed = bundle.pack("top", UnixMillis(0)).unwrap();
        let (readme, files) = packed.files.split_first().unwrap();
        assert!(files.iter().all(|file| file.bytes <= FILE_BYTES_MAX));
        let all: usize = files.iter().map(|file| file.bytes).sum();
        assert!(all <= BUNDLE_BYTES_MAX && all > BUNDLE_BYTES_MAX - FILE_BYTES_MAX);
        assert!(readme.bytes <= FILE_BYTES_MAX);
        assert_eq!(packed.missing.len(), 20, "each says that it was cut");
    }

    #[test]
    fn a_bundle_is_for_its_owner_and_overwrites_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bundle.tar.gz");
        let packed = Bundle::default().pack("top", UnixMillis(0)).unwrap();
        packed.write(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let before = fs::read(&path).unwrap();
        let refused = packed.write(&path).unwrap_err();
        assert!(refused.detail.contains("exists"), "{}", refused.detail);
        assert_eq!(fs::read(&path).unwrap(), before);
    }
}

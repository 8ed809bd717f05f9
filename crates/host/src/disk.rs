//! The node's disk: a map from `(table, key)` to a value that survives power cuts.
//!
//! What it is not: it does not look into values; the kernel sealed them and the kernel checks them.
//!
//! # The conversation
//!
//! ```text
//! loop                                 thread `disk`
//!   persist(batch 7) ─► queue ─►       takes all that wait: 7, 8, 9
//!   persist(batch 8)                   one transaction, one sync
//!   persist(batch 9)            ◄─     Persisted { batch: 9 }      all before it are durable too
//! ```
//!
//! When the transaction fails, each of its batches is reported, and so is each later one until the
//! kernel sends the first failed batch again: nothing becomes durable out of order.
//!
//! After a failure the file is closed. Before it is used again, and at each start, everything in
//! it is written and synced once more, and then verified: see [`write_again`].
//!
//! Damage that the library does not expect makes it panic, which ends the process, at every start
//! anew. So a marker beside the file counts the starts that died while opening it, and a file that
//! was never opened in three of them is set aside too.
//!
//! The transaction is committed in one phase: a commit slot with a checksum and one `fdatasync`;
//! recovery after a crash reads the whole file to verify it. Two phases and quick repair would
//! make recovery instant for a second `fdatasync` per commit; a node's file is a few megabytes and
//! is verified at every start anyway, so that cost buys nothing here (redb `design.md`, "Commit").

use std::collections::VecDeque;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use kernel::alarm::Alarm;
use kernel::world::Input;
use nix::errno::Errno;
use redb::backends::FileBackend;
use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition,
};
use tokio::sync::mpsc;
use wire::disk::{Table, Write};

use crate::clock;
use crate::metrics::Metrics;

/// Batches that may wait for the disk.
const QUEUE_MAX: usize = 1024;
/// Answers that may wait for the loop. It takes them also while it waits for room in the queue, so
/// the two never wait for each other.
pub(crate) const ANSWERS_MAX: usize = 64;
/// Batches in one transaction.
const GROUP_MAX: usize = 256;
/// Pages kept in memory: the kernel holds everything that it needs, the disk is read at birth.
const CACHE_BYTES: usize = 1024 * 1024;
/// What is written again at a time: a page of redb.
const PAGE_BYTES: usize = 4096;
/// Starts that may die while they open the file. One or two can be power cuts.
const DEATHS_MAX: u32 = 3;

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// One row: its table, its key, its value.
pub(crate) type Row = (Table, Vec<u8>, Vec<u8>);

/// Why the disk cannot be used. Nothing on it was changed.
#[derive(Debug)]
pub struct DiskError {
    path: PathBuf,
    reason: String,
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        write!(f, "cannot use the node's disk {path}: {}", self.reason)
    }
}

impl std::error::Error for DiskError {}

/// A file that could not be trusted. It was moved aside, never used.
#[derive(Debug, Clone)]
pub(crate) struct Damage {
    /// Where it is now.
    pub(crate) moved_to: PathBuf,
    /// What was wrong with it.
    pub(crate) reason: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (reason, moved_to) = (&self.reason, self.moved_to.display());
        write!(
            f,
            "the node's disk was damaged ({reason}); it was moved to {moved_to} and "
        )?;
        f.write_str("the node begins anew with what other nodes know")
    }
}

/// An open disk and what was on it.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) store: Store,
    pub(crate) rows: Vec<Row>,
    /// What was in the way, when the disk begins empty because of it.
    pub(crate) damage: Option<Damage>,
    path: PathBuf,
}

impl Opened {
    /// The alarm to raise and its detail, when the node has lost what it had stored. The library
    /// makes a new disk of an empty file and of none: they are told by whether a node `has_run`.
    pub(crate) fn lost(&self, has_run: bool) -> Option<(Alarm, String)> {
        if let Some(damage) = &self.damage {
            return Some((Alarm::DiskSetAside, damage.to_string()));
        }
        let path = self.path.display();
        (has_run && self.rows.is_empty()).then(|| {
            let detail = format!(
                "a node ran here, and its disk {path} is empty or gone; the node begins anew with \
                 what other nodes know"
            );
            (Alarm::DiskLost, detail)
        })
    }
}

/// Opens the disk, or makes an empty one; reads all rows. A file that is damaged is moved aside.
pub(crate) fn open(path: &Path) -> Result<Opened, DiskError> {
    let marker = Marker::of(path);
    let deaths = marker.deaths();
    let opened = if deaths < DEATHS_MAX {
        marker.set(deaths + 1);
        try_open(path)
    } else {
        let reason = format!("{deaths} starts in a row died while they opened it");
        Err(Trouble::Damaged(reason))
    };
    let opened = match opened {
        Ok((store, rows)) => Ok(Opened {
            store,
            rows,
            damage: None,
            path: path.to_path_buf(),
        }),
        Err(Trouble::Damaged(reason)) => set_aside(path, reason),
        Err(Trouble::Refused(reason)) => Err(refusal(path, reason)),
    };
    marker.remove();
    opened
}

fn refusal(path: &Path, reason: String) -> DiskError {
    DiskError {
        path: path.to_path_buf(),
        reason,
    }
}

/// Moves a damaged file away and begins with an empty one.
fn set_aside(path: &Path, reason: String) -> Result<Opened, DiskError> {
    let moved_to = path.with_extension(format!("damaged-{}", clock::wall().0));
    std::fs::rename(path, &moved_to).map_err(|error| {
        let text = format!("it is damaged ({reason}) and cannot be moved: {error}");
        refusal(path, text)
    })?;
    let (store, rows) = try_open(path).map_err(|trouble| refusal(path, trouble.reason()))?;
    let damage = Some(Damage { moved_to, reason });
    Ok(Opened {
        store,
        rows,
        damage,
        path: path.to_path_buf(),
    })
}

/// The files that were set aside in this directory, oldest first.
pub(crate) fn set_aside_in(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let is_damaged = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("disk.damaged-")
    };
    let mut found: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(is_damaged)
        .collect();
    found.sort();
    found
}

/// How many starts died while they opened the disk: a file beside it that each writes before and
/// removes after.
struct Marker(PathBuf);

impl Marker {
    fn of(disk: &Path) -> Self {
        Self(disk.with_extension("opening"))
    }

    fn deaths(&self) -> u32 {
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }

    fn set(&self, deaths: u32) {
        let write = || {
            let mut options = OpenOptions::new();
            let options = options.write(true).create(true).truncate(true).mode(0o600);
            let mut file = options.open(&self.0)?;
            file.write_all(deaths.to_string().as_bytes())
        };
        // A start that goes well needs no marker, and a disk that is full can still be read. It
        // is not synced: it counts deaths of processes, not of machines.
        if let Err(error) = write() {
            tracing::warn!(%error, "that the disk is being opened cannot be written down");
        }
    }

    fn remove(&self) {
        match std::fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "that the disk was opened cannot be written down");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

enum Trouble {
    /// The file is not what was written.
    Damaged(String),
    /// The file may be fine, but cannot be used.
    Refused(String),
}

impl Trouble {
    fn reason(self) -> String {
        match self {
            Self::Damaged(reason) | Self::Refused(reason) => reason,
        }
    }

    fn of(error: &redb::Error) -> Self {
        let text = error.to_string();
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "a foreign enum that may grow"
        )]
        match error {
            redb::Error::Corrupted(_) | redb::Error::RepairAborted => Self::Damaged(text),
            redb::Error::Io(error) => match error.kind() {
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Self::Damaged(text),
                io::ErrorKind::StorageFull => {
                    Self::Refused(format!("{text}; make room and try again"))
                }
                _ if error.raw_os_error() == Some(Errno::EIO as i32) => Self::Refused(format!(
                    "{text}; the device fails: look into `dmesg`, and replace it"
                )),
                _ => Self::Refused(text),
            },
            _ => Self::Refused(text),
        }
    }
}

fn try_open(path: &Path) -> Result<(Store, Vec<Row>), Trouble> {
    let attempt = || -> Result<_, redb::Error> {
        close_to_others(path)?;
        let file = path.to_path_buf();
        let mut store = Store::open(move || {
            let file = OpenOptions::new().read(true).write(true).open(&file)?;
            Ok(FileBackend::new(file)?)
        })?;
        store.place = Some(Place::of(path)?);
        // A file whose name is not durable is not durable.
        let directory = path.parent().unwrap_or(Path::new("/"));
        File::open(directory).and_then(|directory| directory.sync_all())?;
        let rows = store.load()?;
        Ok((store, rows))
    };
    attempt().map_err(|error| Trouble::of(&error))
}

/// The environments of apps are in the file: only the node's user may read it, wherever it lies.
fn close_to_others(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false);
    let file = options.mode(0o600).open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}

/// Opens what is durable in there, and nothing else.
fn open_database(backend: impl StorageBackend) -> Result<Database, redb::Error> {
    write_again(&backend)?;
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder.set_check_integrity_on_open(true);
    Ok(builder.create_with_backend(backend)?)
}

/// Writes all that can be read once more, and returns when that is durable.
///
/// After a sync that failed, the system may count pages as written that are not. It still reads
/// them from memory as they should be, so that every check passes; no later sync writes them; and
/// a power cut takes them away, with all that was built on them since. A process that begins does
/// not know whether the one before it has seen such a failure. So nothing that is read counts as
/// durable before it was written again: then it has to be written by the next sync, and when that
/// succeeds, what the checks read is what a power cut leaves.
///
/// A power cut on the way does no harm: a page that was durable is replaced by itself, and one
/// that was not belongs to a transaction that nobody was told of. A page of zeros holds nothing
/// and is left out, or the holes of the file would need room that a full disk does not have.
fn write_again(backend: &impl StorageBackend) -> io::Result<()> {
    let mut left = backend.len()?;
    let mut at = 0;
    let mut page = [0; PAGE_BYTES];
    while left > 0 {
        let length = usize::try_from(left).map_or(PAGE_BYTES, |left| left.min(PAGE_BYTES));
        let part = &mut page[..length];
        backend.read(at, part)?;
        if part.iter().any(|byte| *byte != 0) {
            backend.write(at, part)?;
        }
        at += length as u64;
        left -= length as u64;
    }
    backend.sync_data()
}

fn definition(table: Table) -> Definition {
    TableDefinition::new(table.name())
}

/// Opens the file anew.
type Reopen = Box<dyn FnMut() -> Result<Database, redb::Error> + Send>;

/// Where a file is looked for at the next start: what is written elsewhere is as good as lost.
struct Place {
    path: PathBuf,
    /// The device and the number of the file on it.
    identity: (u64, u64),
}

impl Place {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        Ok(Self {
            path: path.to_path_buf(),
            identity: (metadata.dev(), metadata.ino()),
        })
    }

    /// Whether the same file is still there.
    fn check(&self) -> Result<(), String> {
        if Self::of(&self.path).is_ok_and(|now| now.identity == self.identity) {
            return Ok(());
        }
        let path = self.path.display();
        Err(format!(
            "{path} was moved away or deleted; put the state directory back, or stop the node"
        ))
    }
}

/// The file.
pub(crate) struct Store {
    /// Nowhere, when it is made up.
    place: Option<Place>,
    reopen: Reopen,
    /// Closed after a failure: what of it is durable is not known then.
    database: Option<Database>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Store {
    /// Opens what `backend` gives, now and after each failure.
    fn open<B: StorageBackend>(
        mut backend: impl FnMut() -> Result<B, redb::Error> + Send + 'static,
    ) -> Result<Self, redb::Error> {
        let database = open_database(backend()?)?;
        let reopen = move || {
            let backend = backend()?;
            // A new database would be made of nothing, and all that was durable be forgotten.
            if backend.len()? == 0 {
                return Err(redb::Error::Corrupted("it is empty".to_owned()));
            }
            open_database(backend)
        };
        Ok(Self {
            place: None,
            reopen: Box::new(reopen),
            database: Some(database),
        })
    }

    fn database(&mut self) -> Result<&Database, redb::Error> {
        let database = match self.database.take() {
            Some(database) => database,
            None => (self.reopen)()?,
        };
        Ok(self.database.insert(database))
    }

    fn load(&self) -> Result<Vec<Row>, redb::Error> {
        let Some(database) = &self.database else {
            return Ok(Vec::new());
        };
        let transaction = database.begin_read()?;
        let mut rows = Vec::new();
        for table in Table::ALL {
            let open = match transaction.open_table(definition(table)) {
                Err(redb::TableError::TableDoesNotExist(_)) => continue,
                other => other?,
            };
            for entry in open.iter()? {
                let (key, value) = entry?;
                rows.push((table, key.value().to_vec(), value.value().to_vec()));
            }
        }
        Ok(rows)
    }

    /// Makes all these writes durable, or none.
    pub(crate) fn commit<'a>(
        &mut self,
        writes: impl IntoIterator<Item = &'a Write>,
    ) -> Result<(), String> {
        self.place.as_ref().map_or(Ok(()), Place::check)?;
        let done = self.try_commit(writes);
        done.map_err(|error| {
            self.database = None;
            match Trouble::of(&error) {
                Trouble::Damaged(reason) => {
                    format!("{reason}; a start of the node sets the file aside and begins anew")
                }
                Trouble::Refused(reason) => reason,
            }
        })
    }

    fn try_commit<'a>(
        &mut self,
        writes: impl IntoIterator<Item = &'a Write>,
    ) -> Result<(), redb::Error> {
        let mut transaction = self.database()?.begin_write()?;
        transaction
            .set_durability(Durability::Immediate)
            .map_err(|_no_savepoints| redb::Error::Corrupted("a savepoint".to_owned()))?;
        {
            let mut tables = Vec::new();
            for table in Table::ALL {
                tables.push((table, None));
            }
            for write in writes {
                let slot = tables.iter_mut().find(|(table, _)| *table == write.table);
                let Some((table, open)) = slot else { continue };
                if open.is_none() {
                    *open = Some(transaction.open_table(definition(*table))?);
                }
                let Some(open) = open else { continue };
                match &write.value {
                    Some(value) => drop(open.insert(&*write.key, &**value)?),
                    None => drop(open.remove(&*write.key)?),
                }
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

#[derive(Debug)]
struct Batch {
    number: u64,
    writes: Vec<Write>,
}

/// The way to the thread that writes.
#[derive(Debug)]
pub(crate) struct Disk {
    queue: mpsc::Sender<Batch>,
    thread: JoinHandle<()>,
}

impl Disk {
    /// Starts the thread.
    pub(crate) fn start(
        store: Store,
        answers: mpsc::Sender<Input>,
        metrics: Metrics,
    ) -> io::Result<Self> {
        let (queue, batches) = mpsc::channel(QUEUE_MAX);
        let writer = Writer {
            store,
            answers,
            metrics,
            failed: None,
            is_failing: false,
        };
        let thread = std::thread::Builder::new()
            .name("disk".to_owned())
            .spawn(move || writer.run(batches))?;
        Ok(Self { queue, thread })
    }

    /// Queues a batch. While the queue is full it takes the answers of the thread, which may be
    /// waiting for somebody to do that, and puts them into `taken`.
    pub(crate) async fn persist(
        &self,
        number: u64,
        writes: Vec<Write>,
        answers: &mut mpsc::Receiver<Input>,
        taken: &mut VecDeque<Input>,
    ) {
        loop {
            tokio::select! {
                biased;
                place = self.queue.reserve() => {
                    return match place {
                        Ok(place) => place.send(Batch { number, writes }),
                        Err(_ended) => {
                            tracing::error!(number, "the disk thread has ended; the batch is lost");
                        }
                    };
                }
                Some(answer) = answers.recv() => taken.push_back(answer),
            }
        }
    }

    /// Writes what is queued and closes the file. Nobody may be left who takes answers but is not
    /// taking them: the receiver of answers must be closed.
    pub(crate) fn close(self) {
        drop(self.queue);
        if self.thread.join().is_err() {
            tracing::error!("the disk thread panicked");
        }
    }
}

struct Writer {
    store: Store,
    answers: mpsc::Sender<Input>,
    metrics: Metrics,
    /// The first batch that failed and did not come again, and why.
    failed: Option<(u64, String)>,
    /// Said in the log, once until it is over.
    is_failing: bool,
}

impl Writer {
    fn run(mut self, mut batches: mpsc::Receiver<Batch>) {
        while let Some(first) = batches.blocking_recv() {
            let mut group = vec![first];
            while group.len() < GROUP_MAX
                && let Ok(next) = batches.try_recv()
            {
                group.push(next);
            }
            self.write(group);
        }
    }

    fn write(&mut self, mut group: Vec<Batch>) {
        if let Some((first, reason)) = self.failed.take() {
            let again = group.iter().position(|batch| batch.number <= first);
            let rest = group.split_off(again.unwrap_or(group.len()));
            self.fail(&group, &reason);
            group = rest;
            if again.is_none() {
                self.failed = Some((first, reason));
            }
        }
        let Some(last) = group.last().map(|batch| batch.number) else {
            return;
        };
        let began = clock::now();
        match self
            .store
            .commit(group.iter().flat_map(|batch| &batch.writes))
        {
            Ok(()) => {
                if std::mem::take(&mut self.is_failing) {
                    tracing::info!("the disk takes writes again");
                }
                self.metrics.committed(clock::now().since(began));
                self.answer(Input::Persisted { batch: last });
            }
            Err(reason) => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::error!(batch = last, reason, "the disk takes no writes");
                }
                self.fail(&group, &reason);
                self.failed = group.first().map(|batch| (batch.number, reason));
            }
        }
    }

    /// Says of each of these batches that it failed: the kernel tries again when it has heard of all.
    fn fail(&self, group: &[Batch], reason: &str) {
        for batch in group {
            self.answer(Input::PersistFailed {
                batch: batch.number,
                reason: reason.to_owned(),
            });
        }
    }

    fn answer(&self, input: Input) {
        if self.answers.blocking_send(input).is_err() {
            tracing::debug!("the loop has ended before the disk");
        }
    }
}

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

use super::*;

fn write(key: &str, value: Option<&str>) -> Write {
    Write {
        table: Table::Records,
        key: key.as_bytes().to_vec(),
        value: value.map(|value| value.as_bytes().to_vec()),
    }
}

fn keys(rows: &[Row]) -> Vec<String> {
    let text = |row: &Row| String::from_utf8_lossy(&row.1).into_owned();
    rows.iter().map(text).collect()
}

fn next(answers: &mut mpsc::Receiver<Input>) -> Input {
    answers.blocking_recv().unwrap()
}

#[test]
fn batches_survive_the_end_of_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.redb");
    let (answers, mut told) = mpsc::channel(ANSWERS_MAX);
    let disk = Disk::start(open(&path).unwrap().store, answers, Metrics::default()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (told, taken) = (&mut told, &mut VecDeque::new());
        let both = vec![write("a", Some("1")), write("b", Some("2"))];
        disk.persist(1, both, told, taken).await;
        disk.persist(2, vec![write("a", None)], told, taken).await;
    });
    while next(&mut told) != (Input::Persisted { batch: 2 }) {}
    disk.close();
    let opened = open(&path).unwrap();
    assert!(opened.damage.is_none());
    assert_eq!(keys(&opened.rows), ["b"]);
}

/// A panic of the library is the death of a process outside tests.
fn open_after_deaths(path: &Path) -> Opened {
    let mut starts = 0..=DEATHS_MAX;
    let opened = starts.find_map(|_| std::panic::catch_unwind(|| open(path)).ok());
    opened.expect("a start survives").unwrap()
}

/// A file with rows, and where in it there is something.
struct Specimen {
    _directory: tempfile::TempDir,
    path: PathBuf,
    whole: Vec<u8>,
    rows: Vec<Row>,
}

impl Specimen {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.redb");
        let mut store = open(&path).unwrap().store;
        for key in ["a", "b", "c"] {
            let value = "needle".repeat(100);
            store.commit([&write(key, Some(&value))]).unwrap();
        }
        drop(store);
        let rows = open(&path).unwrap().rows;
        let whole = std::fs::read(&path).unwrap();
        Self {
            _directory: directory,
            path,
            whole,
            rows,
        }
    }

    /// Opens the file as it is now: either it was set aside as it was, and the disk begins empty
    /// and works, or it holds what it held. Says which.
    fn is_set_aside(&self, what: &str) -> bool {
        let before = std::fs::metadata(&self.path).unwrap().len();
        let mut opened = open_after_deaths(&self.path);
        let Some(damage) = opened.damage else {
            assert_eq!(opened.rows, self.rows, "{what}");
            return false;
        };
        assert_eq!(opened.rows, [], "{what}");
        let directory = self.path.parent().unwrap();
        assert_eq!(
            set_aside_in(directory),
            [damage.moved_to.as_path()],
            "{what}"
        );
        let length = std::fs::metadata(&damage.moved_to).unwrap().len();
        assert_eq!(length, before, "{what}");
        opened.store.commit([&write("new", Some("1"))]).unwrap();
        drop(opened.store);
        assert_eq!(keys(&open(&self.path).unwrap().rows), ["new"], "{what}");
        std::fs::remove_file(damage.moved_to).unwrap();
        true
    }

    /// Places of each kind: the header and its two commit slots, what is in use of the first
    /// pages, of the middle and of the end, values, and what means nothing.
    fn places(&self) -> Vec<usize> {
        let in_use = |at: &usize| self.whole[*at] != 0;
        let pages = (PAGE_BYTES..self.whole.len()).filter(in_use).step_by(1499);
        let needles = self.whole.windows(6).enumerate();
        let values = needles
            .filter(|(_, six)| six == b"needle")
            .map(|(at, _)| at);
        let header = (0..64).step_by(4).chain((64..320).step_by(24));
        let end = [
            self.whole.len() / 2,
            self.whole.len() - PAGE_BYTES,
            self.whole.len() - 1,
        ];
        header
            .chain(pages)
            .chain(values.step_by(400))
            .chain(end)
            .collect()
    }
}

#[derive(Debug, Clone, Copy)]
enum Harm {
    Flip,
    Zero,
    Truncate,
}

impl Harm {
    fn of(self, whole: &[u8], at: usize) -> Vec<u8> {
        let mut bytes = whole.to_vec();
        match self {
            Self::Flip => bytes[at] ^= 0x10,
            // A sector, as far as there is one.
            Self::Zero => {
                let end = bytes.len().min(at + 512);
                bytes[at..end].fill(0);
            }
            Self::Truncate => bytes.truncate(at),
        }
        bytes
    }
}

/// What lies between pages means nothing and may change; all else is noticed.
#[test]
fn a_file_that_was_changed_anywhere_is_set_aside_or_means_what_it_meant() {
    let specimen = Specimen::new();
    for harm in [Harm::Flip, Harm::Zero, Harm::Truncate] {
        let mut noticed = 0;
        for at in specimen.places() {
            std::fs::write(&specimen.path, harm.of(&specimen.whole, at)).unwrap();
            // The start of an empty file is told apart by what else is in the directory.
            if !(at == 0 && matches!(harm, Harm::Truncate)) {
                noticed += usize::from(specimen.is_set_aside(&format!("{harm:?} at {at}")));
            }
        }
        assert!(noticed > 10, "{harm:?} was noticed {noticed} times");
    }
}

#[test]
fn a_file_that_is_no_disk_is_set_aside() {
    let specimen = Specimen::new();
    let length = specimen.whole.len();
    let next = |byte: &u8| Some(byte.wrapping_mul(157).wrapping_add(89));
    let noise: Vec<u8> = std::iter::successors(Some(7), next).take(length).collect();
    for (what, bytes) in [
        ("zeros", vec![0; length]),
        ("noise", noise),
        ("text", b"Dear machine,\n".to_vec()),
        ("one byte", vec![b'r']),
    ] {
        std::fs::write(&specimen.path, bytes).unwrap();
        assert!(specimen.is_set_aside(what), "{what}");
    }
}

/// Of a group that failed, only the first batch was reported: the kernel waited for a word on the
/// others before it tried again, for ever, however much room there was by then.
#[test]
fn each_batch_of_a_group_that_failed_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.redb");
    let (answers, mut told) = mpsc::channel(ANSWERS_MAX);
    let store = open(&path).unwrap().store;
    std::fs::remove_file(&path).unwrap();
    let mut writer = Writer {
        store: Store {
            database: None,
            ..store
        },
        answers,
        metrics: Metrics::default(),
        failed: None,
        is_failing: false,
    };
    let batch = |number| Batch {
        number,
        writes: vec![write("a", Some("1"))],
    };
    writer.write(vec![batch(7), batch(8), batch(9)]);
    for number in 7..10 {
        let answer = next(&mut told);
        assert!(
            matches!(answer, Input::PersistFailed { batch, .. } if batch == number),
            "{answer:?}"
        );
    }
}

/// The node went on to write into a file that nobody would find again, and promised what was in it.
#[test]
fn nothing_is_durable_in_a_file_that_was_moved_away() {
    let directory = tempfile::tempdir().unwrap();
    let state = |name: &str| directory.path().join(name);
    std::fs::create_dir(state("here")).unwrap();
    let mut store = open(&state("here").join("disk.redb")).unwrap().store;
    store.commit(&[write("a", Some("1"))]).unwrap();
    std::fs::rename(state("here"), state("there")).unwrap();
    for _ in 0..2 {
        let refused = store.commit(&[write("b", Some("2"))]).unwrap_err();
        assert!(refused.contains("moved away or deleted"), "{refused}");
    }
    std::fs::rename(state("there"), state("here")).unwrap();
    store.commit(&[write("c", Some("3"))]).unwrap();
    drop(store);
    let rows = open(&state("here").join("disk.redb")).unwrap().rows;
    let kept: BTreeSet<_> = keys(&rows).into_iter().collect();
    assert!(kept.contains("a") && kept.contains("c"), "{kept:?}");
}

#[test]
fn what_follows_a_failed_batch_waits_until_it_comes_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.redb");
    let (answers, mut told) = mpsc::channel(ANSWERS_MAX);
    let mut writer = Writer {
        store: open(&path).unwrap().store,
        answers,
        metrics: Metrics::default(),
        failed: Some((3, "the disk is full".to_owned())),
        is_failing: true,
    };
    let batch = |number| Batch {
        number,
        writes: vec![write("a", Some("1"))],
    };
    writer.write(vec![batch(4), batch(5)]);
    assert!(matches!(
        next(&mut told),
        Input::PersistFailed { batch: 4, .. }
    ));
    assert!(matches!(
        next(&mut told),
        Input::PersistFailed { batch: 5, .. }
    ));
    writer.write(vec![batch(6), batch(3), batch(4)]);
    assert!(matches!(
        next(&mut told),
        Input::PersistFailed { batch: 6, .. }
    ));
    assert_eq!(next(&mut told), Input::Persisted { batch: 4 });
}

/// Each batch that a full disk refused was an answer. The loop that offered more of them than
/// there was room for answers waited for the thread, and the thread for the loop, for ever.
#[test]
fn a_disk_that_stays_full_stops_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let (answers, mut told) = mpsc::channel(4);
    let path = directory.path().join("disk.redb");
    let store = open(&path).unwrap().store;
    std::fs::remove_file(&path).unwrap();
    let store = Store {
        database: None,
        ..store
    };
    let disk = Disk::start(store, answers, Metrics::default()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let mut taken = VecDeque::new();
    runtime.block_on(async {
        let offering = async {
            for number in 1..10_000 {
                let writes = vec![write("a", Some("1"))];
                disk.persist(number, writes, &mut told, &mut taken).await;
            }
        };
        let offered = tokio::time::timeout(std::time::Duration::from_secs(20), offering);
        offered.await.expect("the loop goes on");
    });
    assert!(taken.len() > 4, "there was not room for all answers");
    told.close();
    disk.close();
}

#[test]
fn nobody_else_can_read_the_file_wherever_it_lies() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.redb");
    let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    drop(open(&path).unwrap());
    assert_eq!(mode(), 0o600);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    drop(open(&path).unwrap());
    assert_eq!(mode(), 0o600);
}

#[test]
fn a_file_that_kills_three_starts_is_set_aside_by_the_fourth() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.redb");
    let mut opened = open(&path).unwrap();
    opened.store.commit([&write("a", Some("1"))]).unwrap();
    drop(opened);
    let marker = Marker::of(&path);
    assert_eq!(marker.deaths(), 0, "a start that went well leaves none");
    // As power cuts do.
    for deaths in 1..DEATHS_MAX {
        marker.set(deaths);
        let opened = open(&path).unwrap();
        assert!(opened.damage.is_none());
        assert_eq!(keys(&opened.rows), ["a"]);
    }
    marker.set(DEATHS_MAX);
    let opened = open(&path).unwrap();
    let text = opened.damage.unwrap().to_string();
    assert!(text.contains("3 starts in a row died"), "{text}");
    assert_eq!((opened.rows, marker.deaths()), (vec![], 0));
}

/// A disk that fails as disks below Linux do: the pages of a failed sync count as written, are read
/// as they should be while there is power, and may never have been written.
#[derive(Debug, Clone, Default)]
struct FaultyDisk(Arc<Mutex<Platter>>);

const ROWS: usize = 300;

#[derive(Debug, Clone, Default)]
struct Platter {
    /// What reads see.
    cache: Vec<u8>,
    /// What a power cut leaves.
    durable: Vec<u8>,
    /// Pages that the next sync writes.
    dirty: BTreeSet<usize>,
    /// Which of the syncs to come fail, the next one at the lowest bit.
    failing: u32,
    loss: Loss,
}

/// Which pages a failed sync has not written.
#[derive(Debug, Clone, Copy, Default)]
enum Loss {
    #[default]
    All,
    /// The commit slots arrive and nothing that they lead to.
    AllButTheHeader,
    TheHeader,
    EverySecond,
}

impl Loss {
    const ALL: [Self; 4] = [
        Self::All,
        Self::AllButTheHeader,
        Self::TheHeader,
        Self::EverySecond,
    ];

    fn takes(self, page: usize) -> bool {
        match self {
            Self::All => true,
            Self::AllButTheHeader => page != 0,
            Self::TheHeader => page == 0,
            Self::EverySecond => page.is_multiple_of(2),
        }
    }
}

impl FaultyDisk {
    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap()
    }

    /// One that holds as many rows as it takes to have pages that a commit does not touch.
    fn with_rows() -> Self {
        let disk = Self::default();
        let row = |number| write(&format!("{number:03}"), Some(&"x".repeat(100)));
        let rows: Vec<_> = (0..ROWS).map(row).collect();
        disk.open().commit(&rows).unwrap();
        disk
    }

    fn open(&self) -> Store {
        let disk = self.clone();
        Store::open(move || Ok(disk.clone())).unwrap()
    }

    fn fail(&self, failing: u32, loss: Loss) {
        let mut platter = self.platter();
        (platter.failing, platter.loss) = (failing, loss);
    }

    /// What somebody finds there after a power cut now, beside the rows that it began with.
    fn found_after_power_cut(&self) -> String {
        let durable = self.platter().durable.clone();
        let cut = Platter {
            cache: durable.clone(),
            durable,
            ..Platter::default()
        };
        let rows = Self(Arc::new(Mutex::new(cut))).open().load().unwrap();
        let (old, new): (Vec<_>, Vec<_>) = keys(&rows).into_iter().partition(|key| key.len() == 3);
        assert_eq!(old.len(), ROWS, "what was there before is lost");
        new.concat()
    }
}

impl StorageBackend for FaultyDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.platter().cache.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        out.copy_from_slice(&self.platter().cache[at..at + out.len()]);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).unwrap();
        let mut platter = self.platter();
        platter.cache.resize(length, 0);
        platter.durable.resize(length, 0);
        platter.dirty.retain(|page| page * PAGE_BYTES < length);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        let mut platter = self.platter();
        platter.cache[at..at + data.len()].copy_from_slice(data);
        let pages = at / PAGE_BYTES..=(at + data.len() - 1) / PAGE_BYTES;
        platter.dirty.extend(pages);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.platter();
        let fails = platter.failing & 1 == 1;
        platter.failing >>= 1;
        let Platter {
            cache,
            durable,
            dirty,
            loss,
            ..
        } = &mut *platter;
        for page in std::mem::take(dirty) {
            if !(fails && loss.takes(page)) {
                let bytes = page * PAGE_BYTES..cache.len().min((page + 1) * PAGE_BYTES);
                durable[bytes.clone()].copy_from_slice(&cache[bytes]);
            }
        }
        if fails {
            return Err(io::Error::from(Errno::EIO));
        }
        Ok(())
    }
}

/// A commit that failed left pages that were read but never written. What was built on them hung
/// in the air, and a power cut took it with everything before it: "All roots are corrupted".
#[test]
fn what_was_reported_as_durable_outlives_syncs_that_fail() {
    for (failing, loss) in (0..32).flat_map(|failing| Loss::ALL.map(|loss| (failing, loss))) {
        let disk = FaultyDisk::with_rows();
        let mut store = disk.open();
        disk.fail(failing, loss);
        for (key, before, after) in [("z", "", "z"), ("/", "z", "/z")] {
            while store.commit([&write(key, Some("1"))]).is_err() {
                let found = disk.found_after_power_cut();
                // What was refused may be there or not.
                assert!(
                    found == before || found == after,
                    "{failing:b}, {loss:?}: {found}"
                );
            }
            let found = disk.found_after_power_cut();
            assert_eq!(found, after, "{failing:b}, {loss:?}");
        }
    }
}

/// A daemon that is restarted because its disk failed finds pages that were never written.
#[test]
fn a_start_does_not_trust_what_a_failed_sync_has_left_in_memory() {
    for (failing, loss) in (0..16).flat_map(|failing| Loss::ALL.map(|loss| (failing, loss))) {
        let disk = FaultyDisk::with_rows();
        let mut store = disk.open();
        disk.fail(failing, loss);
        let is_refused = store.commit([&write("z", Some("1"))]).is_err();
        drop(store);
        disk.fail(0, loss);
        disk.open().commit([&write("/", Some("1"))]).unwrap();
        let found = disk.found_after_power_cut();
        assert!(
            found == "/z" || is_refused && found == "/",
            "{failing:b}, {loss:?}: {found}"
        );
    }
}

#[test]
fn a_disk_that_fails_is_said_to_and_taken_into_use_when_it_works_again() {
    let disk = FaultyDisk::default();
    let (answers, mut told) = mpsc::channel(ANSWERS_MAX);
    let mut writer = Writer {
        store: disk.open(),
        answers,
        metrics: Metrics::default(),
        failed: None,
        is_failing: false,
    };
    let batch = |number| Batch {
        number,
        writes: vec![write("a", Some("1"))],
    };
    disk.fail(0b11, Loss::All);
    for number in [1, 1] {
        writer.write(vec![batch(number)]);
        let Input::PersistFailed { batch: 1, reason } = next(&mut told) else {
            panic!("it is durable on a disk that failed");
        };
        assert!(reason.contains("the device fails"), "{reason}");
    }
    writer.write(vec![batch(1)]);
    assert_eq!(next(&mut told), Input::Persisted { batch: 1 });
}

/// A file that was emptied or deleted below a running node was made anew, and what it had held was
/// forgotten without a word.
#[test]
fn a_file_that_is_gone_after_a_failure_is_not_made_anew() {
    let disk = FaultyDisk::default();
    let mut store = disk.open();
    disk.fail(0b1, Loss::All);
    store.commit([&write("a", Some("1"))]).unwrap_err();
    disk.set_len(0).unwrap();
    let reason = store.commit([&write("a", Some("1"))]).unwrap_err();
    assert!(reason.contains("it is empty"), "{reason}");
    assert!(reason.contains("a start of the node"), "{reason}");
}

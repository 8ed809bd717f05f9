//! The disk of one machine: a map, and the batches that are on their way into it.
//!
//! Batches become durable in order, each whole or not at all. A crash keeps some of those that were
//! on their way, always the first ones, and tells nobody which: a real disk may have written what
//! it has not said yet.

use std::collections::{BTreeMap, VecDeque};

use rand::{Rng, RngExt};
use wire::disk::{Table, Write};

/// Rows of the map: table, key, value.
pub(crate) type Row = (Table, Vec<u8>, Vec<u8>);

/// A disk.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    rows: BTreeMap<(Table, Vec<u8>), Vec<u8>>,
    pending: VecDeque<(u64, Vec<Write>)>,
    /// The last batch of this life that is durable.
    durable: u64,
    /// Takes no writes, as when it is full.
    pub(crate) refuses: bool,
}

impl Disk {
    /// A batch is on its way.
    pub(crate) fn persist(&mut self, batch: u64, writes: Vec<Write>) {
        self.pending.push_back((batch, writes));
    }

    /// The time of the first batch on its way has come: its number, and whether it is durable now.
    pub(crate) fn settle(&mut self) -> Option<(u64, bool)> {
        let (batch, writes) = self.pending.pop_front()?;
        let in_order = batch <= self.durable + 1;
        if self.refuses || !in_order {
            return Some((batch, false));
        }
        self.apply(batch, writes);
        Some((batch, true))
    }

    fn apply(&mut self, batch: u64, writes: Vec<Write>) {
        self.durable = self.durable.max(batch);
        for write in writes {
            let key = (write.table, write.key);
            match write.value {
                Some(value) => self.rows.insert(key, value),
                None => self.rows.remove(&key),
            };
        }
    }

    /// The power went, or the daemon was killed.
    pub(crate) fn crash(&mut self, random: &mut impl Rng) {
        let kept = random.random_range(0..=self.pending.len());
        for _ in 0..kept {
            self.settle();
        }
        self.pending.clear();
        self.durable = 0;
    }

    /// What a new life finds.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let row = |((table, key), value): (&(Table, Vec<u8>), &Vec<u8>)| {
            (*table, key.clone(), value.clone())
        };
        self.rows.iter().map(row).collect()
    }

    /// Whether a node has ever lived here.
    pub(crate) fn is_used(&self) -> bool {
        self.rows.keys().any(|(table, _)| *table == Table::Node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn write(value: u8) -> Vec<Write> {
        vec![Write {
            table: Table::Node,
            key: b"node".to_vec(),
            value: Some(vec![value]),
        }]
    }

    #[test]
    fn a_batch_after_a_refused_one_is_refused_until_that_one_comes_again() {
        let mut disk = Disk::default();
        disk.persist(1, write(1));
        disk.persist(2, write(2));
        disk.refuses = true;
        assert_eq!(disk.settle(), Some((1, false)));
        disk.refuses = false;
        assert_eq!(disk.settle(), Some((2, false)));
        disk.persist(1, write(1));
        disk.persist(2, write(2));
        assert_eq!(disk.settle(), Some((1, true)));
        assert_eq!(disk.settle(), Some((2, true)));
        assert_eq!(disk.rows(), [(Table::Node, b"node".to_vec(), vec![2])]);
    }

    #[test]
    fn a_crash_keeps_the_first_batches_or_none() {
        for seed in 0..16 {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let mut disk = Disk::default();
            disk.persist(1, write(1));
            disk.persist(2, write(2));
            disk.crash(&mut random);
            assert!(disk.rows().len() <= 1);
            assert_eq!(disk.settle(), None);
        }
    }
}

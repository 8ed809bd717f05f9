//! Leases: what this node has promised, and to whom.
//!
//! What it is not: it does not start anything. The node alone decides over its resources, so two
//! askers never win the same core: whoever comes first holds it.
//!
//! A promise is *leased* (held for an asker for [`LEASE_TERM`]), then *held* (by an object, until
//! it has ended), or it lapses.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use wire::call::{Problem, ProblemCode};
use wire::id::{AppId, ObjectId};
use wire::spec::Resources;

use crate::instant::Instant;
use crate::limits::{LEASE_TERM, LEASES_MAX};

/// What one promise takes.
#[derive(Debug, Clone)]
struct Promise {
    app: AppId,
    resources: Resources,
    ports: Vec<u16>,
}

/// The promises of one node.
#[derive(Debug)]
pub(crate) struct Ledger {
    cpu_millis: u32,
    memory_bytes: u64,
    leases: BTreeMap<u64, (Instant, Promise)>,
    objects: BTreeMap<ObjectId, Promise>,
    /// Programs of a former life that are being ended: what they hold is not known.
    strangers: BTreeSet<ObjectId>,
}

impl Ledger {
    pub(crate) fn new(cpu_millis: u32, memory_bytes: u64) -> Self {
        Self {
            cpu_millis,
            memory_bytes,
            leases: BTreeMap::new(),
            objects: BTreeMap::new(),
            strangers: BTreeSet::new(),
        }
    }

    fn promises(&self) -> impl Iterator<Item = &Promise> + Clone {
        self.leases
            .values()
            .map(|(_, promise)| promise)
            .chain(self.objects.values())
    }

    /// Thousandths of a core that objects hold. Leases are gone in a moment: to tell others of
    /// them would only keep them away.
    pub(crate) fn cpu_held_millis(&self) -> u32 {
        cpu_millis(self.objects.values())
    }

    /// Bytes of memory that objects hold.
    pub(crate) fn memory_held_bytes(&self) -> u64 {
        memory_bytes(self.objects.values())
    }

    /// Living objects of an app, leases included.
    pub(crate) fn same_app(&self, app: AppId) -> u32 {
        u32::try_from(self.promises().filter(|it| it.app == app).count()).unwrap_or(u32::MAX)
    }

    /// Whether anything is held for an asker.
    pub(crate) fn has_leases(&self) -> bool {
        !self.leases.is_empty()
    }

    pub(crate) fn object_count(&self) -> usize {
        self.objects.len()
    }

    /// Holds resources for a moment.
    ///
    /// # Errors
    /// A [`Problem`] that says what is missing. Nothing is held then. `Busy` when only leases are
    /// in the way, or a stranger is: in a moment they are objects, or free.
    pub(crate) fn reserve(
        &mut self,
        now: Instant,
        lease: u64,
        app: AppId,
        resources: Resources,
        ports: &[u16],
    ) -> Result<(), Problem> {
        if let Some(detail) = self.lack(self.objects.values(), resources, ports) {
            return Err(Problem::new(ProblemCode::NoFit, detail));
        }
        if !self.strangers.is_empty() {
            let detail = "what ran before the node began anew is being ended";
            return Err(Problem::new(ProblemCode::Busy, detail));
        }
        if let Some(detail) = self.lack(self.promises(), resources, ports) {
            return Err(Problem::new(ProblemCode::Busy, detail));
        }
        if self.leases.len() >= LEASES_MAX {
            return Err(Problem::new(
                ProblemCode::Busy,
                "too many leases at one time",
            ));
        }
        let promise = Promise {
            app,
            resources,
            ports: ports.to_vec(),
        };
        self.leases.insert(lease, (now + LEASE_TERM, promise));
        Ok(())
    }

    /// What is missing while these promises are kept.
    fn lack<'a>(
        &self,
        promises: impl Iterator<Item = &'a Promise> + Clone,
        resources: Resources,
        ports: &[u16],
    ) -> Option<String> {
        if resources.cpu_millis > self.cpu_millis.saturating_sub(cpu_millis(promises.clone())) {
            return Some(format!("not {} cores free", resources.cores()));
        }
        let memory_held_bytes = memory_bytes(promises.clone());
        if resources.memory_bytes > self.memory_bytes.saturating_sub(memory_held_bytes) {
            let mebibytes = resources.memory_bytes >> 20;
            return Some(format!("not {mebibytes} MiB of memory free"));
        }
        let mut taken = promises.flat_map(|it| &it.ports);
        let port = taken.find(|port| ports.contains(port))?;
        Some(format!("port {port} is taken"))
    }

    /// The lease becomes an object's; `false` when it has lapsed.
    pub(crate) fn convert(&mut self, lease: u64, object: ObjectId) -> bool {
        let Some((_, promise)) = self.leases.remove(&lease) else {
            return false;
        };
        self.objects.insert(object, promise);
        true
    }

    /// An object holds this, whatever was promised: it was here before.
    pub(crate) fn hold(
        &mut self,
        object: ObjectId,
        app: AppId,
        resources: Resources,
        ports: Vec<u16>,
    ) {
        self.objects.insert(
            object,
            Promise {
                app,
                resources,
                ports,
            },
        );
    }

    /// A program is here that is not to be, and holds what nobody wrote down: until it has ended
    /// nothing is promised.
    pub(crate) fn bear(&mut self, stranger: ObjectId) {
        self.strangers.insert(stranger);
    }

    /// The asker does not need it.
    pub(crate) fn release(&mut self, lease: u64) {
        self.leases.remove(&lease);
    }

    /// The object has ended.
    pub(crate) fn free(&mut self, object: ObjectId) {
        self.objects.remove(&object);
        self.strangers.remove(&object);
    }

    /// Leases that lapse now are gone.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.leases.retain(|_, (until, _)| *until > now);
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.leases.values().map(|(until, _)| *until).min()
    }
}

fn cpu_millis<'a>(promises: impl Iterator<Item = &'a Promise>) -> u32 {
    promises.fold(0, |sum, it| sum.saturating_add(it.resources.cpu_millis))
}

fn memory_bytes<'a>(promises: impl Iterator<Item = &'a Promise>) -> u64 {
    promises.fold(0, |sum, it| sum.saturating_add(it.resources.memory_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: AppId = AppId([1; 16]);

    fn cores(cpu_millis: u32) -> Resources {
        Resources {
            cpu_millis,
            memory_bytes: 0,
            processes: 1,
        }
    }

    #[test]
    fn two_askers_never_win_the_same_core() {
        let mut ledger = Ledger::new(1000, 1 << 30);
        let now = Instant::default();
        assert!(ledger.reserve(now, 1, APP, cores(700), &[]).is_ok());
        let refused = ledger
            .reserve(now, 2, APP, cores(700), &[])
            .expect_err("it is taken");
        assert_eq!(refused.detail, "not 0.7 cores free");
        assert_eq!(refused.code, ProblemCode::Busy, "in a moment it may be");
        ledger.release(1);
        assert!(ledger.reserve(now, 2, APP, cores(700), &[]).is_ok());
        assert!(ledger.convert(2, ObjectId([2; 16])));
        let refused = ledger
            .reserve(now, 3, APP, cores(700), &[])
            .expect_err("it is taken");
        assert_eq!(refused.code, ProblemCode::NoFit);
    }

    #[test]
    fn a_lease_lapses_and_an_object_does_not() {
        let mut ledger = Ledger::new(1000, 1 << 30);
        let now = Instant::default();
        ledger.reserve(now, 1, APP, cores(400), &[]).expect("fits");
        ledger.reserve(now, 2, APP, cores(400), &[]).expect("fits");
        assert!(ledger.convert(1, ObjectId([1; 16])));
        let later = ledger.poll_timeout().expect("a lease is open");
        ledger.handle_timeout(later);
        assert!(!ledger.convert(2, ObjectId([2; 16])), "it has lapsed");
        assert_eq!(ledger.cpu_held_millis(), 400);
        ledger.free(ObjectId([1; 16]));
        assert_eq!(ledger.cpu_held_millis(), 0);
    }

    #[test]
    fn nothing_is_promised_while_a_stranger_ends() {
        let mut ledger = Ledger::new(1000, 1 << 30);
        let now = Instant::default();
        let stranger = ObjectId([7; 16]);
        ledger.bear(stranger);
        let refused = ledger
            .reserve(now, 1, APP, cores(0), &[8000])
            .expect_err("the stranger may have the port");
        assert_eq!(refused.code, ProblemCode::Busy, "in a moment it may be");
        ledger.free(stranger);
        assert!(ledger.reserve(now, 1, APP, cores(0), &[8000]).is_ok());
    }

    #[test]
    fn a_port_has_one_owner() {
        let mut ledger = Ledger::new(1000, 1 << 30);
        let now = Instant::default();
        ledger
            .reserve(now, 1, APP, cores(0), &[8000])
            .expect("free");
        let refused = ledger
            .reserve(now, 2, APP, cores(0), &[8000])
            .expect_err("taken");
        assert_eq!(refused.detail, "port 8000 is taken");
    }
}

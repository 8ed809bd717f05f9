//! A thread that lives as long as its lab. The kernel ends an init when the thread that cloned it
//! ends, and tests come and go on threads of their own; so inits are cloned here.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

type Job = Box<dyn FnOnce() + Send>;

/// The thread. Dropping it stops it.
#[derive(Debug)]
pub(crate) struct Keeper {
    running: Mutex<Option<(SyncSender<Job>, JoinHandle<()>)>>,
}

impl Keeper {
    pub(crate) fn start() -> io::Result<Self> {
        let (jobs, queue) = sync_channel::<Job>(1);
        let thread = std::thread::Builder::new()
            .name("lab-keeper".to_owned())
            .spawn(move || queue.iter().for_each(|job| job()))?;
        Ok(Self {
            running: Mutex::new(Some((jobs, thread))),
        })
    }

    /// Runs `job` on the thread and waits for it.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let stopped = || io::Error::other("the lab is down");
        let (answer, answered) = sync_channel(1);
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let (jobs, _) = running.as_ref().ok_or_else(stopped)?;
        jobs.send(Box::new(move || {
            answer.send(job()).ok();
        }))
        .or(Err(stopped()))?;
        answered.recv().or(Err(stopped()))
    }

    /// Ends the thread, and with it every init that is still there.
    pub(crate) fn stop(&self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((jobs, thread)) = running.take() {
            drop(jobs);
            // A panic of the thread has been printed already.
            thread.join().ok();
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop();
    }
}

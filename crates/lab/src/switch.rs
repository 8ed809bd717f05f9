//! The thread that moves frames between the hosts' TAP devices, as [`Fabric`] decides. It is not a
//! learning switch: addresses are known from the start, and a broadcast goes to everyone.
//!
//! Commands lock the same state as the thread and are in force when they return. The thread wakes
//! for a frame, for a due time (a kernel timer, so that delays are exact to some microseconds), or
//! to stop.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::clock_gettime;

use crate::fabric::{Fabric, Nanoseconds};

const TIMER: u64 = u64::MAX;
const STOP: u64 = u64::MAX - 1;

/// Frames that one host may send before the others get their turn.
const FRAMES_PER_TURN: usize = 64;
/// Turns that a host gets before a change of the network: what its device holds (see `tap`).
const TURNS_PER_CHANGE: usize = 64;
/// The longest frame a TAP device can hand over, with any MTU.
const FRAME_BYTES_MAX: usize = 65_550;

/// A running switch. Dropping it stops the thread and closes the devices.
#[derive(Debug)]
pub(crate) struct Switch {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    plant: Mutex<Plant>,
    /// Callers that want the lock; the thread lets them go first.
    callers: AtomicUsize,
    epoll: Epoll,
    timer: TimerFd,
    stop: EventFd,
}

/// What commands and the thread share.
#[derive(Debug)]
struct Plant {
    fabric: Fabric,
    ports: Vec<Option<OwnedFd>>,
    armed: Option<Nanoseconds>,
}

impl Switch {
    pub(crate) fn start(fabric: Fabric, hosts: usize) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        let stop = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        epoll.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN, TIMER))?;
        epoll.add(&stop, EpollEvent::new(EpollFlags::EPOLLIN, STOP))?;
        let shared = Arc::new(Shared {
            plant: Mutex::new(Plant {
                fabric,
                ports: std::iter::repeat_with(|| None).take(hosts).collect(),
                armed: None,
            }),
            callers: AtomicUsize::new(0),
            epoll,
            timer,
            stop,
        });
        let thread = std::thread::Builder::new()
            .name("lab-switch".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.run()
            })?;
        Ok(Self {
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Connects a host's device; it must be non-blocking.
    pub(crate) fn plug(&self, host: usize, device: OwnedFd) -> io::Result<()> {
        let mut plant = self.lock();
        let event = EpollEvent::new(EpollFlags::EPOLLIN, host as u64);
        self.shared.epoll.add(&device, event)?;
        plant.ports[host] = Some(device);
        Ok(())
    }

    /// Disconnects a host: no frame from or to it moves any more, also of those in flight.
    pub(crate) fn unplug(&self, host: usize) {
        let mut plant = self.lock();
        plant.fabric.forget_host(host);
        if let Some(device) = plant.ports[host].take() {
            // Closing removes it as well; this is for copies in children that have not yet exec'ed.
            self.shared.epoll.delete(&device).ok();
        }
    }

    /// Ends the thread; no frame moves any more.
    pub(crate) fn stop(&self) {
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            self.shared
                .stop
                .write(1)
                .expect("a fresh counter takes a one");
            // A panic of the thread has been printed already.
            thread.join().ok();
        }
    }

    /// Reads the WAN.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Fabric) -> T) -> T {
        look(&self.lock().fabric)
    }

    /// Changes the WAN. What hosts have sent before this is under way before the change.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Fabric) -> T) -> T {
        let mut buffer = vec![0; FRAME_BYTES_MAX];
        let mut plant = self.lock();
        for host in 0..plant.ports.len() {
            for _ in 0..TURNS_PER_CHANGE {
                if !plant.read(host, &mut buffer) {
                    break;
                }
            }
        }
        let result = change(&mut plant.fabric);
        self.shared.arm(&mut plant);
        result
    }

    fn lock(&self) -> MutexGuard<'_, Plant> {
        self.shared.callers.fetch_add(1, Ordering::SeqCst);
        let guard = lock(&self.shared.plant);
        self.shared.callers.fetch_sub(1, Ordering::SeqCst);
        guard
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn run(&self) {
        prefer_this_thread();
        let mut buffer = vec![0_u8; FRAME_BYTES_MAX];
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(count) => count,
                Err(Errno::EINTR) => continue,
                Err(error) => panic!("the switch cannot wait for frames: {error}"),
            };
            while self.callers.load(Ordering::SeqCst) > 0 {
                std::thread::yield_now();
            }
            let mut plant = lock(&self.plant);
            for event in &events[..count] {
                match event.data() {
                    STOP => return,
                    TIMER => {
                        plant.armed = None;
                        self.timer.wait().ok();
                    }
                    host => {
                        plant.read(usize::try_from(host).unwrap_or(usize::MAX), &mut buffer);
                    }
                }
            }
            plant.deliver_due();
            self.arm(&mut plant);
        }
    }

    fn arm(&self, plant: &mut Plant) {
        let next = plant.fabric.poll_timeout();
        if next.is_none() || next == plant.armed {
            return;
        }
        if let Some(due) = next {
            let at = Expiration::OneShot(TimeSpec::from_duration(std::time::Duration::from_nanos(
                due.max(1),
            )));
            self.timer
                .set(at, TimerSetTimeFlags::TFD_TIMER_ABSTIME)
                .expect("the time is valid");
            plant.armed = Some(due);
        }
    }
}

impl Plant {
    /// Takes frames that a host has sent, up to its turn; true if there may be more.
    fn read(&mut self, host: usize, buffer: &mut [u8]) -> bool {
        let Self { fabric, ports, .. } = self;
        for _ in 0..FRAMES_PER_TURN {
            let Some(Some(device)) = ports.get(host) else {
                return false;
            };
            // Every error means that there is nothing to read now: empty, or the device is going.
            let Ok(bytes) = nix::unistd::read(device.as_fd(), buffer) else {
                return false;
            };
            fabric.handle_frame(now(), host, &buffer[..bytes], &mut |to, frame| {
                write_frame(ports, to, frame);
            });
        }
        true
    }

    fn deliver_due(&mut self) {
        let Self { fabric, ports, .. } = self;
        if fabric.poll_timeout().is_some() {
            fabric.handle_time(now(), &mut |to, frame| write_frame(ports, to, frame));
        }
    }
}

/// A frame for a dead host, or for one whose kernel has no room, is gone, as on a real wire.
fn write_frame(ports: &[Option<OwnedFd>], to: usize, frame: &[u8]) {
    if let Some(Some(device)) = ports.get(to) {
        nix::unistd::write(device, frame).ok();
    }
}

fn now() -> Nanoseconds {
    let time = clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("the clock can be read");
    u64::try_from(std::time::Duration::from(time).as_nanos()).expect("five centuries fit")
}

/// The network of a busy machine should not get slower because the machine is busy.
#[expect(unsafe_code, reason = "nix has no setpriority")]
fn prefer_this_thread() {
    // SAFETY: passes numbers only. Failing (without root) is fine.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -15) };
}

fn lock(plant: &Mutex<Plant>) -> MutexGuard<'_, Plant> {
    plant.lock().unwrap_or_else(PoisonError::into_inner)
}

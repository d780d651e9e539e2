//! A switch between machines, as a thread of the harness. One datagram is one Ethernet frame.
//!
//! ```text
//! machine i ── <its directory>/switch ──> thread: cut? lost? late? ── <its directory>/net ──> machine j
//! ```

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Longer than any frame of a network with an MTU of 1500 or 9000.
const LONGEST: usize = 16 * 1024;

/// What happens to frames in one direction between two ports. The default is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Fault {
    /// Nothing gets through.
    pub cut: bool,
    /// The share of frames that are lost, 0 to 1.
    pub loss: f64,
    /// How much later the rest arrives.
    pub delay: Duration,
}

/// Frames in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Given to the machine's network card.
    pub delivered: u64,
    /// Cut off, lost, or more than the machine took.
    pub dropped: u64,
}

#[derive(Debug)]
struct Port {
    socket: Arc<UnixDatagram>,
    machine: PathBuf,
}

/// A frame on its way.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Late {
    due: Instant,
    /// Of two that are due at once, the first in comes first out.
    order: u64,
    from: usize,
    to: usize,
    frame: Vec<u8>,
}

#[derive(Debug)]
struct State {
    ports: HashMap<usize, Port>,
    faults: HashMap<(usize, usize), Fault>,
    counts: HashMap<(usize, usize), Counts>,
    /// Behind which port an address was seen last.
    learned: HashMap<[u8; 6], usize>,
    late: BinaryHeap<Reverse<Late>>,
    order: u64,
    random: u64,
    capture: Option<File>,
    is_over: bool,
}

/// A switch; its thread ends with this value.
#[derive(Debug)]
pub struct Switch {
    state: Arc<Mutex<State>>,
    wake: UnixDatagram,
    thread: Option<JoinHandle<()>>,
}

impl Switch {
    /// Starts a switch without machines.
    pub fn new() -> anyhow::Result<Self> {
        let state = Arc::new(Mutex::new(State {
            ports: HashMap::new(),
            faults: HashMap::new(),
            counts: HashMap::new(),
            learned: HashMap::new(),
            late: BinaryHeap::new(),
            order: 0,
            // Every run loses the same frames.
            random: 0x2545_f491_4f6c_dd1d,
            capture: None,
            is_over: false,
        }));
        let (wake, woken) = UnixDatagram::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let shared = state.clone();
        let thread = std::thread::spawn(move || forward(&shared, &woken));
        Ok(Self { state, wake, thread: Some(thread) })
    }

    /// Changes what happens to frames from one port to another; the other direction stays.
    pub fn set(&self, from: usize, to: usize, fault: Fault) {
        self.lock().faults.insert((from, to), fault);
    }

    /// Changes both directions between two ports.
    pub fn set_both(&self, one: usize, other: usize, fault: Fault) {
        self.set(one, other, fault);
        self.set(other, one, fault);
    }

    /// All faults end. What is late stays late.
    pub fn heal(&self) {
        self.lock().faults.clear();
    }

    /// What went from one port to another until now.
    pub fn counts(&self, from: usize, to: usize) -> Counts {
        self.lock().counts.get(&(from, to)).copied().unwrap_or_default()
    }

    /// Writes every frame that comes in from now on to a file, in the format of pcap(5).
    pub fn capture(&self, path: &Path) -> anyhow::Result<()> {
        let mut file = File::create(path).with_context(|| format!("cannot make {path:?}"))?;
        // Microseconds, version 2.4, UTC, whole frames, Ethernet.
        for field in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 0x0004_0000, 1] {
            file.write_all(&field.to_le_bytes())?;
        }
        self.lock().capture = Some(file);
        Ok(())
    }

    /// Connects a port to the machine that has this directory, instead of the one it had.
    pub(crate) fn attach(&self, port: usize, directory: &Path) -> anyhow::Result<()> {
        let socket = UnixDatagram::bind(directory.join("switch"))?;
        socket.set_nonblocking(true)?;
        let port_of = Port { socket: Arc::new(socket), machine: directory.join("net") };
        self.lock().ports.insert(port, port_of);
        let _ = self.wake.send(&[0]);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.lock().is_over = true;
        let _ = self.wake.send(&[0]);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn forward(shared: &Mutex<State>, woken: &UnixDatagram) {
    let mut buffer = vec![0; LONGEST];
    loop {
        let (ports, patience) = {
            let mut state = lock(shared);
            if state.is_over {
                return;
            }
            let patience = state.deliver_due();
            let ports = state.ports.iter();
            let ports: Vec<_> = ports.map(|(port, end)| (*port, end.socket.clone())).collect();
            (ports, patience)
        };
        let mut ready: Vec<PollFd<'_>> =
            ports.iter().map(|(_, socket)| PollFd::new(socket, PollFlags::IN)).collect();
        ready.push(PollFd::new(woken, PollFlags::IN));
        let patience = patience.and_then(|patience| Timespec::try_from(patience).ok());
        if poll(&mut ready, patience.as_ref()).is_err() {
            continue;
        }
        let _ = woken.recv(&mut buffer);
        for (port, socket) in &ports {
            // No machine keeps the others waiting for long.
            for _ in 0..64 {
                let Ok(length) = socket.recv(&mut buffer) else { break };
                lock(shared).take_in(*port, &buffer[..length]);
            }
        }
    }
}

impl State {
    /// Sends a frame on its way to one port or to all others.
    fn take_in(&mut self, from: usize, frame: &[u8]) {
        let Some(([destination, source], _)) = frame
            .split_at_checked(12)
            .map(|(head, rest)| (head.as_chunks::<6>().0.try_into().unwrap_or([[0; 6]; 2]), rest))
        else {
            return;
        };
        self.record(frame);
        self.learned.insert(source, from);
        let is_for_many = destination[0] & 1 == 1;
        let known = if is_for_many { None } else { self.learned.get(&destination).copied() };
        let targets: Vec<usize> = match known {
            Some(to) => vec![to],
            None => self.ports.keys().copied().collect(),
        };
        for to in targets.into_iter().filter(|to| *to != from) {
            let fault = self.faults.get(&(from, to)).copied().unwrap_or_default();
            if fault.cut || self.draw() < fault.loss {
                self.counts.entry((from, to)).or_default().dropped += 1;
            } else if fault.delay.is_zero() {
                self.deliver(from, to, frame);
            } else {
                self.order += 1;
                let due = Instant::now() + fault.delay;
                let late = Late { due, order: self.order, from, to, frame: frame.to_vec() };
                self.late.push(Reverse(late));
            }
        }
    }

    /// Delivers what is due and answers when the next will be.
    fn deliver_due(&mut self) -> Option<Duration> {
        loop {
            let due = self.late.peek()?.0.due;
            let wait = due.saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                return Some(wait);
            }
            if let Some(Reverse(late)) = self.late.pop() {
                self.deliver(late.from, late.to, &late.frame);
            }
        }
    }

    /// A machine that takes no more loses the frame, as on a real cable.
    fn deliver(&mut self, from: usize, to: usize, frame: &[u8]) {
        let Some(port) = self.ports.get(&to) else { return };
        let sent = port.socket.send_to(frame, &port.machine);
        let counts = self.counts.entry((from, to)).or_default();
        match sent {
            Ok(_) => counts.delivered += 1,
            Err(_) => counts.dropped += 1,
        }
    }

    fn record(&mut self, frame: &[u8]) {
        let Some(file) = &mut self.capture else { return };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        let mut packet = Vec::with_capacity(16 + frame.len());
        let seconds = u32::try_from(now.as_secs()).unwrap_or(u32::MAX);
        for field in [seconds, now.subsec_micros(), length, length] {
            packet.extend_from_slice(&field.to_le_bytes());
        }
        packet.extend_from_slice(frame);
        if file.write_all(&packet).is_err() {
            self.capture = None;
        }
    }

    /// Evenly between 0 and 1 (xorshift64*).
    fn draw(&mut self) -> f64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        let high = (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32;
        f64::from(high) / (f64::from(u32::MAX) + 1.0)
    }
}

//! The virtio-serial port that the harness listens on.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use machine_agent::wire::Reply;

/// The name that the harness gives the port.
const NAME: &str = "agent";
const PATIENCE: Duration = Duration::from_secs(60);

/// Both directions of the port. Clones share it.
#[derive(Clone, Debug)]
pub struct Port {
    file: Arc<File>,
    sending: Arc<Mutex<()>>,
}

impl Port {
    /// Waits for the port to appear, since the driver finds it some time after it is loaded.
    pub fn open() -> io::Result<Self> {
        let deadline = Instant::now() + PATIENCE;
        let path = loop {
            match find()? {
                Some(path) => break path,
                None if Instant::now() > deadline => {
                    return Err(io::Error::other("there is no virtio-serial port named agent"));
                }
                None => thread::sleep(Duration::from_millis(5)),
            }
        };
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        Ok(Self { file: Arc::new(file), sending: Arc::default() })
    }

    /// Sends a whole frame; other threads' frames come before or after it.
    pub fn send(&self, number: u32, reply: &Reply) -> io::Result<()> {
        let _sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        reply.write(number, &mut &*self.file)
    }

    /// What the harness sends, for one reader.
    pub fn requests(&self) -> impl Read {
        BufReader::new(Incoming(self.file.clone()))
    }
}

fn find() -> io::Result<Option<PathBuf>> {
    let Ok(ports) = fs::read_dir("/sys/class/virtio-ports") else { return Ok(None) };
    for port in ports {
        let port = port?;
        if fs::read_to_string(port.path().join("name")).is_ok_and(|name| name.trim() == NAME) {
            let path = PathBuf::from("/dev").join(port.file_name());
            return Ok(path.exists().then_some(path));
        }
    }
    Ok(None)
}

/// The port reads as ended while nobody has the host's side open, as between a template and its
/// clone.
struct Incoming(Arc<File>);

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match (&*self.0).read(buffer)? {
                0 => thread::sleep(Duration::from_millis(5)),
                length => return Ok(length),
            }
        }
    }
}

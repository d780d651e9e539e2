//! Archives into containers and out of them: this program packs and unpacks inside, at the end of a
//! pipe, and how it ends is what became of the archive.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use garden_sys::supervisor::Exit;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::oneshot;
use tracing::Span;

use super::Gardener;
use crate::dropsonde;
use crate::error::Error;

/// Bytes of an archive that are handed out at once, at most.
const PIECE: usize = 32 * 1024;

/// The program inside the container. The container's grace time stands still until it has ended,
/// which it does at the latest with the container.
#[derive(Debug)]
pub struct Helper {
    attempt: &'static str,
    end: oneshot::Receiver<Result<(Exit, String), Error>>,
}

impl Helper {
    /// Waits for its end. A failure is in the words of the reference, where a program's exit status
    /// and output follow.
    pub async fn ended(self) -> Result<(), Error> {
        let (exit, said) = self
            .end
            .await
            .unwrap_or_else(|_| Err(Error::Plain("the helper's thread died".into())))?;
        let status = match exit {
            Exit::Status(0) => return Ok(()),
            Exit::Status(status) => format!("exit status {status}"),
            Exit::Unknown => "exit status unknown".to_owned(),
        };
        Err(Error::Plain(format!("{}: {status}. Output: {said}", self.attempt)))
    }
}

/// An archive that is unpacked.
#[derive(Debug)]
pub struct Unpacking {
    /// Takes the archive, at the container's pace; dropped at the archive's end. Writing fails once
    /// the helper has ended.
    pub archive: Sender,
    /// Says what is wrong with the archive.
    pub helper: Helper,
}

/// An archive that is packed.
#[derive(Debug)]
pub struct Packing {
    archive: Receiver,
    helper: Option<Helper>,
}

impl Packing {
    /// The next piece, at the container's pace. The end comes only if nothing is missing; what could
    /// not be packed is an error in its place.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let mut piece = Vec::with_capacity(PIECE);
        let read = self.archive.read_buf(&mut piece).await;
        if read.map_err(|error| Error::because("error streaming out", &error))? > 0 {
            return Ok(Some(piece));
        }
        match self.helper.take() {
            Some(helper) => helper.ended().await.map(|()| None),
            None => Ok(None),
        }
    }
}

impl Gardener {
    /// Unpacks a tar into a directory of the container.
    pub fn stream_in(
        self: &Arc<Self>,
        handle: &str,
        user: &str,
        path: &str,
    ) -> Result<Unpacking, Error> {
        let null = null(std::fs::File::options().write(true))?;
        let (theirs, ours) = pipe()?;
        let archive = self.asynchronous(ours, Sender::from_owned_fd)?;
        let arguments = ["stream-in", user, path];
        let helper = self.help(handle, "error streaming in", arguments, theirs, null)?;
        Ok(Unpacking { archive, helper })
    }

    /// Packs a file or directory of the container.
    pub fn stream_out(
        self: &Arc<Self>,
        handle: &str,
        user: &str,
        path: &str,
    ) -> Result<Packing, Error> {
        let null = null(std::fs::File::options().read(true))?;
        let (ours, theirs) = pipe()?;
        let archive = self.asynchronous(ours, Receiver::from_owned_fd)?;
        let arguments = ["stream-out", user, path];
        let helper = self.help(handle, "error streaming out", arguments, null, theirs)?;
        Ok(Packing { archive, helper: Some(helper) })
    }

    /// Runs a helper, on a thread of its own: how long it takes is the client's choice, and the
    /// runtime's threads are for calls that end.
    fn help(
        self: &Arc<Self>,
        handle: &str,
        attempt: &'static str,
        arguments: [&str; 3],
        input: OwnedFd,
        output: OwnedFd,
    ) -> Result<Helper, Error> {
        let (container, call) = self.call(handle)?;
        let (sender, end) = oneshot::channel();
        let gardener = Arc::clone(self);
        let name = arguments[0].to_owned();
        let arguments = arguments.map(str::to_owned);
        let span = Span::current();
        let helping = move || {
            let _entered = span.enter();
            let [action, user, path] = arguments.each_ref().map(String::as_str);
            let arguments = ["bloomery", "inside", action, user, path];
            let begun = Instant::now();
            let outcome = gardener.run_own(&container, &arguments, input, output);
            if action == "stream-in" {
                dropsonde::tell_time("StreamInDuration", begun.elapsed());
            }
            drop((call, container, gardener));
            // Whoever asked may be gone.
            let _ = sender.send(outcome);
        };
        std::thread::Builder::new()
            .name(name)
            .spawn(helping)
            .map_err(|error| Error::because("cannot start a helper's thread", &error))?;
        Ok(Helper { attempt, end })
    }

    fn asynchronous<T>(
        &self,
        end: OwnedFd,
        from: impl FnOnce(OwnedFd) -> io::Result<T>,
    ) -> Result<T, Error> {
        let _entered = self.runtime.enter();
        from(end).map_err(|error| Error::because("cannot wait for a pipe", &error))
    }
}

fn null(mode: &std::fs::OpenOptions) -> Result<OwnedFd, Error> {
    let opened = mode.open("/dev/null");
    opened.map(OwnedFd::from).map_err(|error| Error::because("cannot open /dev/null", &error))
}

fn pipe() -> Result<(OwnedFd, OwnedFd), Error> {
    pipe_with(PipeFlags::CLOEXEC)
        .map_err(|errno| Error::because("cannot make a pipe", &io::Error::from(errno)))
}

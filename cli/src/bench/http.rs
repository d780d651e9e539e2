//! A Garden behind its socket as a contender: ours, or the original.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bloomery_garden::client::{Address, Client, ProcessIo};
use tokio::io::AsyncReadExt;
use tokio::runtime::Runtime;

use super::contender::{Contender, Cycle, now, since};
use super::inside::{container, process};

/// A client with a runtime to run it on, shared by all that ask the same server.
#[derive(Clone, Debug)]
pub struct Caller {
    client: Client,
    runtime: Arc<Runtime>,
}

impl Caller {
    /// For the server behind a unix socket.
    pub fn new(socket: &Path) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("cannot start a runtime")?;
        let client = Client::new(Address::Unix(socket.to_owned()));
        Ok(Self { client, runtime: Arc::new(runtime) })
    }

    /// Whether it answers.
    pub fn ping(&self) -> anyhow::Result<()> {
        Ok(self.runtime.block_on(self.client.ping())?)
    }

    /// Makes a container; `image` where the server's own is not meant.
    pub fn create(&self, handle: &str, image: Option<&str>) -> anyhow::Result<String> {
        let mut spec = container(handle);
        if let Some(image) = image {
            image.clone_into(&mut spec.rootfs);
        }
        Ok(self.runtime.block_on(self.client.create(&spec))?)
    }

    /// Destroys it.
    pub fn destroy(&self, handle: &str) -> anyhow::Result<()> {
        Ok(self.runtime.block_on(self.client.destroy(handle))?)
    }

    /// Starts a process and leaves it alone.
    pub fn start(&self, handle: &str, command: &[&str]) -> anyhow::Result<()> {
        let spec = process(command);
        self.runtime.block_on(self.client.run(handle, &spec, ProcessIo::default()))?;
        Ok(())
    }

    /// Runs a process to its end and answers its output.
    fn run(&self, handle: &str, command: &[&str]) -> anyhow::Result<Vec<u8>> {
        let spec = process(command);
        self.runtime.block_on(async {
            let io = ProcessIo {
                stdin: Some(Box::new(tokio::io::empty())),
                stdout: true,
                stderr: false,
            };
            let process = self.client.run(handle, &spec, io).await?;
            let mut output = Vec::new();
            if let Some(mut stdout) = process.take_stdout() {
                stdout.read_to_end(&mut output).await.context("cannot read its output")?;
            }
            match process.wait().await? {
                0 => Ok(output),
                status => bail!("the process ended with status {status}"),
            }
        })
    }
}

/// See the module.
#[derive(Debug)]
pub struct Http {
    name: String,
    caller: Caller,
    image: Option<String>,
    settles: Duration,
    turns: u32,
}

impl Http {
    /// One of ours.
    pub fn ours(name: &str, caller: &Caller) -> Self {
        let (name, caller) = (name.to_owned(), caller.clone());
        Self { name, caller, image: None, settles: Duration::from_millis(20), turns: 0 }
    }

    /// The original, which is given the bench's image by its path.
    pub fn guardian(socket: &Path, image: &Path) -> anyhow::Result<Self> {
        let caller = Caller::new(socket)?;
        caller.ping().with_context(|| format!("no Garden answers on {}", socket.display()))?;
        Ok(Self {
            name: super::rounds::name::GUARDIAN.to_owned(),
            caller,
            image: Some(image.display().to_string()),
            settles: Duration::from_millis(50),
            turns: 0,
        })
    }
}

impl Contender for Http {
    fn name(&self) -> &str {
        &self.name
    }

    fn cycle(&mut self, command: &[&str]) -> anyhow::Result<Cycle> {
        self.turns += 1;
        let handle = format!("bench-{}-{}", std::process::id(), self.turns);
        let began = now();
        let created = self.caller.create(&handle, self.image.as_deref());
        let handle = created.with_context(|| format!("{}: create", self.name))?;
        let create = since(began);
        let running = now();
        let run = self.caller.run(&handle, command);
        let destroying = now();
        let destroyed = self.caller.destroy(&handle);
        let (total, destroy) = (since(began), since(destroying));
        let output = run.with_context(|| format!("{}: run", self.name))?;
        destroyed.with_context(|| format!("{}: destroy", self.name))?;
        let (create, destroy) = (Some(create), Some(destroy));
        Ok(Cycle { began, running: Some(running), total, create, destroy, output })
    }

    fn settles(&self) -> Duration {
        self.settles
    }
}

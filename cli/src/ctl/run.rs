//! `bloomery ctl run` and `attach`: what is asked of the server before a session begins.

use std::process::ExitCode;

use bloomery_garden::client::{Client, ProcessIo};
use clap::Args;
use garden_api::{
    BindMount, CpuLimits, ImageRef, MemoryLimits, ProcessLimits, ProcessSpec, TtySpec,
};

use super::session::{Session, Standing};
use super::{explain, notation, print, terminal};

/// What shall be run.
#[derive(Args, Debug)]
#[command(after_help = "\
Exit status: the process's own, 128 + the signal that ended it, 127 if there is no such \
executable, or 125 if the server or this command failed.

Without a terminal Ctrl-C sends the process SIGTERM, a second one SIGKILL. On a terminal (-t) keys \
go to the process, and Ctrl-] leaves it running. Input is text: for other bytes use stream-in.")]
pub struct Flags {
    /// Give the process a terminal; yours is passed through.
    #[arg(long, short)]
    tty: bool,
    /// Who runs it: NAME, UID, NAME:GROUP or UID:GID. Without it, root.
    #[arg(long, short, value_name = "USER")]
    user: Option<String>,
    /// Working directory; it is made if it is missing. Without it, the user's home, or / of an image of
    /// its own.
    #[arg(long, value_name = "PATH")]
    dir: Option<String>,
    /// Environment, in addition to the container's or that of an image of its own.
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = notation::variable)]
    env: Vec<String>,
    /// Limit of this process alone, setrlimit(2), as in `nofile=1024`.
    #[arg(long, value_name = "NAME=VALUE", value_parser = notation::rlimit)]
    rlimit: Vec<(String, u64)>,
    #[command(flatten)]
    pea: Pea,
    /// The process's name, by which it is attached to. Without it the server makes one up.
    #[arg(long, value_name = "NAME")]
    id: Option<String>,
    /// Stay and pass input and output through; this is what happens without a flag, too.
    #[arg(long, overrides_with = "detach")]
    attach: bool,
    /// Only start the process and print its name.
    #[arg(long, short, conflicts_with_all = ["no_stdin"])]
    detach: bool,
    /// Do not pass standard input on; the process's is empty.
    #[arg(long)]
    no_stdin: bool,
    /// The container's handle.
    handle: String,
    /// The executable, by path or searched in PATH, and its arguments.
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// What a process with an image of its own has beside the container.
#[derive(Args, Debug)]
#[command(next_help_heading = "With an image of its own")]
struct Pea {
    /// Root file system of this process, as a URI that the server knows or a path on its machine. It
    /// shares the container's network, processes and users; its environment is the image's.
    #[arg(long, value_name = "URI")]
    image: Option<String>,
    /// User at the image's registry.
    #[arg(long, value_name = "NAME", requires = "image")]
    image_user: Option<String>,
    /// Password at the image's registry; best given by the environment variable.
    #[arg(long, value_name = "PASSWORD", env = "BLOOMERY_IMAGE_PASSWORD", hide_env_values = true)]
    image_password: Option<String>,
    /// Show a path of the host inside, read-only unless `:rw` is added.
    #[arg(long, short = 'v', value_name = "SOURCE:DESTINATION", requires = "image", value_parser = notation::bind_mount)]
    bind: Vec<BindMount>,
    /// Count it beside the container and not in its limits; --memory and --cpu say so, too.
    #[arg(long, requires = "image")]
    own_limits: bool,
    /// Limit of its memory, swap included: bytes, or with K, M, G, T.
    #[arg(long, short, value_name = "BYTES", requires = "image", value_parser = notation::bytes)]
    memory: Option<u64>,
    /// Its CPU shares against other containers.
    #[arg(long, value_name = "SHARES", requires = "image")]
    cpu: Option<u64>,
}

impl Pea {
    fn limits(&self) -> Option<ProcessLimits> {
        let own = self.own_limits || self.memory.is_some() || self.cpu.is_some();
        own.then(|| ProcessLimits {
            cpu: CpuLimits { weight: self.cpu.unwrap_or_default(), limit_in_shares: 0 },
            memory: MemoryLimits { limit_in_bytes: self.memory.unwrap_or_default() },
        })
    }
}

/// What shall be attached to.
#[derive(Args, Debug)]
pub struct AttachFlags {
    /// The process has a terminal; yours is passed through, and Ctrl-] leaves it running.
    #[arg(long, short)]
    tty: bool,
    /// Do not pass standard input on.
    #[arg(long)]
    no_stdin: bool,
    /// The container's handle.
    handle: String,
    /// The process's name, which `run --id` gives and `run --detach` prints.
    process: String,
}

/// Runs a process.
pub async fn run(client: &Client, flags: Flags) -> anyhow::Result<ExitCode> {
    let mut command = flags.command.into_iter();
    let mut env = flags.env;
    let pea = flags.pea;
    let window_size = flags.tty.then(terminal::size).flatten();
    if flags.tty && !env.iter().any(|variable| variable.starts_with("TERM=")) {
        env.extend(std::env::var("TERM").map(|kind| format!("TERM={kind}")));
    }
    let spec = ProcessSpec {
        id: flags.id.unwrap_or_default(),
        path: command.next().unwrap_or_default(),
        args: command.collect(),
        env,
        dir: flags.dir.unwrap_or_default(),
        user: flags.user.unwrap_or_default(),
        rlimits: notation::resource_limits(flags.rlimit),
        tty: flags.tty.then_some(TtySpec { window_size }),
        limits: pea.limits(),
        // A password in the environment is of no use without an image.
        image: pea.image.map_or_else(ImageRef::default, |uri| ImageRef {
            uri,
            username: pea.image_user.unwrap_or_default(),
            password: pea.image_password.unwrap_or_default(),
        }),
        bind_mounts: pea.bind,
    };
    if flags.detach {
        let process = client.run(&flags.handle, &spec, ProcessIo::default()).await;
        print(&format!("{}\n", process.map_err(explain)?.id()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let process = client.run(&flags.handle, &spec, ProcessIo::outputs()).await.map_err(explain)?;
    let standing = Standing::Owner;
    let (tty, input) = (flags.tty, !flags.no_stdin);
    Session { client, handle: flags.handle, process, standing, tty, input }.hold().await
}

/// Takes part in a process.
pub async fn attach(client: &Client, flags: AttachFlags) -> anyhow::Result<ExitCode> {
    let attached = client.attach(&flags.handle, &flags.process, ProcessIo::outputs()).await;
    let process = attached.map_err(explain)?;
    let standing = Standing::Guest;
    let (tty, input) = (flags.tty, !flags.no_stdin);
    Session { client, handle: flags.handle, process, standing, tty, input }.hold().await
}

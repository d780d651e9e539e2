//! `bloomery ctl`: a Garden's containers by hand.

mod advice;
mod create;
mod notation;
mod report;
mod run;
mod session;
mod terminal;
mod text;

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use bloomery_garden::client::{Address, Client, Error};
use clap::{Args, Subcommand};
use garden_api::{NetOutRule, Properties};

use advice::explain;

/// Where a server listens unless something else is said.
const SOCKET: &str = "/run/bloomery/garden.sock";

/// Exit status of `run` and `attach` when not the process but something else failed.
const OWN_FAILURE: u8 = 125;
/// Exit status of `run` when there is no such executable in the container.
const NOT_FOUND: u8 = 127;

/// Arguments of `bloomery ctl`.
#[derive(Args, Debug)]
#[command(after_help = "\
Where the server is: --socket or --address, else the environment variable BLOOMERY_GARDEN \
(a socket's path or IP:PORT), else /run/bloomery/garden.sock.

First steps:
  bloomery ctl create --handle box --memory 64M
  bloomery ctl run box -- echo hello
  bloomery ctl run -t box -- sh
  bloomery ctl destroy box")]
pub struct Arguments {
    /// The server's unix socket.
    #[arg(long, value_name = "PATH", global = true, conflicts_with = "address")]
    socket: Option<PathBuf>,
    /// The server's TCP address.
    #[arg(long, value_name = "IP:PORT", global = true)]
    address: Option<SocketAddr>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// List containers' handles, one a line.
    List {
        /// Only containers with this property; may be given several times.
        #[arg(long, value_name = "KEY=VALUE", value_parser = notation::pair)]
        property: Vec<(String, String)>,
        /// Half-made and half-destroyed containers, too.
        #[arg(long)]
        all: bool,
    },
    /// Create a container and print its handle.
    Create(Box<create::Flags>),
    /// Run a process in a container and exit with its status.
    Run(Box<run::Flags>),
    /// Take part in a process that runs: see its output from now on, send it input.
    Attach(run::AttachFlags),
    /// Show what a container is: state, addresses, ports, limits, properties.
    #[command(alias = "inspect")]
    Info {
        /// The container's handle.
        handle: String,
        /// As the server's JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Show what containers use; without handles, all of them.
    Metrics {
        /// Handles of containers.
        handles: Vec<String>,
        /// As the server's JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// End all processes of containers, which stay: SIGTERM, after ten seconds SIGKILL.
    Stop {
        /// Handles of containers.
        #[arg(required = true)]
        handles: Vec<String>,
        /// Send SIGKILL at once.
        #[arg(long)]
        kill: bool,
    },
    /// End all processes of containers and remove them.
    Destroy {
        /// Handles of containers.
        #[arg(required = true)]
        handles: Vec<String>,
    },
    /// Unpack a tar archive from standard input inside a container.
    StreamIn {
        /// The container's handle.
        handle: String,
        /// Directory inside; it is made if it is missing.
        destination: String,
        /// User who unpacks and will own the files, by name.
        #[arg(long, value_name = "NAME", default_value = "root")]
        user: String,
    },
    /// Write a file or directory of a container to standard output, as a tar archive.
    StreamOut {
        /// The container's handle.
        handle: String,
        /// Path inside. With a slash at its end the archive holds what is in the directory, else
        /// the directory itself.
        source: String,
        /// User who reads the files, by name.
        #[arg(long, value_name = "NAME", default_value = "root")]
        user: String,
    },
    /// A container's properties: labels by which containers are found, and the server's notes.
    #[command(subcommand)]
    Property(Property),
    /// Forward a port of the host into a container and print HOST:CONTAINER.
    NetIn {
        /// The container's handle.
        handle: String,
        /// Host port 0 picks a free one, container port 0 is the host port's number.
        #[arg(value_name = "HOST:CONTAINER", value_parser = notation::ports)]
        ports: (u32, u32),
    },
    /// Allow a container to reach destinations that are denied to all.
    NetOut {
        /// The container's handle.
        handle: String,
        /// For example `protocol=tcp,network=10.0.0.0/8,port=80-81,log`; without a part,
        /// everything of its kind. Several rules are applied together.
        #[arg(required = true, value_name = "RULE", value_parser = notation::rule)]
        rules: Vec<NetOutRule>,
    },
    /// Destroy a container once nobody has used it for so long; 0 is never.
    GraceTime {
        /// The container's handle.
        handle: String,
        /// For example `90s`, `5m` or `1h30m`.
        #[arg(value_parser = crate::serve::duration)]
        time: Duration,
    },
    /// Show what the server's machine offers.
    Capacity {
        /// As the server's JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Ask whether the server serves.
    Ping,
}

#[derive(Subcommand, Debug)]
enum Property {
    /// Print all properties, KEY=VALUE, one a line.
    List {
        /// The container's handle.
        handle: String,
    },
    /// Print a property's value.
    Get {
        /// The container's handle.
        handle: String,
        /// The property.
        key: String,
    },
    /// Set a property, new or not.
    Set {
        /// The container's handle.
        handle: String,
        /// The property.
        key: String,
        /// Its value.
        value: String,
    },
    /// Remove a property; one that is not there is no error.
    Remove {
        /// The container's handle.
        handle: String,
        /// The property.
        key: String,
    },
}

/// Does what the arguments say and reports what fails.
pub fn run(arguments: Arguments) -> ExitCode {
    let own_failure = match arguments.command {
        Command::Run(_) | Command::Attach(_) => OWN_FAILURE,
        _ => 1,
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(format_args!("cannot start the runtime: {error}"));
            return own_failure.into();
        }
    };
    let done = runtime.block_on(obey(arguments));
    // A read of standard input cannot be taken back; nobody waits for it.
    runtime.shutdown_background();
    done.unwrap_or_else(|error| {
        complain(format_args!("{error:#}"));
        match error.downcast_ref::<Error>() {
            Some(Error::ExecutableNotFound(_)) if own_failure == OWN_FAILURE => NOT_FOUND.into(),
            _ => own_failure.into(),
        }
    })
}

async fn obey(Arguments { socket, address, command }: Arguments) -> anyhow::Result<ExitCode> {
    let client = Client::new(find(socket, address)?);
    match command {
        Command::Run(flags) => return run::run(&client, *flags).await,
        Command::Attach(flags) => return run::attach(&client, flags).await,
        Command::Stop { handles, kill } => {
            return each(&handles, async |handle| client.stop(handle, kill).await).await;
        }
        Command::Destroy { handles } => {
            return each(&handles, async |handle| client.destroy(handle).await).await;
        }
        Command::List { property, all } => {
            let mut filter: Properties = property.into_iter().collect();
            if all {
                filter.insert("garden.state".into(), "all".into());
            }
            let handles = client.list(&filter).await.map_err(explain)?;
            print(&handles.iter().map(|handle| format!("{handle}\n")).collect::<String>())?;
        }
        Command::Create(flags) => {
            let handle = client.create(&flags.into_spec()?).await.map_err(explain)?;
            print(&format!("{handle}\n"))?;
        }
        Command::Info { handle, json } => report::info(&client, &handle, json).await?,
        Command::Metrics { handles, json } => report::metrics(&client, handles, json).await?,
        Command::Capacity { json } => report::capacity(&client, json).await?,
        Command::StreamIn { handle, destination, user } => {
            if io::stdin().is_terminal() {
                bail!("give a tar archive on standard input, as in `tar c DIR | bloomery ctl …`");
            }
            let archive = tokio::io::stdin();
            client.stream_in(&handle, &user, &destination, archive).await.map_err(explain)?;
        }
        Command::StreamOut { handle, source, user } => {
            if io::stdout().is_terminal() {
                bail!("a tar archive is not for a terminal; redirect it or pipe it to `tar t`");
            }
            let mut archive = client.stream_out(&handle, &user, &source).await.map_err(explain)?;
            let mut output = tokio::io::stdout();
            tokio::io::copy(&mut archive, &mut output).await.context("the archive broke off")?;
            tokio::io::AsyncWriteExt::flush(&mut output).await.context("the archive broke off")?;
        }
        Command::Property(property) => obey_property(&client, property).await?,
        Command::NetIn { handle, ports: (host, container) } => {
            let ports = client.net_in(&handle, host, container).await.map_err(explain)?;
            print(&format!("{}:{}\n", ports.host_port, ports.container_port))?;
        }
        Command::NetOut { handle, rules } => match rules.as_slice() {
            [rule] => client.net_out(&handle, rule).await.map_err(explain)?,
            rules => client.bulk_net_out(&handle, rules).await.map_err(explain)?,
        },
        Command::GraceTime { handle, time } => {
            client.set_grace_time(&handle, time).await.map_err(explain)?;
        }
        Command::Ping => client.ping().await.map_err(explain)?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn obey_property(client: &Client, property: Property) -> anyhow::Result<()> {
    match property {
        Property::List { handle } => {
            let all = client.properties(&handle).await.map_err(explain)?;
            let line = |(key, value)| format!("{key}={value}\n");
            print(&all.into_iter().map(line).collect::<String>())
        }
        Property::Get { handle, key } => {
            let value = client.property(&handle, &key).await.map_err(explain)?;
            print(&format!("{value}\n"))
        }
        Property::Set { handle, key, value } => {
            client.set_property(&handle, &key, &value).await.map_err(explain)
        }
        Property::Remove { handle, key } => {
            client.remove_property(&handle, &key).await.map_err(explain)
        }
    }
}

/// The server that the flags, the environment or custom name.
fn find(socket: Option<PathBuf>, address: Option<SocketAddr>) -> anyhow::Result<Address> {
    match (socket, address, std::env::var("BLOOMERY_GARDEN")) {
        (Some(path), _, _) => Ok(Address::Unix(path)),
        (None, Some(address), _) => Ok(Address::Tcp(address)),
        (None, None, Ok(text)) if !text.is_empty() => {
            text.parse().with_context(|| "cannot use the environment variable BLOOMERY_GARDEN")
        }
        _ => Ok(Address::Unix(SOCKET.into())),
    }
}

/// Does something to every container, whatever becomes of the others.
async fn each(
    handles: &[String],
    act: impl AsyncFn(&str) -> Result<(), Error>,
) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for handle in handles {
        match act(handle).await {
            Ok(()) => {}
            // The others would fail in the same way.
            Err(error @ Error::Unreachable { .. }) => return Err(explain(error)),
            Err(error) => {
                complain(format_args!("{handle}: {:#}", explain(error)));
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

/// Writes a result. A reader who has had enough, as `head`, is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}

fn complain(text: impl Display) {
    // Without a standard error there is nobody to tell.
    let _ = writeln!(io::stderr(), "bloomery: {text}");
}

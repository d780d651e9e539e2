//! A small `cf` for machines without one: log in, push, look, scale, delete.
//!
//! It asks what the cf CLI asks (Cloud Controller's API v3, UAA, log-cache) and says what that says, so
//! that whoever knows one finds their way in the other. What it remembers is in a file of its own,
//! [`Session`], never in the cf CLI's.

#![forbid(unsafe_code)]

mod apps;
mod arguments;
mod client;
mod error;
mod files;
mod login;
mod logs;
mod manifest;
mod names;
mod push;
mod routes;
mod say;
mod session;
mod summary;
mod upload;

use std::path::PathBuf;
use std::process::ExitCode;

pub use arguments::{Api, Command, Login, Push, Scale, Target};
pub use error::Error;
pub use session::Session;

use crate::client::Client;

/// Carries out a command as a program does: with the user's session, and what went wrong after
/// `FAILED`.
pub fn execute(command: Command) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => session_file().and_then(|file| runtime.block_on(run(command, file))),
        Err(error) => Err(Error::said(error.to_string())),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("FAILED");
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Carries out a command with the session that is kept in `file`, and writes what it has to say to
/// standard output. Warnings go to standard error.
pub async fn run(command: Command, file: PathBuf) -> Result<(), Error> {
    let session = Session::load(&file)?;
    let mut client = Client::new(session, file)?;
    match command {
        Command::Api(flags) => login::api(&mut client, flags).await,
        Command::Login(flags) => login::login(&mut client, flags).await,
        Command::Target(flags) => login::target(&mut client, flags).await,
        Command::Push(flags) => push::push(&mut client, *flags).await,
        Command::Apps => apps::list(&mut client).await,
        Command::App { name } => apps::show(&mut client, &name).await,
        Command::Logs { name, recent } => logs::show(&mut client, &name, recent).await,
        Command::Scale(flags) => apps::scale(&mut client, flags).await,
        Command::Routes => routes::list(&mut client).await,
        Command::Delete { name, force, routes } => {
            apps::delete(&mut client, &name, force, routes).await
        }
    }
}

/// Where the session is kept: `$BLOOMERY_HOME/cf.json`, else `~/.bloomery/cf.json`.
pub fn session_file() -> Result<PathBuf, Error> {
    let named = std::env::var_os("BLOOMERY_HOME").map(PathBuf::from);
    let home = || std::env::home_dir().map(|home| home.join(".bloomery"));
    let dir = named.or_else(home).ok_or_else(|| Error::said("There is no home directory."))?;
    Ok(dir.join("cf.json"))
}

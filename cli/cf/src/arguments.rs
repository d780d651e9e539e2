//! The command line, with the cf CLI's names and letters.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Set or show the API endpoint.
    Api(Api),
    /// Log in, and target an org and a space.
    #[command(visible_alias = "l")]
    Login(Login),
    /// Set or show the org and space that commands are about.
    #[command(visible_alias = "t")]
    Target(Target),
    /// Make or change an app, stage it and start it.
    #[command(visible_alias = "p")]
    Push(Box<Push>),
    /// List the apps of the space.
    #[command(visible_alias = "a")]
    Apps,
    /// Show an app and its instances.
    App {
        /// Which.
        name: String,
    },
    /// Follow an app's log, or show the end of it.
    Logs {
        /// Which app.
        name: String,
        /// Only what there is.
        #[arg(long)]
        recent: bool,
    },
    /// Change the number and size of an app's instances.
    Scale(Scale),
    /// List the routes of the space.
    #[command(visible_alias = "r")]
    Routes,
    /// Delete an app.
    #[command(visible_alias = "d")]
    Delete {
        /// Which.
        name: String,
        /// Do not ask.
        #[arg(short)]
        force: bool,
        /// Delete its routes, too.
        #[arg(short)]
        routes: bool,
    },
}

/// Flags of `api`.
#[derive(Args, Debug)]
pub struct Api {
    /// `https://api.…`; without it the present one is shown.
    pub url: Option<String>,
    /// Take any certificate.
    #[arg(long)]
    pub skip_ssl_validation: bool,
}

/// Flags of `login`.
#[derive(Args, Debug)]
pub struct Login {
    /// API endpoint.
    #[arg(short)]
    pub api: Option<String>,
    /// Name of the user.
    #[arg(short)]
    pub user: Option<String>,
    /// Password. Other users of this machine may see it.
    #[arg(short)]
    pub password: Option<String>,
    /// Org to target.
    #[arg(short)]
    pub org: Option<String>,
    /// Space to target.
    #[arg(short)]
    pub space: Option<String>,
    /// Take any certificate.
    #[arg(long)]
    pub skip_ssl_validation: bool,
}

/// Flags of `target`.
#[derive(Args, Debug)]
pub struct Target {
    /// Org.
    #[arg(short)]
    pub org: Option<String>,
    /// Space.
    #[arg(short)]
    pub space: Option<String>,
}

/// Flags of `push`. What a manifest says as well, a flag says with more weight.
#[derive(Args, Debug, Default)]
pub struct Push {
    /// The app; not needed where a manifest names it.
    pub name: Option<String>,
    /// The manifest; `manifest.yml` here if there is one.
    #[arg(short = 'f', long = "manifest")]
    pub manifest: Option<PathBuf>,
    /// Read no manifest.
    #[arg(long)]
    pub no_manifest: bool,
    /// Directory or zip of the app's files; this directory if nothing says.
    #[arg(short, long)]
    pub path: Option<PathBuf>,
    /// A buildpack; may be given several times.
    #[arg(short, long = "buildpack")]
    pub buildpacks: Vec<String>,
    /// Memory of an instance: 64M, 1G.
    #[arg(short, long)]
    pub memory: Option<String>,
    /// Disk of an instance: 512M, 1G.
    #[arg(short = 'k', long = "disk")]
    pub disk: Option<String>,
    /// Number of instances.
    #[arg(short, long)]
    pub instances: Option<u32>,
    /// What starts the app; `null` for what staging finds out.
    #[arg(short = 'c', long = "start-command")]
    pub command: Option<String>,
    /// port, http or process.
    #[arg(short = 'u', long)]
    pub health_check_type: Option<String>,
    /// Path of the HTTP health check.
    #[arg(long)]
    pub endpoint: Option<String>,
    /// Seconds in which the app must become healthy.
    #[arg(short = 't', long = "app-start-timeout")]
    pub timeout: Option<u32>,
    /// Root file system.
    #[arg(short, long)]
    pub stack: Option<String>,
    /// Only up to the package; the app is stopped.
    #[arg(long)]
    pub no_start: bool,
    /// Map no route.
    #[arg(long)]
    pub no_route: bool,
    /// Map a route with a random host.
    #[arg(long)]
    pub random_route: bool,
}

/// Flags of `scale`.
#[derive(Args, Debug)]
pub struct Scale {
    /// Which app.
    pub name: String,
    /// Number of instances.
    #[arg(short, long)]
    pub instances: Option<u32>,
    /// Memory of an instance: 64M, 1G.
    #[arg(short, long)]
    pub memory: Option<String>,
    /// Disk of an instance: 512M, 1G.
    #[arg(short = 'k', long = "disk")]
    pub disk: Option<String>,
    /// Do not ask before the app is restarted.
    #[arg(short)]
    pub force: bool,
    /// Which process.
    #[arg(long, default_value = "web")]
    pub process: String,
}

//! Everything that the runtime must know to run a process or to stage a package, resolved.
//!
//! A recipe is plain data, made from the database and turned into Diego's messages by the pure
//! functions of [`crate::diego`].

use serde_json::{Map, Value};

/// Where an app lives, for names and tags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The app.
    pub app_guid: String,
    /// The app's name.
    pub app_name: String,
    /// Its space.
    pub space_guid: String,
    /// The space's name.
    pub space_name: String,
    /// Its org.
    pub org_guid: String,
    /// The org's name.
    pub org_name: String,
}

/// A file for the cell to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Download {
    /// Where from; may hold a name and a password.
    pub url: String,
    /// In hexadecimal.
    pub sha256: Option<String>,
}

/// How an instance is looked after. Times in seconds; `None` is the platform's default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// `port`, `http` or `process`.
    pub kind: String,
    /// Path, for `http`.
    pub endpoint: Option<String>,
    /// How long one look may take.
    pub invocation_timeout: Option<i64>,
    /// Between looks.
    pub interval: Option<i64>,
}

/// A route of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteRecipe {
    /// Host and path, without a scheme.
    pub url: String,
    /// Port in the container.
    pub port: u16,
    /// `http1` or `http2`.
    pub protocol: String,
    /// For traffic between containers.
    pub internal: bool,
    /// Options of the route.
    pub options: Map<String, Value>,
}

/// A process beside the app's own in each container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SidecarRecipe {
    /// Name.
    pub name: String,
    /// What it runs.
    pub command: String,
    /// Its part of the memory, in MiB.
    pub memory_mb: Option<i64>,
}

/// A process to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunRecipe {
    /// `<process guid>-<version>`: what the runtime knows it by.
    pub process_guid: String,
    /// The process.
    pub guid: String,
    /// `web`, `worker`, …
    pub kind: String,
    /// Where it belongs.
    pub place: Place,
    /// Name of the preloaded root file system.
    pub rootfs: String,
    /// Name of the stack.
    pub stack: String,
    /// What to run.
    pub command: String,
    /// As the builder gave it.
    pub execution_metadata: String,
    /// User in the container.
    pub user: String,
    /// The staged app.
    pub droplet: Download,
    /// Beside the app.
    pub sidecars: Vec<SidecarRecipe>,
    /// Names and values.
    pub environment: Vec<(String, String)>,
    /// How many.
    pub instances: u32,
    /// MiB of each.
    pub memory_mb: i64,
    /// MiB of each.
    pub disk_mb: i64,
    /// Bytes a second, -1 for no limit.
    pub log_rate: i64,
    /// Whether it is well.
    pub health: Check,
    /// Seconds to become well.
    pub start_timeout: i64,
    /// Whether it takes requests.
    pub readiness: Check,
    /// What leads to it.
    pub routes: Vec<RouteRecipe>,
    /// Ports in the container.
    pub ports: Vec<u16>,
    /// Rules of the security groups, as the API shows them.
    pub egress: Vec<Value>,
    /// Changes with everything above.
    pub annotation: String,
}

/// A buildpack to stage with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildpackRecipe {
    /// One that the platform holds.
    Admin {
        /// Its name for the builder.
        key: String,
        /// Its name for people.
        name: String,
        /// Its file.
        file: Download,
    },
    /// One that the builder fetches itself.
    Url(String),
}

/// A package to stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagingRecipe {
    /// Guid of the build, and of the task.
    pub build_guid: String,
    /// Where it belongs.
    pub place: Place,
    /// Name of the preloaded root file system.
    pub rootfs: String,
    /// Name of the stack.
    pub stack: String,
    /// The app's files, a zip.
    pub package: Download,
    /// What the last staging kept.
    pub cache: Option<Download>,
    /// In this order.
    pub buildpacks: Vec<BuildpackRecipe>,
    /// The user has chosen the buildpacks: do not ask them whether they fit.
    pub skip_detect: bool,
    /// Names and values.
    pub environment: Vec<(String, String)>,
    /// MiB.
    pub memory_mb: i64,
    /// MiB.
    pub disk_mb: i64,
    /// Bytes a second, -1 for no limit.
    pub log_rate: i64,
    /// The most that it may take, in seconds.
    pub timeout: u32,
    /// Open files.
    pub file_descriptors: u64,
    /// Rules of the security groups, as the API shows them.
    pub egress: Vec<Value>,
    /// Where the droplet goes, by POST.
    pub droplet_upload: String,
    /// Where what the buildpacks keep goes, by POST.
    pub cache_upload: String,
    /// Who is told the end.
    pub completion: String,
}

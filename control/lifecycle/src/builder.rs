//! `builder`: turns an app's files into a droplet.
//!
//! ```text
//! buildpacks in order ──detect──> the first that knows the app   (or all, where the app names them)
//!        └─supply every one but the last─> deps/0, deps/1 …
//!        └─finalize (or compile) the last─> deps/N, profile.d
//! processes: launch.yml of each dep, else release's default_process_types; the Procfile wins
//! droplet.tgz: ./app ./deps ./profile.d ./logs ./tmp ./staging_info.yml      result.json
//! ```
//!
//! Buildpacks' output is the staging log, as it comes. The exit status tells the Cloud Controller
//! what failed (see [`Failure`]).

mod buildpack;
mod droplet;
mod options;
mod processes;
mod result;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use buildpack::Buildpack;
use options::Options;
use processes::Processes;
use result::{BuildpackEntry, StagingResult};

/// Why there is no droplet. The exit statuses are the original's, which the Cloud Controller reads.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0}")]
    Options(#[from] crate::flags::FlagError),
    #[error("None of the buildpacks detected a compatible application\n{seen}")]
    NotDetected { seen: String },
    #[error("Failed to run supply script of buildpack {buildpack}: {cause}")]
    Supply { buildpack: String, cause: String },
    #[error("Failed to run all supply scripts: buildpack {buildpack}: {cause}")]
    Finalize { buildpack: String, cause: String },
    #[error("Failed to compile droplet: buildpack {buildpack}: {cause}")]
    Compile { buildpack: String, cause: String },
    #[error("Failed to build droplet release: buildpack {buildpack}: {cause}")]
    Release { buildpack: String, cause: String },
    #[error("{doing} {path}: {cause}")]
    File { doing: &'static str, path: PathBuf, cause: std::io::Error },
    #[error("{0}")]
    Other(String),
}

impl Failure {
    /// diego.md 13.1. A failed finalize is reported as a failed compile, as the original does.
    fn exit_status(&self) -> u8 {
        match self {
            Self::NotDetected { .. } => 222,
            Self::Compile { .. } | Self::Finalize { .. } => 223,
            Self::Release { .. } => 224,
            Self::Supply { .. } => 225,
            Self::Options(_) | Self::File { .. } | Self::Other(_) => 1,
        }
    }

    fn file<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> Self + 'a {
        move |cause| Self::File { doing, path: path.to_owned(), cause }
    }
}

pub(crate) fn main(arguments: &[OsString]) -> ExitCode {
    match Options::parse(arguments).map_err(Failure::from).and_then(|options| build(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            failure.exit_status().into()
        }
    }
}

fn build(options: &Options) -> Result<(), Failure> {
    let contents = Contents::make(options)?;
    let order: Vec<Buildpack> =
        options.order.iter().map(|key| Buildpack::find(options, key)).collect::<Result<_, _>>()?;
    let (suppliers, last, detected) = choose(&order, options)?;

    let count = suppliers.len() + 1;
    for (index, buildpack) in suppliers.iter().enumerate() {
        buildpack.supply(options, &contents.dep(index, count)?)?;
    }
    buildpack::keep_caches(options, suppliers)?;
    last.finalize(options, &contents.dep(suppliers.len(), count)?, &contents.profiles)?;

    let mut processes = Processes::of_deps(&contents.deps, count)?;
    if processes.is_empty() {
        processes = last.release(options)?;
    }
    processes.take_procfile(&options.build_dir)?;
    if !processes.has_web() {
        println!("No start command specified by buildpack or via Procfile.");
        println!("App will not start unless a command is provided at runtime.");
    }

    let entries: Vec<BuildpackEntry> = suppliers
        .iter()
        .chain([last])
        .enumerate()
        .map(|(index, buildpack)| {
            BuildpackEntry::read(&buildpack.key, &contents.deps, index, count)
        })
        .collect();
    let staged = StagingResult::new(&last.key, &detected, entries, &processes);
    // Written before the droplet, so that a failed upload still tells what was detected.
    staged.write(&options.output_metadata)?;
    droplet::write(&options.output_droplet, &options.build_dir, &contents, &staged.staging_info())?;
    droplet::write_cache(&options.output_cache, &options.cache_dir)
}

/// The buildpacks that supply, the one that finishes, and what detection said.
fn choose<'a>(
    order: &'a [Buildpack],
    options: &Options,
) -> Result<(&'a [Buildpack], &'a Buildpack, String), Failure> {
    if options.skip_detect {
        let (last, suppliers) = order
            .split_last()
            .ok_or_else(|| Failure::Other("-buildpackOrder names no buildpack".into()))?;
        return Ok((suppliers, last, String::new()));
    }
    for buildpack in order {
        if let Some(said) = buildpack.detect(options) {
            return Ok((&[], buildpack, said));
        }
    }
    Err(Failure::NotDetected { seen: seen(&options.build_dir) })
}

/// What the directory holds: most often the wrong directory was pushed, and the cure is in here.
fn seen(directory: &Path) -> String {
    const LISTED: usize = 10;
    let mut names: Vec<(String, bool)> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| {
            let directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            (entry.file_name().to_string_lossy().into_owned(), directory)
        })
        .collect();
    names.sort();
    if names.is_empty() {
        return "The pushed directory is empty.".into();
    }
    let mut text = String::from("The pushed directory holds:");
    for (name, is_directory) in names.iter().take(LISTED) {
        text += &format!(" {name}{}", if *is_directory { "/" } else { "" });
    }
    if names.len() > LISTED {
        text += &format!(" and {} more", names.len() - LISTED);
    }
    if let [(only, true)] = names.as_slice() {
        text += &format!("\nDid you mean to push {only}?");
    }
    text
}

/// The directories that become the droplet beside the app's own.
#[derive(Debug)]
struct Contents {
    _directory: tempfile::TempDir,
    deps: PathBuf,
    profiles: PathBuf,
}

impl Contents {
    fn make(options: &Options) -> Result<Self, Failure> {
        let directory = tempfile::Builder::new()
            .prefix("contents")
            .tempdir()
            .map_err(Failure::file("making a directory below", &std::env::temp_dir()))?;
        let deps = directory.path().join("deps");
        let profiles = directory.path().join("profile.d");
        for path in [&deps, &profiles, &options.cache_dir, &options.build_dir] {
            fs::create_dir_all(path).map_err(Failure::file("making the directory", path))?;
        }
        Ok(Self { _directory: directory, deps, profiles })
    }

    /// The directory of dep `index` of `count`, made.
    fn dep(&self, index: usize, count: usize) -> Result<Dep<'_>, Failure> {
        let name = dep_name(index, count);
        let path = self.deps.join(&name);
        fs::create_dir_all(&path).map_err(Failure::file("making the directory", &path))?;
        Ok(Dep { directory: &self.deps, index: name })
    }
}

/// Where a buildpack puts what it supplies: `DEPS INDEX` of its scripts' arguments.
#[derive(Debug)]
struct Dep<'a> {
    directory: &'a Path,
    index: String,
}

/// Indices are as wide as the count of buildpacks, so that names sort as numbers.
fn dep_name(index: usize, count: usize) -> String {
    let width = count.to_string().len();
    format!("{index:0width$}")
}

#[cfg(test)]
mod tests {
    use super::{dep_name, seen};

    #[test]
    fn indices_sort_as_numbers() {
        assert_eq!(dep_name(0, 1), "0");
        assert_eq!(dep_name(3, 12), "03");
        assert_eq!(dep_name(11, 12), "11");
    }

    #[test]
    fn a_lone_directory_is_named_as_the_likely_mistake() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(seen(directory.path()), "The pushed directory is empty.");
        std::fs::create_dir(directory.path().join("app")).unwrap();
        assert_eq!(
            seen(directory.path()),
            "The pushed directory holds: app/\nDid you mean to push app?"
        );
        std::fs::write(directory.path().join("x.txt"), "").unwrap();
        assert_eq!(seen(directory.path()), "The pushed directory holds: app/ x.txt");
    }
}

//! One buildpack: where it lies, and its scripts.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use xxhash_rust::xxh64::xxh64;

use super::options::Options;
use super::processes::Processes;
use super::{Dep, Failure};

/// An installed buildpack.
#[derive(Debug)]
pub(crate) struct Buildpack {
    pub(crate) key: String,
    path: PathBuf,
}

/// The name of a buildpack's directory: 16 hex digits of xxHash64 of its key, as the Cloud
/// Controller computes it.
pub(crate) fn directory_name(key: &str) -> String {
    format!("{:016x}", xxh64(key.as_bytes(), 0))
}

impl Buildpack {
    pub(crate) fn find(options: &Options, key: &str) -> Result<Self, Failure> {
        if key.contains("://") {
            return Err(Failure::Other(format!(
                "buildpack {key}: buildpacks from a URL cannot be fetched by this builder; upload \
                 it with `cf create-buildpack` and name it"
            )));
        }
        let path = options.buildpacks_dir.join(directory_name(key));
        if !path.is_dir() {
            return Err(Failure::Other(format!(
                "buildpack {key} was not downloaded: there is no {}",
                path.display()
            )));
        }
        Ok(Self { key: key.to_owned(), path: root_of(&path) })
    }

    fn script(&self, name: &str) -> PathBuf {
        self.path.join("bin").join(name)
    }

    fn has(&self, name: &str) -> bool {
        self.script(name).is_file()
    }

    /// What it calls the app, if it knows it. A script that cannot be run knows nothing.
    pub(crate) fn detect(&self, options: &Options) -> Option<String> {
        let output = Command::new(self.script("detect"))
            .arg(&options.build_dir)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output();
        match output {
            Ok(output) if output.status.success() => {
                Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
            }
            Ok(_) => None,
            Err(error) => {
                eprintln!("buildpack {}: bin/detect cannot be run: {error}", self.key);
                None
            }
        }
    }

    /// Puts what it offers into its dep. A buildpack without the script can only be the last one.
    pub(crate) fn supply(&self, options: &Options, dep: &Dep<'_>) -> Result<(), Failure> {
        let failed = |cause| Failure::Supply { buildpack: self.key.clone(), cause };
        if !self.has("supply") {
            return Err(failed(
                "it has no bin/supply, so it can only be the last buildpack".into(),
            ));
        }
        let cache = made(options.cache_dir.join(directory_name(&self.key)))?;
        let script = self.script("supply");
        run(Command::new(script)
            .arg(&options.build_dir)
            .arg(cache)
            .arg(dep.directory)
            .arg(&dep.index))
        .map_err(failed)
    }

    /// Finishes the app: with `finalize`, or in one go with `compile` where it is of the older kind.
    pub(crate) fn finalize(
        &self,
        options: &Options,
        dep: &Dep<'_>,
        profiles: &Path,
    ) -> Result<(), Failure> {
        let cache = made(options.cache_dir.join("final"))?;
        if !self.has("finalize") {
            let script = self.script("compile");
            return run(Command::new(script).arg(&options.build_dir).arg(cache))
                .map_err(|cause| Failure::Compile { buildpack: self.key.clone(), cause });
        }
        let arguments = |script: &str| {
            let mut command = Command::new(self.script(script));
            command.arg(&options.build_dir).arg(&cache).arg(dep.directory).arg(&dep.index);
            command
        };
        if self.has("supply") {
            run(&mut arguments("supply"))
                .map_err(|cause| Failure::Supply { buildpack: self.key.clone(), cause })?;
        }
        run(arguments("finalize").arg(profiles))
            .map_err(|cause| Failure::Finalize { buildpack: self.key.clone(), cause })
    }

    /// The processes of its `release` script, none where there is no script.
    pub(crate) fn release(&self, options: &Options) -> Result<Processes, Failure> {
        let failed = |cause| Failure::Release { buildpack: self.key.clone(), cause };
        if !self.has("release") {
            return Ok(Processes::default());
        }
        let output = Command::new(self.script("release"))
            .arg(&options.build_dir)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            return Err(failed(output.status.to_string()));
        }
        Processes::of_release(&output.stdout).map_err(failed)
    }
}

/// Drops the caches of buildpacks that are not used any more.
pub(crate) fn keep_caches(options: &Options, suppliers: &[Buildpack]) -> Result<(), Failure> {
    let kept: Vec<String> =
        suppliers.iter().map(|buildpack| directory_name(&buildpack.key)).collect();
    let entries = fs::read_dir(&options.cache_dir)
        .map_err(Failure::file("reading the directory", &options.cache_dir))?;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == "final" || kept.contains(&name) {
            continue;
        }
        let path = entry.path();
        let removed = match entry.file_type() {
            Ok(kind) if kind.is_dir() => fs::remove_dir_all(&path),
            _ => fs::remove_file(&path),
        };
        removed.map_err(Failure::file("removing the old cache", &path))?;
    }
    Ok(())
}

/// An archive may hold the buildpack in one directory of its own.
fn root_of(path: &Path) -> PathBuf {
    let mut children = fs::read_dir(path).into_iter().flatten().flatten();
    match (children.next(), children.next()) {
        (Some(only), None) if only.path().join("bin").is_dir() => only.path(),
        _ => path.to_owned(),
    }
}

fn made(path: PathBuf) -> Result<PathBuf, Failure> {
    fs::create_dir_all(&path).map_err(Failure::file("making the directory", &path))?;
    Ok(path)
}

/// Runs a script whose output is the staging log.
fn run(command: &mut Command) -> Result<(), String> {
    // What this program has printed stands before what the script prints.
    let _ = std::io::stdout().flush();
    match command.stdin(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(status.to_string()),
        Err(error) => Err(format!("{}: {error}", Path::new(command.get_program()).display())),
    }
}

#[cfg(test)]
mod tests {
    use super::directory_name;

    /// The value is xxHash64's published one for the empty input with seed 0.
    #[test]
    fn directories_are_named_by_xxhash64() {
        assert_eq!(directory_name(""), "ef46db3751d8e999");
        assert_eq!(directory_name("a"), "d24ec4f1a98c6e5b");
    }
}

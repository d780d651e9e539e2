//! Checks by the `healthcheck` program in the container (diego.md 10.8): one process for each check,
//! which lives until there is something to tell.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bbs_models::Check;
use bloomery_garden::client::{Error, ProcessIo, RunningProcess};
use garden_api::{ProcessSpec, ResourceLimits};
use tokio::io::AsyncReadExt as _;

use super::probe::Target;
use super::{Health, millis};
use crate::absence::{self, Absence};
use crate::fetch;

/// The directory in which containers find the program.
pub(crate) const INSIDE: &str = "/etc/cf-assets/healthcheck";
/// Its name there.
const NAME: &str = "healthcheck";

/// Where a cell has the program from.
#[derive(Clone, Debug)]
pub enum Helper {
    /// A directory that has it, as `healthcheck`.
    Directory(PathBuf),
    /// A static program that is it when it is called so.
    Program(PathBuf),
}

impl Helper {
    /// The directory that is mounted into containers: the helper's own, or `directory`, into which
    /// the program is copied.
    pub(crate) fn put(&self, directory: PathBuf) -> Result<PathBuf, fetch::Error> {
        let program = match self {
            Self::Directory(own) => return Ok(own.clone()),
            Self::Program(program) => program,
        };
        let copy = |directory: &Path| {
            fs::create_dir_all(directory)?;
            fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
            // Helpers that run keep the file that they were started from.
            let new = directory.join("new");
            fs::copy(program, &new)?;
            fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
            fs::rename(&new, directory.join(NAME))
        };
        copy(&directory)
            .map_err(fetch::Error::file("putting the health check into", &directory))?;
        Ok(directory)
    }
}

/// A check: its kind, and its index among those of the kind.
type Of = (&'static str, usize);

/// The helper of each check of a container that was started last.
#[derive(Debug, Default)]
pub(crate) struct Helpers(Mutex<HashMap<Of, Last>>);

#[derive(Clone, Copy, Debug)]
struct Last {
    /// Helpers of a check are numbered, since no process has the id of an earlier one.
    number: u32,
    /// It has told nothing yet, so it is followed before another one is started.
    open: bool,
}

impl Helpers {
    fn last(&self) -> MutexGuard<'_, HashMap<Of, Last>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Health<'_> {
    /// Waits for a helper to tell something; its last words are the detail.
    pub(super) async fn helper(
        &self,
        what: &'static str,
        index: usize,
        check: &Check,
        mode: &[String],
    ) -> Result<(), String> {
        let probe = self.probe(check);
        let mut args =
            vec![format!("-port={}", probe.port), format!("-timeout={}ms", millis(probe.timeout))];
        if let Target::Http { path } = &probe.target {
            args.push(format!("-uri={path}"));
        }
        args.extend_from_slice(mode);
        let spec = ProcessSpec {
            path: format!("{INSIDE}/{NAME}"),
            args,
            user: "root".into(),
            rlimits: ResourceLimits { nofile: Some(1024), ..ResourceLimits::default() },
            ..ProcessSpec::default()
        };
        let told = async || {
            let process = self.begin((what, index), &spec).await?;
            let mut said = Vec::new();
            if let Some(stderr) = process.take_stderr() {
                const MOST: u64 = 4096;
                let _ = stderr.take(MOST).read_to_end(&mut said).await;
            }
            let status = process.wait().await?;
            Ok::<_, Error>((status, said))
        };
        // That Garden is away says nothing of the app.
        let told = Absence::new(&self.steps.handle, absence::OF_CALLS).answer(told).await;
        if let Some(last) = self.helpers.last().get_mut(&(what, index)) {
            last.open = false;
        }
        match told {
            Ok((0, _)) => Ok(()),
            Ok((_, said)) => Err(String::from_utf8_lossy(&said).trim().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The helper of a check that has told nothing yet, whichever executor has started it; else a new
    /// one.
    async fn begin(&self, of: Of, spec: &ProcessSpec) -> Result<RunningProcess, Error> {
        let (garden, handle) = (&self.steps.garden, &self.steps.handle);
        let (what, index) = of;
        let id = |number: u32| format!("{handle}-{what}-healthcheck-{index}-{number}");
        let attach =
            async |number| match garden.attach(handle, &id(number), ProcessIo::outputs()).await {
                Err(Error::ProcessNotFound(_)) => Ok(None),
                attached => attached.map(Some),
            };
        let known = self.helpers.last().get(&of).copied();
        let (mut number, mut found) = (0, None);
        match known {
            Some(Last { number: last, open: false }) => number = last + 1,
            Some(Last { number: last, open: true }) => {
                (number, found) = (last, attach(last).await?);
            }
            None if self.steps.resumed => {
                let mut next = 0;
                while let Some(process) = attach(next).await? {
                    (number, found) = (next, Some(process));
                    next += 1;
                }
            }
            None => {}
        }
        self.helpers.last().insert(of, Last { number, open: true });
        match found {
            Some(process) => Ok(process),
            None => {
                let spec = ProcessSpec { id: id(number), ..spec.clone() };
                garden.run(handle, &spec, ProcessIo::outputs()).await
            }
        }
    }
}

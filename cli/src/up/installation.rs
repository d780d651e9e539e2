//! What was settled when the platform was first started.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use super::place::Place;
use super::{Flags, free_port, stack};

const FILE: &str = "installation.json";
/// Numbers that later versions can tell apart.
const VERSION: u32 = 1;
/// Unless somebody names another one.
const DOMAIN: &str = "bloomery.localhost";
/// Of the machine's memory.
const OFFERED: (i64, i64) = (3, 4);

/// Domain, port and what else stays the same from one start to the next.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Installation {
    version: u32,
    pub domain: String,
    pub port: u16,
    /// MiB for apps.
    pub memory_mb: i64,
    /// Where the root file system is.
    pub stack: PathBuf,
    /// Flags of Garden beside those that are always given.
    pub garden: Vec<String>,
}

impl Installation {
    /// Reads what is there.
    pub fn read(place: &Place) -> anyhow::Result<Self> {
        let path = place.data().join(FILE);
        let text = fs::read(&path).with_context(|| {
            format!("cannot read {}: is there an installation?", path.display())
        })?;
        let installation: Self = serde_json::from_slice(&text)
            .with_context(|| format!("cannot understand {}", path.display()))?;
        anyhow::ensure!(
            installation.version <= VERSION,
            "{} is of a newer version ({}, this one knows {VERSION})",
            path.display(),
            installation.version
        );
        Ok(installation)
    }

    /// Reads what is there, or settles it; flags change it.
    pub fn settle(place: &Place, flags: &Flags) -> anyhow::Result<Self> {
        let path = place.data().join(FILE);
        let before = if path.exists() { Some(Self::read(place)?) } else { None };
        if let (Some(old), Some(domain)) = (&before, &flags.domain)
            && old.domain != *domain
        {
            bail!(
                "this installation's domain is {}, which apps have in their routes: --domain {domain} \
                 is for another one, after `bloomery destroy` or with other --data and --run",
                old.domain
            );
        }
        let port = match (flags.port, &before) {
            (Some(port), _) => free_port(Some(port))?,
            (None, Some(before)) => free_port(Some(before.port)).with_context(|| {
                format!("port {} is this installation's; another one with --port", before.port)
            })?,
            (None, None) => free_port(None)?,
        };
        let garden = match &before {
            Some(before) if flags.garden.is_empty() => before.garden.clone(),
            _ => flags.garden.clone(),
        };
        let installation = Self {
            version: VERSION,
            domain: match (&before, &flags.domain) {
                (Some(old), _) => old.domain.clone(),
                (None, Some(domain)) => domain.clone(),
                (None, None) => DOMAIN.into(),
            },
            port,
            memory_mb: match (flags.memory, &before) {
                (Some(mib), _) => mib,
                (None, Some(before)) => before.memory_mb,
                (None, None) => machine_mb()? * OFFERED.0 / OFFERED.1,
            },
            stack: match (&flags.stack, &before) {
                (Some(path), _) => fs::canonicalize(path)
                    .with_context(|| format!("cannot find the stack {}", path.display()))?,
                (None, Some(before)) if before.stack.exists() => before.stack.clone(),
                (None, _) => stack::ensure(place.data())?,
            },
            garden,
        };
        let new = path.with_extension("new");
        fs::write(&new, serde_json::to_vec_pretty(&installation)?)
            .and_then(|()| fs::rename(&new, &path))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(installation)
    }

    /// Flags that want something else than what was settled, and what that is.
    pub fn contrary(&self, flags: &Flags) -> Vec<String> {
        let show = |path: &Path| path.display().to_string();
        let found = |path: &PathBuf| fs::canonicalize(path).unwrap_or_else(|_| path.clone());
        let garden = (!flags.garden.is_empty()).then(|| flags.garden.join(" "));
        let all = [
            ("port", flags.port.map(|port| port.to_string()), self.port.to_string()),
            ("domain", flags.domain.clone(), self.domain.clone()),
            ("memory", flags.memory.map(|mib| mib.to_string()), self.memory_mb.to_string()),
            ("stack", flags.stack.as_ref().map(|path| show(&found(path))), show(&self.stack)),
            ("garden", garden, self.garden.join(" ")),
        ];
        let contrary = all.into_iter().filter_map(|(name, wanted, settled)| {
            let wanted = wanted.filter(|wanted| *wanted != settled)?;
            Some(format!("--{name} {wanted} (it is {settled})"))
        });
        contrary.collect()
    }

    /// An address for clients.
    pub fn url(&self, host: &str) -> String {
        format!("http://{}", platform::authority(host, &self.domain, self.port))
    }

    /// Domain and port of apps.
    pub fn apps_authority(&self) -> String {
        platform::authority("apps", &self.domain, self.port)
    }

    /// What the platform's process is started with.
    pub fn platform(&self, place: &Place) -> platform::Config {
        platform::Config {
            data: place.platform_data(),
            run: place.platform_run(),
            domain: self.domain.clone(),
            apps_domain: format!("apps.{}", self.domain),
            port: self.port,
            garden: place.garden_socket().to_string_lossy().into_owned(),
            lifecycle: "/proc/self/exe".into(),
            stack: platform::Stack {
                name: stack::NAME.into(),
                description: stack::DESCRIPTION.into(),
                rootfs: self.stack.to_string_lossy().into_owned(),
            },
            memory_mb: Some(self.memory_mb),
            disk_mb: None,
        }
    }
}

/// MiB of memory.
fn machine_mb() -> anyhow::Result<i64> {
    let text = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let kib: i64 = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok())
        .context("/proc/meminfo has no MemTotal")?;
    Ok(kib / 1024)
}

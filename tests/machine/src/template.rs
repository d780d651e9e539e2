//! Machines that have booted, as files: where clones begin.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use machine_agent::wire::Command;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::host::call;
use crate::kernel::Kernel;
use crate::link::Link;
use crate::qemu::{NO_NETWORK, Qemu, Role, arguments, version};
use crate::{cache, image};

/// A cold boot takes three seconds on an idle host and was seen to take fifteen.
const BOOT_PATIENCE: Duration = Duration::from_secs(240);
/// Sparse, and what a clone writes lies in a file of its own.
const DISK_SIZE: u64 = 1 << 30;

/// A template that stays while this value lives.
#[derive(Debug)]
pub struct Template {
    pub directory: PathBuf,
    /// Locked shared: who builds the next template removes only those that nobody uses.
    _used: File,
}

impl Template {
    /// This process's template of a kernel, built if there is none for what it is made of.
    pub fn of(kernel: Kernel) -> anyhow::Result<Arc<Self>> {
        static FOUND: Mutex<BTreeMap<String, Arc<Template>>> = Mutex::new(BTreeMap::new());
        let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(template) = found.get(&kernel.to_string()) {
            return Ok(template.clone());
        }
        let template = Self::find_or_build(kernel)
            .with_context(|| format!("no machine with kernel {kernel} to clone"))?;
        Ok(found.entry(kernel.to_string()).or_insert(Arc::new(template)).clone())
    }

    fn find_or_build(kernel: Kernel) -> anyhow::Result<Self> {
        let files = kernel.files()?;
        let image = image::build(&files)?;
        let kernel_image = fs::read(&files.image)?;
        let templates = cache::directory("machine/templates")?;
        let directory = templates.join(format!("{kernel}-{}", key(&kernel_image, &image)?));
        let lock = cache::directory("machine")?.join(format!("template-{kernel}.lock"));
        let _lock = cache::lock(&lock)?;
        if !directory.exists() {
            remove_unused(&templates, kernel)?;
            let partial = tempfile::Builder::new()
                .prefix(&format!("{kernel}-partial-"))
                .tempdir_in(&templates)?;
            fs::write(partial.path().join("kernel"), &kernel_image)?;
            fs::write(partial.path().join("image"), &image)?;
            eprintln!("machine: booting kernel {kernel} once, to clone it from now on");
            build(partial.path()).map_err(|err| {
                let read = |name| fs::read_to_string(partial.path().join(name)).unwrap_or_default();
                anyhow!("{err:#}\n{}\n{}", read("qemu.log"), read("console.log"))
            })?;
            cache::keep(partial.path(), &directory)?;
        }
        let used = File::open(directory.join("ram"))?;
        used.lock_shared()?;
        Ok(Self { directory, _used: used })
    }
}

/// A template depends on every byte that it was booted from.
fn key(kernel: &[u8], image: &[u8]) -> anyhow::Result<String> {
    let mut hash = Sha256::new();
    hash.update(kernel);
    hash.update(image);
    hash.update(version()?);
    for argument in arguments(Role::Template, NO_NETWORK) {
        hash.update(argument);
        hash.update([0]);
    }
    Ok(hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

/// Removes this kernel's other templates, and what a killed build left.
fn remove_unused(templates: &Path, kernel: Kernel) -> anyhow::Result<()> {
    for entry in fs::read_dir(templates)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(&format!("{kernel}-")) {
            continue;
        }
        let is_unused = match File::open(entry.path().join("ram")) {
            Ok(ram) => ram.try_lock().is_ok(),
            Err(_) => true,
        };
        if is_unused {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Boots in a directory that has `kernel` and `image`, and leaves `ram`, `state` and `disk` there.
fn build(directory: &Path) -> anyhow::Result<()> {
    let disk = File::create(directory.join("disk"))?;
    disk.set_len(DISK_SIZE)?;
    call("mkfs.ext4", ["-q", "-F", "-m", "0", "disk"], directory)
        .context("machines have an ext4 disk: apt-get install e2fsprogs")?;
    let mut qemu = Qemu::start(directory, &arguments(Role::Template, NO_NETWORK))?;
    let mut control = qemu.control(directory)?;
    let link = Link::new(qemu.connect(&directory.join("agent"))?)?;
    let deadline = Instant::now() + BOOT_PATIENCE;
    while !link.wait_ready(Duration::from_millis(200)) {
        qemu.check()?;
        if Instant::now() > deadline {
            return Err(anyhow!("it has not booted within {BOOT_PATIENCE:?}"));
        }
    }
    // What the page cache holds would be in every clone's memory.
    let flush = Command::new(&["sh", "-c", "sync; echo 3 >/proc/sys/vm/drop_caches"]);
    let flushed = link.execute(&flush)?.outcome(BOOT_PATIENCE)?;
    ensure!(flushed.status == 0, "cannot drop caches: {flushed:?}");
    drop(link);
    control.call("stop", json!({}))?;
    let shared = json!([{"capability": "x-ignore-shared", "state": true}]);
    control.call("migrate-set-capabilities", json!({"capabilities": shared}))?;
    control.call("migrate-set-parameters", json!({"max-bandwidth": 10_000_000_000_u64}))?;
    control.call("migrate", json!({"uri": "exec:cat >state"}))?;
    control.wait_for("query-migrate", &["completed"])?;
    control.call("quit", json!({}))?;
    Ok(())
}

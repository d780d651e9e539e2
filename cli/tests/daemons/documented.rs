//! The example of `docs/daemons.md`, with its own commands and files. What differs is its directory, and
//! that of `sudo` there is one that gives Garden a name and an address of the test's.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::rig::{BLOOMERY, GARDEN, image, succeed, tag};
use crate::user::User;

const DOCUMENT: &str = include_str!("../../../docs/daemons.md");
/// Where the document has everything.
const PLACE: &str = "/tmp/daemons";

/// What the app serves.
pub const PAGE: &str = "hello\n";

/// The document's daemons, all of them.
pub struct Example {
    directory: tempfile::TempDir,
    tag: String,
    shell: Child,
    pub user: User,
}

impl Example {
    /// Has a shell start them, on the network of this thread.
    pub fn start(number: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let place = |name: &str| directory.path().join(name);
        let tag = tag(number);
        let here = |text: &str| text.replace(PLACE, directory.path().to_str().unwrap());
        for file in blocks("```yaml\n") {
            let name = file.lines().next().and_then(|line| line.strip_prefix("# "));
            let name = name.unwrap_or_else(|| panic!("a file has a name: {file}"));
            fs::write(place(name), here(file)).unwrap();
        }
        for name in ["app", "programs", "stack"] {
            fs::create_dir(place(name)).unwrap();
        }
        fs::write(place("app/index.html"), PAGE).unwrap();
        // One that is smaller than the document's.
        image(&place("image"));
        let mut tar = Command::new("tar");
        succeed(
            tar.arg("-C")
                .arg(place("image"))
                .arg("-cf")
                .arg(place("stack/base.tar"))
                .arg(".")
                .output()
                .unwrap(),
        );
        symlink(BLOOMERY, place("programs/bloomery")).unwrap();
        let sudo = format!(
            "#!/bin/sh\nulimit -n 20000\n[ $2 = garden ] || exec \"$@\"\n\
             exec \"$@\" --tag {tag} --keeper-dir {} --external-ip 127.0.0.1\n",
            place("keeper").display()
        );
        fs::write(place("programs/sudo"), sudo).unwrap();
        fs::set_permissions(place("programs/sudo"), Permissions::from_mode(0o755)).unwrap();

        let [commands] = blocks("```\n")[..] else { panic!("there is one block of commands") };
        // It waits for all of them, also while it is told to end.
        let script = format!("{}\ntrap : TERM\nuntil wait; do :; done\n", here(commands));
        let log = fs::File::create(place("log")).unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let shell = Command::new("bash")
            .args(["-c", &script])
            .env("PATH", format!("{}:{path}:/usr/sbin", place("programs").display()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap();
        let user = User {
            api: "http://api.bloomery.localhost:8081",
            apps: "apps.bloomery.localhost",
            password: "secret",
            buildpack: "staticfile_buildpack",
            home: directory.path().to_owned(),
            files: place("app"),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
        };
        Self { directory, tag, shell, user }
    }

    fn place(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let log = fs::read_to_string(self.place("log")).unwrap_or_default();
        let group = i32::try_from(self.shell.id()).ok().and_then(Pid::from_raw);
        let told = group.map(|group| kill_process_group(group, Signal::TERM));
        let ended = self.shell.wait();
        let mut cleanup = Command::new(BLOOMERY);
        cleanup.args(["garden", "cleanup", "--bind-ip", "127.0.0.1", "--tag", &self.tag]);
        cleanup.args(["--bind-port", &GARDEN.to_string()]);
        for (flag, place) in
            [("--depot", "depot"), ("--keeper-dir", "keeper"), ("--store", "store")]
        {
            cleanup.arg(flag).arg(self.place(place));
        }
        let cleaned = cleanup.output().unwrap();
        if std::thread::panicking() {
            eprintln!("{log}\n{told:?} {ended:?} {cleaned:?}");
        } else {
            succeed(cleaned);
        }
    }
}

/// The contents of the example's blocks that begin so.
fn blocks(begin: &str) -> Vec<&'static str> {
    let (_, example) = DOCUMENT.split_once("\n## An example\n").unwrap();
    let (example, _) = example.split_once("\n## ").unwrap();
    let mut blocks = Vec::new();
    let mut rest = example;
    while let Some((_, after)) = rest.split_once("\n```") {
        let (block, after) = after.split_once("\n```\n").unwrap();
        let (kind, content) = block.split_once('\n').unwrap();
        if begin == format!("```{kind}\n") {
            blocks.push(content);
        }
        rest = after;
    }
    blocks
}

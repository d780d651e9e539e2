//! The smallest useful root file system: one static busybox and the files that programs look for.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::executable::is_static;

/// Where distributions keep a static busybox, in the order of preference.
const PLACES: [&str; 5] = [
    "/bin/busybox",
    "/usr/bin/busybox",
    "/usr/sbin/busybox",
    "/sbin/busybox",
    "/usr/lib/initcpio/busybox",
];

const DIRECTORIES: [&str; 9] =
    ["bin", "dev", "etc", "home/vcap/app", "proc", "root", "sys", "tmp", "var"];

/// The user that applications run as (cflinuxfs).
const VCAP: u32 = 2000;

/// Finds a busybox that needs no library.
pub fn find() -> io::Result<PathBuf> {
    PLACES.iter().map(PathBuf::from).find(|path| is_static(path).unwrap_or(false)).ok_or_else(
        || {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!(
                    "no static busybox in {}: install busybox-static (Debian) or busybox",
                    PLACES.join(", ")
                ),
            )
        },
    )
}

/// Makes the root file system in `root`, which must not exist; needs to be root. It appears whole
/// or not at all.
pub fn build(root: &Path, busybox: &Path) -> io::Result<()> {
    let unfinished = root.with_extension(format!("new-{}", std::process::id()));
    let built = fill(&unfinished, busybox).and_then(|()| fs::rename(&unfinished, root));
    if built.is_err() {
        let _ = fs::remove_dir_all(&unfinished);
    }
    built
}

fn fill(root: &Path, busybox: &Path) -> io::Result<()> {
    for directory in DIRECTORIES {
        fs::create_dir_all(root.join(directory))?;
    }
    fs::copy(busybox, root.join("bin/busybox"))?;
    fs::set_permissions(root.join("bin/busybox"), fs::Permissions::from_mode(0o755))?;
    let listed = Command::new(busybox).arg("--list").output()?;
    let applets = String::from_utf8_lossy(&listed.stdout);
    for applet in applets.lines().filter(|name| *name != "busybox") {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    let users = "root:x:0:0::/root:/bin/sh\nvcap:x:2000:2000::/home/vcap:/bin/sh\n";
    fs::write(root.join("etc/passwd"), users)?;
    fs::write(root.join("etc/group"), "root:x:0:\ntty:x:5:\nvcap:x:2000:\n")?;
    symlink("/home/vcap/app", root.join("app"))?;
    for home in ["home/vcap", "home/vcap/app"] {
        chown(root.join(home), Some(VCAP), Some(VCAP))?;
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    fs::set_permissions(root.join("root"), fs::Permissions::from_mode(0o700))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_appears_whole_and_once() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("root");
        let busybox = find().unwrap();
        build(&root, &busybox).unwrap();
        assert_eq!(fs::read_link(root.join("bin/sh")).unwrap(), Path::new("busybox"));
        assert!(build(&root, &busybox).is_err(), "an existing one stays");
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
    }
}

//! AppArmor: the profile that an operator chose has to be there.

use std::fs;
use std::io;
use std::path::Path;

use crate::error::Error;

/// As long as a launch has room for.
const LONGEST: usize = 500;
const MODULE: &str = "/sys/module/apparmor/parameters/enabled";
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";

/// Whether the kernel confines anybody.
pub fn is_enabled() -> bool {
    fs::read(MODULE).is_ok_and(|enabled| enabled.starts_with(b"Y"))
}

/// Says what is wrong where no process could run under `profile`: each start of one would fail.
pub fn require(profile: &str) -> Result<(), Error> {
    let refused = |reason: &str| Err(Error::Plain(format!("--apparmor {profile}: {reason}")));
    if profile.len() > LONGEST || profile.bytes().any(|byte| byte.is_ascii_control()) {
        return refused("no profile is called so");
    }
    if !is_enabled() {
        return refused("this kernel has no AppArmor, or it is turned off; leave the flag away");
    }
    match loaded(LOADED.as_ref()) {
        Ok(names) if !names.iter().any(|name| name == profile) => refused(
            "this profile is not loaded; `apparmor_parser -r FILE` loads it from the file that \
             describes it",
        ),
        Ok(_) => Ok(()),
        Err(error) => {
            tracing::warn!(%error, profile, "cannot see whether the AppArmor profile is loaded");
            Ok(())
        }
    }
}

/// Names of the profiles in the kernel, from lines of `name (mode)`; a name may have spaces.
fn loaded(list: &Path) -> io::Result<Vec<String>> {
    let text = fs::read_to_string(list)?;
    let name = |line: &str| Some(line.rsplit_once(" (")?.0.to_owned());
    Ok(text.lines().filter_map(name).collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_read_without_their_modes() {
        let list = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&list, "garden-default (enforce)\n/usr/bin/a b//child (x) (complain)\n")
            .unwrap();
        let names = super::loaded(list.path()).unwrap();
        assert_eq!(names, ["garden-default", "/usr/bin/a b//child (x)"]);
    }
}

//! Users as the container's `/etc/passwd` and `/etc/group` have them, without the C library's name
//! services: a static program must not load a tenant's.

use std::io::Read;

use garden_sys::program::passwd::{self, User, number};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat2};

use crate::archive::Names;

const MOST_BYTES: u64 = 4 << 20;
const MOST_GROUPS: usize = 1024;

/// Both files, as far as they are there.
#[derive(Debug)]
pub struct Accounts {
    passwd: Option<Vec<u8>>,
    group: Vec<u8>,
}

/// A user that has a name.
#[derive(Debug, PartialEq, Eq)]
pub struct Account {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    pub home: String,
}

impl Accounts {
    pub fn read() -> Self {
        Self { passwd: read("/etc/passwd"), group: read("/etc/group").unwrap_or_default() }
    }

    /// getpwnam(3): the first entry of the name. Where there is no passwd file, only root exists.
    pub fn by_name(&self, name: &str) -> Option<Account> {
        let name = if name.is_empty() { "root" } else { name };
        let Some(passwd) = &self.passwd else {
            let root = Account { uid: 0, gid: 0, groups: Vec::new(), home: "/".into() };
            return (name == "root").then_some(root);
        };
        let line = lines(passwd).find(|line| field(line, 0) == name.as_bytes())?;
        let user = User {
            uid: number(field(line, 2))?,
            gid: number(field(line, 3))?,
            home: field(line, 5),
            name: name.as_bytes(),
            group_given: false,
        };
        let mut groups = [0; MOST_GROUPS];
        let count = passwd::supplementary(&user, Some(&self.group), &mut groups);
        let home = std::str::from_utf8(user.home).ok().filter(|home| home.starts_with('/'));
        Some(Account {
            uid: user.uid,
            gid: user.gid,
            groups: groups[..count].to_vec(),
            home: home.unwrap_or("/").to_owned(),
        })
    }

    /// Names by number; the first entry of a number counts.
    pub fn names(&self) -> Names {
        let mut names = Names::default();
        for line in lines(self.passwd.as_deref().unwrap_or_default()) {
            if let Some(uid) = number(field(line, 2)) {
                names.users.entry(uid).or_insert_with(|| field(line, 0).to_vec());
            }
        }
        for line in lines(&self.group) {
            if let Some(gid) = number(field(line, 2)) {
                names.groups.entry(gid).or_insert_with(|| field(line, 0).to_vec());
            }
        }
        names
    }
}

/// A regular file of bounded size. Opened without waiting, so that a pipe in its place cannot hold
/// us.
fn read(path: &str) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS).ok()?;
    let kind = FileType::from_raw_mode(fstat(&file).ok()?.st_mode);
    let mut content = Vec::new();
    (kind == FileType::RegularFile).then_some(())?;
    std::fs::File::from(file).take(MOST_BYTES).read_to_end(&mut content).ok()?;
    Some(content)
}

fn lines(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    file.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && line[0] != b'#')
}

fn field(line: &[u8], index: usize) -> &[u8] {
    line.split(|byte| *byte == b':').nth(index).unwrap_or(&[])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1001::/home/alice:/bin/sh\n\
            alice:x:5:5::/:\nbroken:x:abc:1::/:\nlost:x:7:7:::\n";
        let group = b"root:x:0:\naudio:x:29:alice\n";
        Accounts { passwd: Some(passwd.to_vec()), group: group.to_vec() }
    }

    #[test]
    fn users_are_known_by_name_only() {
        let alice = accounts().by_name("alice").unwrap();
        assert_eq!((alice.uid, alice.gid, alice.home.as_str()), (1000, 1001, "/home/alice"));
        assert_eq!(alice.groups, [29]);
        assert_eq!(accounts().by_name("").unwrap().home, "/root");
        assert_eq!(accounts().by_name("lost").unwrap().home, "/");
        for unknown in ["1000", "0", "bob", "broken", "alice:x"] {
            assert_eq!(accounts().by_name(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn without_a_passwd_file_only_root_has_a_name() {
        let none = Accounts { passwd: None, group: Vec::new() };
        assert_eq!(none.by_name("").unwrap().uid, 0);
        assert_eq!(none.by_name("alice"), None);
    }
}

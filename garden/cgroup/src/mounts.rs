//! Which cgroup hierarchies are mounted where.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mounted {
    Unified(PathBuf),
    /// With the names in its mount options, controllers among them.
    V1(PathBuf, Vec<String>),
}

/// The cgroup mounts at or below a directory, from the text of
/// `/proc/self/mountinfo` (proc_pid_mountinfo(5)); of mounts on one point, the
/// last covers the others.
pub(crate) fn parse(mountinfo: &[u8], under: &Path) -> Vec<Mounted> {
    let mut found: Vec<(PathBuf, Mounted)> = Vec::new();
    for line in mountinfo.split(|&byte| byte == b'\n') {
        let Some((point, mounted)) = parse_line(line) else { continue };
        if !point.starts_with(under) {
            continue;
        }
        found.retain(|(other, _)| *other != point);
        found.extend(mounted.map(|mounted| (point, mounted)));
    }
    found.into_iter().map(|(_, mounted)| mounted).collect()
}

fn parse_line(line: &[u8]) -> Option<(PathBuf, Option<Mounted>)> {
    let mut fields = line.split(|&byte| byte == b' ');
    let point = PathBuf::from(OsString::from_vec(unescape(fields.nth(4)?)));
    let mut kind = fields.skip_while(|field| *field != b"-").skip(1);
    let fstype = kind.next()?;
    let options = kind.nth(1)?;
    let mounted = match fstype {
        b"cgroup2" => Some(Mounted::Unified(point.clone())),
        b"cgroup" => {
            let names = String::from_utf8_lossy(options).split(',').map(str::to_owned).collect();
            Some(Mounted::V1(point.clone(), names))
        }
        _ => None,
    };
    Some((point, mounted))
}

/// Space, tab, newline and backslash are written as `\ooo`.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let code = after.get(..3).filter(|_| byte == b'\\').and_then(octal);
        bytes.push(code.unwrap_or(byte));
        if code.is_some() {
            rest = &after[3..];
        }
    }
    bytes
}

fn octal(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:10 master:2 - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
50 23 0:38 / /elsewhere\\040here rw - cgroup2 cgroup2 rw
";

    #[test]
    fn a_hybrid_host() {
        let names = |names: &[&str]| names.iter().map(|&name| name.into()).collect();
        assert_eq!(
            parse(HYBRID.as_bytes(), Path::new("/sys/fs/cgroup")),
            [
                Mounted::V1("/sys/fs/cgroup/cpu,cpuacct".into(), names(&["rw", "cpu", "cpuacct"])),
                Mounted::V1("/sys/fs/cgroup/memory".into(), names(&["rw", "memory"])),
                Mounted::V1("/sys/fs/cgroup/systemd".into(), names(&["rw", "name=systemd"])),
                Mounted::Unified("/sys/fs/cgroup/unified".into()),
            ]
        );
    }

    #[test]
    fn escaped_points_and_covered_mounts() {
        assert_eq!(
            parse(HYBRID.as_bytes(), Path::new("/elsewhere here")),
            [Mounted::Unified("/elsewhere here".into())]
        );
        let covered = format!("{HYBRID}60 41 0:99 / /sys/fs/cgroup/unified rw - tmpfs tmpfs rw\n");
        let found = parse(covered.as_bytes(), Path::new("/sys/fs/cgroup"));
        assert!(!found.iter().any(|mounted| matches!(mounted, Mounted::Unified(_))));
    }

    #[test]
    fn noise_is_passed_over() {
        for text in ["", "\n", "1 2 3", "1 2 3 / /x", "1 2 3 / /x rw - cgroup2", "\\9"] {
            assert_eq!(parse(text.as_bytes(), Path::new("/")), []);
        }
    }
}

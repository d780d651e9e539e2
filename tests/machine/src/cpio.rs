//! Archives in the format that the kernel unpacks as its first file system: "newc"
//! (`Documentation/driver-api/early-userspace/buffer-format.rst` of the kernel).

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHARACTER: u32 = 0o020_000;

/// An archive that grows. Everything belongs to root and is as old as the epoch, so equal content
/// makes equal bytes. A directory comes before what is in it.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    pub fn directory(&mut self, path: &str, mode: u32) {
        self.entry(path, DIRECTORY | mode, (0, 0), b"");
    }

    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entry(path, REGULAR | mode, (0, 0), content);
    }

    pub fn link(&mut self, path: &str, target: &str) {
        self.entry(path, LINK | 0o777, (0, 0), target.as_bytes());
    }

    pub fn character_device(&mut self, path: &str, mode: u32, device: (u32, u32)) {
        self.entry(path, CHARACTER | mode, device, b"");
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), b"");
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        let path = path.trim_start_matches('/');
        let size = u32::try_from(content.len()).expect("files in the image are below 4 GiB");
        let name_size = u32::try_from(path.len()).expect("paths are short") + 1;
        self.bytes.extend_from_slice(b"070701");
        let (links, owner, time, check) = (1, 0, 0, 0);
        for field in [
            self.entries,
            mode,
            owner,
            owner,
            links,
            time,
            size,
            0,
            0,
            device.0,
            device.1,
            name_size,
            check,
        ] {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn busybox_reads_what_is_written() {
        let mut archive = Archive::default();
        archive.directory("etc", 0o755);
        archive.file("/etc/odd", 0o640, b"odd");
        archive.link("etc/link", "odd");
        let mut cpio = Command::new("/bin/busybox")
            .args(["cpio", "-tv"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Debian's package busybox-static is installed");
        cpio.stdin.take().unwrap().write_all(&archive.finish()).unwrap();
        let output = cpio.wait_with_output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        let found: Vec<(&str, &str)> = text
            .lines()
            .map(|line| (&line[..10], line.split_once(":00 ").map_or("", |(_, name)| name)))
            .collect();
        assert_eq!(
            found,
            [("drwxr-xr-x", "etc"), ("-rw-r-----", "etc/odd"), ("lrwxrwxrwx", "etc/link -> odd")]
        );
    }
}

//! What an executable file needs of the system that it runs on.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// Whether it is an ELF file that names no program interpreter (elf(5), PT_INTERP): one that needs no
/// libraries.
pub fn is_static(path: &Path) -> io::Result<bool> {
    const PT_INTERP: u32 = 3;
    let mut head = Vec::new();
    File::open(path)?.take(4096).read_to_end(&mut head)?;
    let number = |at: usize, size: usize| -> Option<u64> {
        let bytes = head.get(at..at + size)?;
        Some(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    };
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return Ok(false);
    }
    // The 64-bit header: e_phoff at 32, e_phentsize at 54, e_phnum at 56.
    let (Some(offset), Some(size), Some(count)) = (number(32, 8), number(54, 2), number(56, 2))
    else {
        return Ok(false);
    };
    let kinds = (0..count)
        .map(|index| usize::try_from(offset + index * size).ok().and_then(|at| number(at, 4)));
    Ok(kinds.into_iter().all(|kind| kind.is_some_and(|kind| kind != u64::from(PT_INTERP))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_static_program_is_told_from_others() {
        assert!(is_static(Path::new("/proc/self/exe")).unwrap(), "we are built static");
        assert!(!is_static(Path::new("/bin/ls")).unwrap());
        assert!(!is_static(Path::new("/etc/passwd")).unwrap());
    }
}

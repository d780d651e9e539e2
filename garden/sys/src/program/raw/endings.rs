//! How processes have ended: one's own children, and those of others.

use core::ffi::CStr;

use super::{AT_FDCWD, Answer, Fd, call, close, fd_word, flag, number, open, pidfd_signal, read};

/// How a child ended, from waitid(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its pid.
    pub pid: i32,
    /// Exit code, or 128 + signal.
    pub status: i32,
}

/// Looks at one ended child without reaping it; `None` when none has ended. `pid` 0 means any.
pub fn peek_ended(pid: i32) -> Answer<Option<Ended>> {
    // WNOHANG | WEXITED | WNOWAIT
    wait(pid, 1 | 4 | 0x0100_0000)
}

/// Reaps a child that has ended.
pub fn reap(pid: i32) -> Answer<Option<Ended>> {
    wait(pid, 1 | 4)
}

fn wait(pid: i32, options: usize) -> Answer<Option<Ended>> {
    let mut info = [0_i32; 32];
    let kind = if pid == 0 { 0 } else { 1 };
    // SAFETY: siginfo_t is 128 bytes, the array's size; a null rusage is allowed.
    unsafe {
        call(number::WAITID, [kind, fd_word(pid), info.as_mut_ptr() as usize, options, 0, 0])
    }?;
    // siginfo_t: si_signo, si_errno, si_code, pad, si_pid, si_uid, si_status
    let (code, ended, status) = (info[2], info[3 + 1], info[6]);
    if info[0] == 0 {
        return Ok(None);
    }
    const CLD_EXITED: i32 = 1;
    let status = if code == CLD_EXITED { status } else { 128 + status };
    Ok(Some(Ended { pid: ended, status }))
}

/// Exit status of a process that somebody else has reaped, by its pidfd, where the kernel keeps it
/// (6.15 and later): ioctl PIDFD_GET_INFO with PIDFD_INFO_EXIT. Exit code, or 128 + signal.
pub fn reaped_status(pidfd: Fd) -> Option<i32> {
    const EXIT: u64 = 1 << 3;
    // struct pidfd_info: mask, cgroupid, pid..sgid (4 bytes each, 11 of them), exit_code.
    let mut info = [0_u64; 8];
    info[0] = EXIT;
    // _IOWR(0xff, 11, 64 bytes)
    let request = (3 << 30) | (64 << 16) | (0xff << 8) | 11;
    // SAFETY: the kernel writes at most the 64 bytes that the request's size field names.
    unsafe { call(number::IOCTL, [fd_word(pidfd), request, info.as_mut_ptr() as usize, 0, 0, 0]) }
        .ok()?;
    if info[0] & EXIT == 0 {
        return None;
    }
    let code = u32::from_ne_bytes([
        info[7].to_ne_bytes()[4],
        info[7].to_ne_bytes()[5],
        info[7].to_ne_bytes()[6],
        info[7].to_ne_bytes()[7],
    ]);
    Some(shell_status(code))
}

/// Exit status of a process that has ended and that its parent, somebody else, has not yet reaped:
/// the last field of `/proc/<pid>/stat` (proc_pid_stat(5)). The pidfd proves that the pid was still
/// that process's when the file was read.
pub fn zombie_status(pid: i32, pidfd: Fd) -> Option<i32> {
    let mut path = *b"/proc/\0\0\0\0\0\0\0\0\0\0\0/stat\0\0";
    let mut digits = [0; 12];
    let number = decimal(pid, &mut digits).to_bytes();
    path[6..6 + number.len()].copy_from_slice(number);
    path[6 + number.len()..12 + number.len()].copy_from_slice(b"/stat\0");
    let file = open(AT_FDCWD, CStr::from_bytes_until_nul(&path).ok()?, flag::RDONLY, 0).ok()?;
    let mut content = [0; 1024];
    let length = read(file, &mut content);
    close(file);
    let content = content.get(..length.ok()?)?;
    pidfd_signal(pidfd, 0).ok()?;
    let after_name = content.get(content.iter().rposition(|byte| *byte == b')')? + 2..)?;
    if after_name.first() != Some(&b'Z') {
        return None;
    }
    let last =
        after_name.split(|byte| matches!(byte, b' ' | b'\n')).rfind(|field| !field.is_empty())?;
    let mut code = 0_u32;
    for digit in last {
        code = code
            .checked_mul(10)?
            .checked_add(u32::from(digit.checked_sub(b'0').filter(|digit| *digit < 10)?))?;
    }
    Some(shell_status(code))
}

/// The kernel's wait status as an exit code, or 128 + signal.
pub(super) fn shell_status(code: u32) -> i32 {
    let status = if code & 0x7f == 0 { (code >> 8) & 0xff } else { 128 + (code & 0x7f) };
    status.cast_signed()
}

/// A positive number as text.
pub fn decimal(mut number: i32, digits: &mut [u8; 12]) -> &CStr {
    let mut at = digits.len() - 1;
    digits[at] = 0;
    loop {
        at -= 1;
        digits[at] = b"0123456789"[(number % 10).unsigned_abs() as usize];
        number /= 10;
        if number == 0 || at == 0 {
            break;
        }
    }
    CStr::from_bytes_until_nul(&digits[at..]).unwrap_or(c"")
}

//! The kernel's entropy pool (random(4)).

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;

/// The most that one call takes, in bytes.
const MOST: usize = 512;

/// `struct rand_pool_info` with room for its bytes.
#[repr(C)]
struct PoolInfo {
    entropy_count: libc::c_int,
    buf_size: libc::c_int,
    buf: [u8; MOST],
}

/// `_IOW('R', 0x03, int[2])` and `_IO('R', 0x07)` (`linux/random.h`).
const RNDADDENTROPY: libc::Ioctl = 0x4008_5203;
const RNDRESEEDCRNG: libc::Ioctl = 0x5207;

/// Mixes bytes into the pool, counts every bit of them as unknown to others, and makes the
/// generator use them at once. Needs CAP_SYS_ADMIN; takes at most 512 bytes.
pub fn add(bytes: &[u8]) -> io::Result<()> {
    let length = libc::c_int::try_from(bytes.len()).unwrap_or(libc::c_int::MAX);
    let mut info =
        PoolInfo { entropy_count: length.saturating_mul(8), buf_size: length, buf: [0; MOST] };
    info.buf.get_mut(..bytes.len()).ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(bytes);
    let random = OpenOptions::new().write(true).open("/dev/urandom")?;
    // SAFETY: RNDADDENTROPY reads two ints and then `buf_size` bytes; `info` has that layout, and
    // the copy above has refused more bytes than `buf` holds. RNDRESEEDCRNG takes no argument. The
    // descriptor is open during both calls.
    let result = unsafe {
        match libc::ioctl(random.as_raw_fd(), RNDADDENTROPY, &raw const info) {
            0 => libc::ioctl(random.as_raw_fd(), RNDRESEEDCRNG),
            failed => failed,
        }
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

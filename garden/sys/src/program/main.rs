//! The supervisor's program: anchor, keeper and, by fork, every container's process 1.
//!
//! Built by `garden/sys/build.rs` as a static executable without a C library, embedded into the
//! daemon, and run from a sealed memory file. The first argument says which part to play.

#![no_std]
#![no_main]
#![allow(dead_code, reason = "the library beside this program uses the rest of these modules")]
#![allow(unreachable_pub, reason = "the modules are the library's, too")]

mod anchor;
mod init;
mod keeper;
mod launch;
mod ledger;
mod passwd;
mod plan;
mod raw;
mod store;
mod wire;

use core::arch::{asm, global_asm};
use core::ffi::CStr;

global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {main}",
    "ud2",
    main = sym main,
);

/// `stack` is what execve(2) leaves: argc, then the argument pointers.
unsafe extern "C" fn main(stack: *const usize) -> ! {
    // SAFETY: the System V ABI puts argc at the entry's stack pointer and argc pointers to
    // NUL-terminated texts after it.
    let argument = |index: usize| unsafe {
        (index < *stack).then(|| CStr::from_ptr((*stack.add(1 + index)) as *const _).to_bytes())
    };
    let ended = match argument(1) {
        Some(b"anchor") => anchor::born(),
        Some(b"anchor-again") => {
            let keeper = argument(2).and_then(passwd::number).and_then(|pid| i32::try_from(pid).ok());
            anchor::again(keeper)
        }
        Some(b"keeper") => keeper::run(),
        Some(b"check") => store::prepare_ledger().err().unwrap_or(raw::Errno(0)),
        _ => raw::Errno::EINVAL,
    };
    raw::exit(ended.0)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    let _ = raw::write(2, b"bloomery supervisor: internal error\n");
    raw::exit(101)
}

// What the compiler expects to find: without a C library nobody else provides it.

#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: `rep movsb` copies `count` bytes upwards; the caller promises both ranges.
    unsafe {
        asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags));
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= count {
        // SAFETY: the target does not begin inside the source, so copying upwards is right.
        return unsafe { memcpy(to, from, count) };
    }
    // SAFETY: copies from the last byte downwards, with the direction flag restored; the caller
    // promises both ranges, and `count` is not 0 here.
    unsafe {
        asm!("std", "rep movsb", "cld", inout("rcx") count => _,
            inout("rdi") to.wrapping_add(count - 1) => _, inout("rsi") from.wrapping_add(count - 1) => _,
            options(nostack));
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, count: usize) -> *mut u8 {
    // SAFETY: `rep stosb` fills `count` bytes; the caller promises the range.
    unsafe {
        asm!("rep stosb", inout("rcx") count => _, inout("rdi") to => _,
            in("al") value.cast_unsigned() as u8, options(nostack, preserves_flags));
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, count: usize) -> i32 {
    let mut index = 0;
    while index < count {
        // SAFETY: the caller promises `count` bytes on both sides; volatile, so that the compiler
        // does not turn this loop into a call of itself.
        let (a, b) = unsafe { (left.add(index).read_volatile(), right.add(index).read_volatile()) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
        index += 1;
    }
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, count: usize) -> i32 {
    // SAFETY: the caller's promise is the same.
    unsafe { memcmp(left, right, count) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut length = 0;
    // SAFETY: the caller promises a NUL-terminated text.
    while unsafe { text.add(length).read_volatile() } != 0 {
        length += 1;
    }
    length
}

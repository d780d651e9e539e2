//! What this process's allocator has (mallinfo2(3)).

/// Bytes of the heap, in all of its arenas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heap {
    /// Allocated and not freed.
    pub in_use: usize,
    /// Freed, and not given back to the kernel.
    pub idle: usize,
    /// Had from the kernel.
    pub obtained: usize,
}

/// As it is now. Takes the allocator's locks one after the other.
pub fn usage() -> Heap {
    // SAFETY: mallinfo2(3) takes no argument, is thread-safe and answers ten numbers by value.
    let info = unsafe { libc::mallinfo2() };
    Heap {
        in_use: info.uordblks.saturating_add(info.hblkhd),
        idle: info.fordblks,
        obtained: info.arena.saturating_add(info.hblkhd),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allocated_is_in_use_until_it_is_freed() {
        const MUCH: usize = 64 << 20;
        let before = usage().in_use;
        let block = vec![1_u8; MUCH];
        let during = usage();
        assert!(during.in_use >= before + MUCH / 2, "{before} {during:?}");
        assert!(during.obtained >= during.in_use, "{during:?}");
        drop(block);
        assert!(usage().in_use + MUCH / 2 <= during.in_use);
    }
}

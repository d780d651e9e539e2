use super::layout::{CURRENT, KNOWN, Layout};
use super::*;

/// Zeroed memory at a page boundary.
struct Memory(*mut u8, usize);

impl Memory {
    fn new(length: usize) -> Self {
        Self(super::super::raw::map_memory(length).unwrap(), length)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: no test uses a ledger after its memory.
        let _ = unsafe { super::super::raw::unmap(self.0, self.1) };
    }
}

fn open(memory: &Memory) -> Result<Ledger, Unreadable> {
    // SAFETY: so many bytes are mapped for as long as the test's `memory`.
    unsafe { Ledger::open(memory.0, memory.1) }
}

fn create(memory: &Memory, slots: usize) -> Ledger {
    // SAFETY: as above.
    unsafe { Ledger::create(memory.0, memory.1, slots) }.unwrap()
}

/// A ledger of an older layout, as a build of its time left it.
fn older(memory: &Memory, layout: Layout, slots: usize) -> Ledger {
    let ledger = Ledger { at: memory.0, slots, table: HEADER, layout };
    let top = ledger.top();
    top.slots.store(u32::try_from(slots).unwrap(), Ordering::Relaxed);
    top.version.store(layout.version, Ordering::Relaxed);
    top.magic.store(MAGIC, Ordering::Relaxed);
    ledger
}

#[test]
fn slots_are_found_by_ticket_and_by_pid_and_used_again() {
    let memory = Memory::new(size(3));
    let ledger = create(&memory, 3);
    assert_eq!((ledger.used(), ledger.capacity()), (0, 3));
    for ticket in [7, 8, 9] {
        let (_, slot) = ledger.reserve(ticket, flag::INIT).unwrap();
        slot.pid.store(i32::try_from(ticket).unwrap() * 10, Ordering::Relaxed);
    }
    assert!(ledger.reserve(10, 0).is_none());
    assert_eq!(ledger.find(8).unwrap().0, 1);
    ledger.find_child(80).unwrap().1.set_state(State::Ended);
    assert!(ledger.find_child(80).is_none() && ledger.find(8).is_some());
    ledger.slot(1).set_state(State::Free);
    assert!(ledger.find(8).is_none());
    let (index, slot) = ledger.reserve(11, 0).unwrap();
    assert_eq!((index, slot.pid.load(Ordering::Relaxed), ledger.used()), (1, 0, 3));
    assert_eq!(open(&memory).unwrap().find(11).unwrap().0, 1);
}

#[test]
fn what_is_no_ledger_or_of_a_layout_to_come_is_refused() {
    let memory = Memory::new(size(2));
    assert_eq!(open(&memory).unwrap_err(), Unreadable::Broken);
    let ledger = create(&memory, 2);
    ledger.top().version.store(CURRENT.version + 1, Ordering::Relaxed);
    assert_eq!(open(&memory).unwrap_err(), Unreadable::Version(CURRENT.version + 1));
    ledger.top().version.store(CURRENT.version, Ordering::Relaxed);
    ledger.top().slots.store(4000, Ordering::Relaxed);
    assert_eq!(open(&memory).unwrap_err(), Unreadable::Broken);
}

#[test]
fn a_ledger_of_every_older_layout_is_read_and_converted() {
    const SLOTS: usize = 100;
    for layout in &KNOWN[1..] {
        let memory = Memory::new(1 << 16);
        let old = older(&memory, *layout, SLOTS);
        let fill = |index: usize, state| {
            let slot = old.slot(index);
            let number = u32::try_from(index).unwrap();
            slot.ticket.store(1000 + u64::from(number), Ordering::Relaxed);
            slot.pid.store(number.cast_signed(), Ordering::Relaxed);
            slot.status.store(number.cast_signed() + 1, Ordering::Relaxed);
            slot.flags.store(number << flag::KEPT_SHIFT, Ordering::Relaxed);
            slot.drained[1].store(u64::MAX - u64::from(number), Ordering::Relaxed);
            slot.set_state(state);
        };
        let states = [State::Reserved, State::Live, State::Ended, State::Lost];
        for (index, state) in (3..).zip(states) {
            fill(index, state);
        }
        let read = open(&memory).unwrap();
        assert!(!read.is_current() && read.find(1005).unwrap().0 == 5);
        assert!(read.convert(read.converted_size() - 1).is_none());
        assert!(!open(&memory).unwrap().is_current(), "nothing has changed");
        // Somebody began and was killed.
        let (table, end) = read.next_table();
        // SAFETY: the range lies in the test's memory and behind the old table.
        unsafe { memory.0.add(table).write_bytes(0xff, end - table) };
        read.convert(memory.1).unwrap();

        let new = open(&memory).unwrap();
        assert!(new.is_current());
        assert_eq!((new.capacity(), new.used()), (SLOTS, 7));
        for index in 0..SLOTS {
            let slot = new.slot(index);
            assert_eq!(slot.state(), old.slot(index).state(), "{index}");
            assert_eq!(
                slot.drained[1].load(Ordering::Relaxed),
                old.slot(index).drained[1].load(Ordering::Relaxed)
            );
        }
        let (index, slot) = new.find(1006).unwrap();
        let words = [&slot.pid, &slot.status].map(|word| word.load(Ordering::Relaxed));
        assert_eq!((index, words, slot.kept()), (6, [6, 7], 6));
        // The old table is not written to any more.
        new.reserve(1, 0).unwrap();
        assert_eq!(old.slot(0).state(), State::Free);
    }
}

//! The anchor: sub-reaper above the keeper. It parses nothing that a tenant or a client wrote, holds
//! duplicates of every kept descriptor, reaps what the keeper leaves behind, and starts the keeper
//! again when it dies.

use super::keeper;
use super::ledger::{Ledger, State};
use super::raw::{self, Answer, Errno, Event, Fd};
use super::store::{self, Note};

const SIGCHLD: u32 = 17;

/// First life: takes the four descriptors and, after a disaster, kept ones from the daemon on
/// descriptor 0, then stands guard.
pub fn born() -> Errno {
    let _ = raw::raise_descriptor_limit();
    match receive_birthright() {
        Ok(()) => {}
        Err(errno) => return errno,
    }
    raw::setsid();
    for signal in 1..=64 {
        raw::set_signal_action(signal, false, false);
    }
    if let Err(errno) = own_root() {
        return errno;
    }
    // The daemon waits for its child, so the anchor is a grandchild, whose parent is process 1.
    // SAFETY: this process has one thread.
    match unsafe { raw::fork() } {
        Ok(0) => guard(None),
        Ok(_) => Errno(0),
        Err(errno) => errno,
    }
}

/// Second life: after an upgrade, or as what was the keeper until its anchor died. The keeper of
/// an upgraded anchor still runs at the other end of [`store::ANCHOR_END`].
pub fn again(keeper: Option<i32>) -> Errno {
    guard(keeper)
}

/// The daemon sends [listen, ledger, program, rings], then one `Keep` for each slot that it knows,
/// then `Start`.
fn receive_birthright() -> Answer<()> {
    let mut bytes = [0; store::NOTE];
    let first = raw::receive(0, &mut bytes, true)?;
    let (&[listen, ledger, program, rings], Some(Note::Start)) =
        (first.descriptors(), Note::decode(&bytes))
    else {
        return Err(Errno::EPROTO);
    };
    // Received numbers may be the very places; move them out of the way first.
    let places = [
        (listen, store::LISTEN),
        (ledger, store::LEDGER),
        (program, store::PROGRAM),
        (rings, store::RINGS),
    ];
    for (at, (from, _)) in (100..).zip(places) {
        raw::dup3(from, at, true)?;
    }
    for (from, (_, to)) in (100..).zip(places) {
        raw::dup3(from, to, false)?;
    }
    raw::close_range(100, 103, false)?;
    for descriptor in first.descriptors() {
        if !places.iter().any(|(_, to)| to == descriptor) {
            raw::close(*descriptor);
        }
    }
    loop {
        let received = raw::receive(0, &mut bytes, true)?;
        match Note::decode(&bytes[..received.length]) {
            Some(Note::Keep { slot, mask }) => store::keep(slot, mask, received.descriptors())?,
            Some(Note::Start) => break,
            _ => return Err(Errno::EPROTO),
        }
        received.close_all();
    }
    let null = raw::open(raw::AT_FDCWD, c"/dev/null", raw::flag::RDWR, 0)?;
    raw::dup3(null, 0, false)?;
    raw::close(null);
    Ok(())
}

/// A mount namespace of our own whose root holds one unmasked proc and sysfs: the kernel lets a
/// user namespace mount these only where a fully visible one exists already. Nothing of the host's
/// mounts stays in it, so containers neither see nor pin them.
fn own_root() -> Answer<()> {
    raw::unshare(raw::clone::NEWNS)?;
    const PRIVATE: usize = 0x4_4000;
    raw::mount(c"none", c"/", c"", PRIVATE)?;
    let fs = raw::fsopen(c"tmpfs")?;
    raw::fsconfig(fs, c"mode", c"755")?;
    raw::fsconfig(fs, c"size", c"64k")?;
    let root = raw::fsmount(fs, 0)?;
    raw::close(fs);
    for (directory, mode) in [(c"proc", 0o555), (c"sys", 0o555), (c"root", 0o700)] {
        raw::mkdir(root, directory, mode)?;
    }
    let host = raw::open(raw::AT_FDCWD, c"/", raw::flag::PATH | raw::flag::DIRECTORY, 0)?;
    raw::move_mount(root, host)?;
    raw::fchdir(root)?;
    for (directory, kind) in [(c"proc", c"proc"), (c"sys", c"sysfs")] {
        let fs = raw::fsopen(kind)?;
        let mount = raw::fsmount(fs, 0)?;
        raw::close(fs);
        let target = raw::open(root, directory, raw::flag::PATH | raw::flag::DIRECTORY, 0)?;
        raw::move_mount(mount, target)?;
        raw::close(mount);
        raw::close(target);
    }
    raw::close(host);
    raw::close(root);
    if raw::pivot_root_here().is_ok() {
        raw::detach(c".")?;
    } else {
        // The root of an initramfs cannot be pivoted away; being above it serves as well.
        raw::chroot(c".")?;
    }
    raw::chdir(c"/")
}

/// Stands guard. Nobody else writes to the ledger while it is converted: a keeper that there is has
/// asked us to run this program, and waits.
fn guard(mut keeper: Option<i32>) -> Errno {
    raw::set_name(c"bloomery-anchor");
    raw::set_signal_mask(keeper::BLOCKED_SIGNALS);
    store::occupy();
    raw::adopt_orphans();
    let prepared = || {
        let ledger = store::convert_ledger()?;
        let signals = raw::signalfd(raw::signal_bit(SIGCHLD))?;
        let epoll = raw::epoll_create()?;
        raw::epoll_add(epoll, signals, 0)?;
        Ok((ledger, signals, epoll))
    };
    let (ledger, signals, epoll) = match prepared() {
        Ok(prepared) => prepared,
        Err(errno) => return errno,
    };
    if keeper.is_some() {
        let _ = raw::epoll_add(epoll, store::ANCHOR_END, 1);
        // It may be waiting for the ledger, see `keeper::wait_for_ledger`.
        let _ = Note::News.send(store::ANCHOR_END, &[]);
    }
    let mut last_start = 0;
    loop {
        if keeper.is_none() {
            // A keeper that dies as soon as it starts must not make us spin.
            let since = raw::now().saturating_sub(last_start);
            if since < 20 {
                raw::sleep(20);
            }
            last_start = raw::now();
            keeper = start_keeper(epoll).ok();
        }
        let mut events = [Event::default(); 2];
        let ready = raw::epoll_wait(epoll, &mut events, if keeper.is_none() { 100 } else { -1 });
        let mut leave = false;
        // Descriptors first: a keeper that died has sent what it promised to keep.
        if events[..ready].iter().any(|event| event.data == 1) {
            leave = listen_to_keeper(keeper);
        }
        if events[..ready].iter().any(|event| event.data == 0) {
            let mut info = [0_u8; 128];
            while raw::read(signals, &mut info).is_ok() {}
        }
        if leave {
            return Errno(0);
        }
        if reap(ledger, &mut keeper) == Reaped::Keeper {
            let _ = listen_to_keeper(None);
            raw::epoll_remove(epoll, store::ANCHOR_END);
            store::vacate(store::ANCHOR_END);
        }
    }
}

fn start_keeper(epoll: Fd) -> Answer<i32> {
    let [ours, theirs] = raw::socketpair()?;
    let placed = (|| {
        raw::dup3(theirs, store::KEEPER_END, false)?;
        raw::dup3(ours, store::ANCHOR_END, true)?;
        raw::epoll_add(epoll, store::ANCHOR_END, 1)
    })();
    raw::close(ours);
    raw::close(theirs);
    placed?;
    // SAFETY: this process has one thread; the child only execs.
    let child = unsafe { raw::fork() };
    if let Ok(0) = child {
        raw::execute(store::PROGRAM, &[c"bloomery-keeper", c"keeper"]);
        raw::exit(125);
    }
    store::vacate(store::KEEPER_END);
    child
}

/// Reads all that the keeper has sent; whether it said that nothing is left.
fn listen_to_keeper(keeper: Option<i32>) -> bool {
    let mut leave = false;
    let mut bytes = [0; store::NOTE];
    while let Ok(received) = raw::receive(store::ANCHOR_END, &mut bytes, false) {
        if received.length == 0 {
            break;
        }
        match Note::decode(&bytes[..received.length]) {
            Some(Note::Keep { slot, mask }) => {
                let _ = store::keep(slot, mask, received.descriptors());
            }
            Some(Note::Drop { slot, mask }) => store::forget(slot, mask),
            Some(Note::KeepExits) => {
                if let [socket] = received.descriptors() {
                    let _ = raw::dup3(*socket, store::EXITS, false);
                }
            }
            Some(Note::DropExits) => store::vacate(store::EXITS),
            Some(Note::Leave) => leave = true,
            Some(Note::Upgrade) => upgrade(received.descriptors(), keeper),
            _ => {}
        }
        received.close_all();
    }
    leave
}

/// Executes the new program under this pid. It keeps the keeper it has, which runs that program
/// already; where we cannot follow, that keeper becomes the anchor.
fn upgrade(descriptors: &[Fd], keeper: Option<i32>) {
    let [program] = descriptors else { return };
    if raw::dup3(*program, store::PROGRAM, false).is_err() {
        raw::exit(1);
    }
    match keeper {
        Some(keeper) => {
            let mut digits = [0; 12];
            let digits = raw::decimal(keeper, &mut digits);
            let _ = raw::set_close_on_exec(store::ANCHOR_END, false);
            raw::execute(store::PROGRAM, &[c"bloomery-anchor", c"anchor-again", digits]);
        }
        None => {
            raw::execute(store::PROGRAM, &[c"bloomery-anchor", c"anchor-again"]);
        }
    }
    raw::exit(1);
}

#[derive(PartialEq, Eq)]
enum Reaped {
    Others,
    Keeper,
}

/// Records each ended child in the ledger, then reaps it, in this order.
fn reap(ledger: Ledger, keeper: &mut Option<i32>) -> Reaped {
    let mut reaped = Reaped::Others;
    let mut news = false;
    while let Ok(Some(ended)) = raw::peek_ended(0) {
        if let Some((_, slot)) = ledger.find_child(ended.pid) {
            slot.status.store(ended.status, core::sync::atomic::Ordering::Relaxed);
            slot.set_state(State::Ended);
            news = true;
        }
        let _ = raw::reap(ended.pid);
        if *keeper == Some(ended.pid) {
            *keeper = None;
            reaped = Reaped::Keeper;
        }
    }
    if news {
        let _ = Note::News.send(store::ANCHOR_END, &[]);
    }
    reaped
}

//! SEQPACKET sockets, whose messages carry descriptors.

use super::{Answer, Errno, Fd, call, close, fd_word, number, small};

/// A connected pair of close-on-exec SOCK_SEQPACKET sockets.
pub fn socketpair() -> Answer<[Fd; 2]> {
    let mut pair = [0; 2];
    // SAFETY: the kernel writes two descriptors. AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC.
    unsafe { call(number::SOCKETPAIR, [1, 5 | 0o2_000_000, 0, pair.as_mut_ptr() as usize, 0, 0]) }?;
    Ok(pair)
}

/// accept4(2), close-on-exec.
pub fn accept(socket: Fd) -> Answer<Fd> {
    // SAFETY: no address is asked for.
    unsafe { call(number::ACCEPT4, [fd_word(socket), 0, 0, 0o2_000_000, 0, 0]) }.map(small)
}

/// At most this many descriptors travel with one message.
pub const MOST_DESCRIPTORS: usize = 240;

#[repr(C)]
struct Slice {
    at: usize,
    length: usize,
}

#[repr(C)]
struct Header {
    name: usize,
    name_length: u32,
    pieces: usize,
    piece_count: usize,
    control: usize,
    control_length: usize,
    flags: i32,
}

#[repr(C, align(8))]
struct Control {
    length: usize,
    level: i32,
    kind: i32,
    descriptors: [Fd; MOST_DESCRIPTORS],
}

/// Sends one message with descriptors (sendmsg(2), SCM_RIGHTS), without SIGPIPE, without waiting.
pub fn send(socket: Fd, bytes: &[u8], descriptors: &[Fd]) -> Answer<()> {
    let mut control = Control {
        length: 16 + descriptors.len() * 4,
        level: 1,
        kind: 1,
        descriptors: [0; MOST_DESCRIPTORS],
    };
    control
        .descriptors
        .get_mut(..descriptors.len())
        .ok_or(Errno::EINVAL)?
        .copy_from_slice(descriptors);
    let piece = Slice { at: bytes.as_ptr() as usize, length: bytes.len() };
    let with_control = !descriptors.is_empty();
    let header = Header {
        name: 0,
        name_length: 0,
        pieces: (&raw const piece) as usize,
        piece_count: 1,
        control: if with_control { (&raw const control) as usize } else { 0 },
        control_length: if with_control {
            (16 + descriptors.len() * 4).next_multiple_of(8)
        } else {
            0
        },
        flags: 0,
    };
    // MSG_NOSIGNAL | MSG_DONTWAIT
    // SAFETY: struct msghdr with one live piece and one live control message.
    unsafe {
        call(
            number::SENDMSG,
            [fd_word(socket), (&raw const header) as usize, 0x4000 | 0x40, 0, 0, 0],
        )
    }
    .map(drop)
}

/// One received message.
#[derive(Debug)]
pub struct Received {
    /// Bytes written to the buffer; 0 means that the other side is gone.
    pub length: usize,
    descriptors: [Fd; MOST_DESCRIPTORS],
    count: usize,
}

impl Received {
    /// The descriptors that came along (close-on-exec), now owned by the receiver.
    pub fn descriptors(&self) -> &[Fd] {
        &self.descriptors[..self.count]
    }

    /// Closes all of them.
    pub fn close_all(&self) {
        self.descriptors().iter().copied().for_each(close);
    }
}

/// Receives one message; with `wait` false, EAGAIN says that none is there. A message that was
/// cut (bytes or descriptors) is EPROTO and its descriptors are closed.
pub fn receive(socket: Fd, buffer: &mut [u8], wait: bool) -> Answer<Received> {
    let mut control = Control { length: 0, level: 0, kind: 0, descriptors: [-1; MOST_DESCRIPTORS] };
    let piece = Slice { at: buffer.as_mut_ptr() as usize, length: buffer.len() };
    let mut header = Header {
        name: 0,
        name_length: 0,
        pieces: (&raw const piece) as usize,
        piece_count: 1,
        control: (&raw mut control) as usize,
        control_length: size_of::<Control>(),
        flags: 0,
    };
    // MSG_CMSG_CLOEXEC, MSG_DONTWAIT
    let flags = 0x4000_0000 | if wait { 0 } else { 0x40 };
    // SAFETY: struct msghdr with one exclusively borrowed piece and room for one control message.
    let length = unsafe {
        call(number::RECVMSG, [fd_word(socket), (&raw mut header) as usize, flags, 0, 0, 0])
    }?;
    let mut received = Received { length, descriptors: [-1; MOST_DESCRIPTORS], count: 0 };
    if header.control_length >= 16 && control.level == 1 && control.kind == 1 {
        received.count = (control.length.saturating_sub(16) / 4).min(MOST_DESCRIPTORS);
        received.descriptors = control.descriptors;
    }
    // MSG_TRUNC | MSG_CTRUNC
    if header.flags & (0x20 | 0x08) != 0 {
        received.close_all();
        return Err(Errno::EPROTO);
    }
    Ok(received)
}

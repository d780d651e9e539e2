//! Messages with descriptors over a SEQPACKET socket.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::program::raw;

/// Waits until a descriptor can be read, or its other end is gone; `TIMEDOUT` after `patience`.
pub(crate) fn wait_readable(fd: BorrowedFd<'_>, patience: Duration) -> rustix::io::Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let timeout = Timespec {
        tv_sec: patience.as_secs().cast_signed(),
        tv_nsec: i64::from(patience.subsec_nanos()),
    };
    let mut waited = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    match rustix::io::retry_on_intr(|| poll(&mut waited, Some(&timeout)))? {
        0 => Err(rustix::io::Errno::TIMEDOUT),
        _ => Ok(()),
    }
}

pub(super) fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> rustix::io::Result<()> {
    let mut space = vec![std::mem::MaybeUninit::uninit(); 64 + descriptors.len() * 4];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(rustix::io::Errno::MSGSIZE);
    }
    rustix::io::retry_on_intr(|| {
        sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
    })
    .map(drop)
}

pub(super) fn receive(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
) -> rustix::io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [std::mem::MaybeUninit::uninit(); 64 + raw::MOST_DESCRIPTORS * 4];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok((received.bytes, descriptors))
}

//! A netlink socket one can ask and wait at.
//!
//! The kernel works a request off inside send(2), so every answer is queued when it returns
//! (netlink(7)); dumps continue with each receive.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink::SocketAddrNetlink,
};

use crate::message::{Message, Messages, NLMSG_DONE, NLMSG_ERROR, messages, u32_at};

/// Larger than any datagram the kernel builds for a dump (`netlink_dump`: at most 32 KiB).
const RECEIVE: usize = 64 * 1024;
/// Room for the acknowledgements of one large batch.
const RECEIVE_QUEUE: usize = 4 * 1024 * 1024;
/// Bounds the largest request, which is a thousand containers' rules in one transaction.
const SEND_QUEUE: usize = 32 * 1024 * 1024;

/// Which part of the kernel answers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Protocol {
    Route,
    Netfilter,
}

/// The kernel's refusal of one message of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The place of the message in the request, from 0.
    pub(crate) message: u32,
    pub(crate) errno: Errno,
}

/// How a request ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) refusals: Vec<Refusal>,
    pub(crate) acknowledged: u32,
}

#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace, to which it then belongs.
    pub(crate) fn open(protocol: Protocol) -> io::Result<Self> {
        let protocol = match protocol {
            Protocol::Route => None,
            Protocol::Netfilter => Some(rustix::net::netlink::NETFILTER),
        };
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, 0))?;
        rustix::net::connect(&fd, &SocketAddrNetlink::new(0, 0))?;
        // More than net.core.rmem_max and wmem_max needs CAP_NET_ADMIN in the first user namespace; without,
        // the defaults must do.
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&fd, RECEIVE_QUEUE);
        let _ = rustix::net::sockopt::set_socket_send_buffer_size_force(&fd, SEND_QUEUE);
        Ok(Self { fd, buffer: vec![0; RECEIVE] })
    }

    /// Sends a request that is answered with acknowledgements only.
    pub(crate) fn execute(&mut self, request: &Messages) -> io::Result<Outcome> {
        let mut outcome = Outcome { refusals: Vec::new(), acknowledged: 0 };
        self.send(request)?;
        while let Some(datagram) = self.receive()? {
            for message in messages(datagram) {
                match status(message) {
                    Some(Ok(())) => outcome.acknowledged += 1,
                    Some(Err(errno)) => {
                        outcome.refusals.push(Refusal { message: message.sequence, errno });
                    }
                    None => {}
                }
            }
        }
        Ok(outcome)
    }

    /// Sends one request and hands every answer to `each`, to the end of the dump.
    pub(crate) fn ask(
        &mut self,
        request: &Messages,
        mut each: impl FnMut(Message<'_>),
    ) -> io::Result<()> {
        self.send(request)?;
        while let Some(datagram) = self.receive()? {
            for message in messages(datagram) {
                match status(message) {
                    Some(Err(errno)) => return Err(errno.into()),
                    Some(Ok(())) => {}
                    None => each(message),
                }
            }
        }
        Ok(())
    }

    fn send(&mut self, request: &Messages) -> io::Result<()> {
        while self.receive().is_ok_and(|left_over| left_over.is_some()) {}
        rustix::io::retry_on_intr(|| {
            rustix::net::send(&self.fd, request.bytes(), SendFlags::empty())
        })?;
        Ok(())
    }

    fn receive(&mut self) -> io::Result<Option<&[u8]>> {
        let received = rustix::io::retry_on_intr(|| {
            rustix::net::recv(&self.fd, &mut self.buffer[..], RecvFlags::DONTWAIT)
        });
        match received {
            Ok((length, _)) => Ok(Some(&self.buffer[..length.min(RECEIVE)])),
            Err(Errno::AGAIN) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// What an acknowledgement, an error or a dump's end says; `None` for content.
fn status(message: Message<'_>) -> Option<Result<(), Errno>> {
    if message.kind != NLMSG_ERROR && message.kind != NLMSG_DONE {
        return None;
    }
    let code = u32_at(message.body, 0).unwrap_or(0).cast_signed();
    Some(if code == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(code.saturating_neg())) })
}

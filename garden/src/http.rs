//! HTTP/1.1 as Garden needs it, on either side of a socket.
//!
//! Garden's hijacked calls answer with a head that announces chunks and go on with raw bytes in
//! both directions, which no HTTP library will send. So the socket is ours: httparse reads heads,
//! everything else is here.

pub mod body;
pub mod date;
pub mod head;
pub mod target;
pub mod wire;

pub use body::Body;
pub use head::{BadRequest, RequestHead, ResponseHead};
pub use wire::{Socket, Wire};

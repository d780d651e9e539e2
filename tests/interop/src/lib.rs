//! Replays the exchanges recorded between Garden's original client and server.
//!
//! [`rig`] makes the conditions of the recording, [`replay`] plays a recorded client against our
//! server there; [`stage`] plays a recorded server, while our client makes the recorded calls.
//! [`comparison`] finds what differs after [`vary`] has made equal what differs from
//! run to run, and [`differences`] knows which of that is deliberate.

#![forbid(unsafe_code)]

pub mod archive;
pub mod call;
pub mod comparison;
pub mod connection;
pub mod differences;
pub mod image;
pub mod message;
pub mod recording;
pub mod replay;
pub mod rig;
pub mod stage;
pub mod vary;

//! Replays the exchanges recorded between Garden's original client and server.
//!
//! [`rig`] makes the conditions of the recording, [`replay`] plays a recorded client against our
//! server there. [`comparison`] finds what differs after [`vary`] has made equal what differs from
//! run to run, and [`differences`] knows which of that is deliberate.

#![forbid(unsafe_code)]

pub mod archive;
pub mod comparison;
pub mod differences;
pub mod image;
pub mod message;
pub mod recording;
pub mod replay;
pub mod rig;
pub mod vary;

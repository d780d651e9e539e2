//! The networker on a real kernel: packets arrive, or are refused.

mod place;
mod world;

mod addresses;
mod egress;
mod lifetime;
mod pair;
mod ports;

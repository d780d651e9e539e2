//! Test machines: QEMU guests, cloned from a template, on a switch inside the harness.
//!
//! A template is a machine that has booted, its memory in a file. A clone maps that file privately
//! and goes on from there, so it is ready in a fraction of a second:
//!
//! ```no_run
//! let machine = machine::Machine::start(machine::Kernel::V6_1, "example")?;
//! assert_eq!(machine.run(&["uname", "-s"])?.output, "Linux\n");
//! # anyhow::Ok(())
//! ```
//!
//! Everything is emulated unless `VM_ACCEL=kvm` is set: give whatever runs inside thirty times the
//! time it takes outside, and never measure speed there.

#![forbid(unsafe_code)]

mod cache;
mod cluster;
mod cpio;
pub mod host;
mod image;
mod kernel;
mod link;
mod modules;
mod package;
mod programs;
mod qemu;
mod qmp;
mod switch;
mod template;
mod vm;

pub use cache::{directory, keep, lock};
pub use cluster::Cluster;
pub use kernel::Kernel;
pub use link::{Event, Input, Outcome, Process};
pub use machine_agent::wire::{Command, Window};
pub use package::unpacked;
pub use programs::Programs;
pub use switch::{Counts, Fault, Switch};
pub use vm::Machine;

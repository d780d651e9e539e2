//! Seccomp profiles compiled to BPF: a plain program, a compact one, and the proof that they agree.
//!
//! [`Profile`] is a policy as data, [`garden_default`] the one unprivileged
//! containers get. [`compile`] makes the program to load; [`compile_plain`]
//! makes the one to read. `tests/proof.rs` runs both, and [`Profile::decide`],
//! over every call, interface and boundary argument.
//!
//! Nothing here talks to the kernel: [`Filter::bytes`] is handed to seccomp(2)
//! by whoever starts the process.

#![forbid(unsafe_code)]

mod abi;
mod bpf;
mod clause;
mod compact;
mod default;
mod plain;
mod profile;
mod table;

pub use abi::{Abi, syscall_number};
pub use bpf::{BpfInsn, Filter, Malformed, SeccompData, emulate};
pub use compact::compile;
pub use default::garden_default;
pub use plain::compile_plain;
pub use profile::{Action, Comparison, Condition, Error, Profile, Rule};

//! The executor: runs containers for a cell, by way of Garden.
//!
//! Start reading at [`Executor`]. An owner (the rep) reserves containers, says what they are to run,
//! hears of what becomes of them, and has them deleted. What a container runs is a [`RunInfo`]:
//! actions with their checks, files, environment and limits, in the BBS's own types.
//!
//! The executor speaks Garden's API and nothing else to the machine's containers, so it runs over
//! the original's server as well, and as a user who is not root.

#![forbid(unsafe_code)]

mod absence;
mod archive;
mod cache;
mod capacity;
mod container;
mod egress;
mod environment;
mod executor;
mod fetch;
mod health;
mod identity;
mod life;
mod logs;
mod record;
mod run_info;
mod spec;
mod steps;

pub use capacity::{Insufficient, Resources};
pub use container::{Completion, Container, Guid, Network, PortMapping, Resource, State};
pub use executor::{Config, Error, Event, Executor, Reservation};
pub use fetch::{Checksum, Error as TransferError, Fetched, Transfers, Version};
pub use health::{From as CheckFrom, Helper, Settings as CheckSettings};
pub use identity::{Authority, Error as IdentityError};
pub use logs::{Log, Sink, Usage};
pub use record::Record;
pub use run_info::{Instance, LogConfig, RunInfo, resolve_tags};
pub use spec::{CellLimits, OWNER, RECORD};

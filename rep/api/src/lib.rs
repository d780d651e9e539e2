//! The JSON that auctioneer, BBS and rep exchange: cell states, work, metrics.
//!
//! Keys are spelled as the originals spell them, in several styles. A missing key or a `null` is the
//! type's empty value, and unknown keys are ignored, as with the originals; a list remembers whether
//! it was `null` or `[]`, since an answer that returns a request's part returns it unchanged.

#![forbid(unsafe_code)]

mod auction;
mod cell;
mod list;
mod metrics;
mod placement;
mod update;

pub use auction::{Lrp, LrpStartRequest, LrpState, Task, TaskState, Work};
pub use cell::{CellState, Resources};
pub use list::List;
pub use metrics::{ContainerMetrics, ContainerMetricsCollection, LrpMetrics, TaskMetrics};
pub use placement::{PlacementConstraint, Resource, RootFsProvider, root_fs_parts};
pub use update::{EvacuateResponse, InternalRoute, LrpUpdate};

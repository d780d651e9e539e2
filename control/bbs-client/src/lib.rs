//! A client of the BBS: every call, and the streams of events.
//!
//! ```no_run
//! # async fn example() -> Result<(), bbs_client::Error> {
//! use bbs_client::Client;
//! use bbs_models::{ActualLRPsRequest, Event, error::Type};
//!
//! let client = Client::new("unix:/run/bbs.sock".parse().unwrap(), None)?;
//! let on_cell = ActualLRPsRequest { cell_id: "cell-1".into(), ..Default::default() };
//! let instances = client.actual_lrps(on_cell).await?;
//! match client.desired_lrp("process").await {
//!     Err(error) if error.is(Type::ResourceNotFound) => {}
//!     result => drop(result?),
//! }
//!
//! // Subscribe first, list afterwards: nothing is replayed. When the stream ends, do both again.
//! let mut events = client.instance_events("cell-1").await?;
//! while let Some(event) = events.next().await? {
//!     if let Event::ActualLRPInstanceRemoved(removed) = event {
//!         println!("{} is gone", removed.actual_lrp.actual_lrp_key.process_guid);
//!     }
//! }
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod actual_lrps;
mod call;
mod desired_lrps;
mod error;
mod events;
mod tasks;

pub use call::Client;
pub use error::Error;
pub use events::{Events, RESUBSCRIBE};

//! Why a rep was not asked, or what it said.

use http::StatusCode;
use transport::{Address, BadAddress};

/// A failed call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such address.
    #[error("cell {cell_id} has no usable address")]
    Address {
        /// The cell.
        cell_id: String,
        /// What is wrong with it.
        source: BadAddress,
    },
    /// No answer.
    #[error(transparent)]
    Transport(#[from] transport::Error),
    /// A refusal. Reps give no reason.
    #[error("{call} at {address}: the rep answers {status}")]
    Status {
        /// Method and path.
        call: String,
        /// The rep.
        address: Address,
        /// Its answer.
        status: StatusCode,
    },
    /// An answer that is not the rep's JSON.
    #[error("{call} at {address}: the answer is not the rep's")]
    Body {
        /// Method and path.
        call: String,
        /// The rep.
        address: Address,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

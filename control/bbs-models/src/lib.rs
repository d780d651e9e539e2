//! The BBS's protobuf messages (package `models`), their errors, their validation and the rules
//! that consumers share.
//!
//! The messages are generated from `proto/`, whose numbers are those of the original; every type
//! stands at the crate's root, an enum in a module named for its message
//! ([`actual_lrp::Presence`], [`error::Type`]). What a peer of another version sends is kept:
//! unknown fields and unknown enum numbers survive decoding and encoding at every depth.
//!
//! ```
//! use bbs_models::{ActualLRP, ActualLRPInstanceKey, ActualLRPKey, Message, Validate, actual_lrp};
//!
//! let lrp = ActualLRP {
//!     actual_lrp_key: ActualLRPKey::new("process", 0, "cf-apps").into(),
//!     // Present but empty is not the same as absent: both survive.
//!     actual_lrp_instance_key: ActualLRPInstanceKey::default().into(),
//!     presence: actual_lrp::Presence::EVACUATING.into(),
//!     routable: Some(false),
//!     ..Default::default()
//! };
//! let lrp = ActualLRP::decode_from_slice(&lrp.encode_to_vec())?;
//! // An absent message reads as the default one; `is_set` tells the difference.
//! assert_eq!(lrp.actual_lrp_key.process_guid, "process");
//! assert!(lrp.actual_lrp_instance_key.is_set() && !lrp.actual_lrp_net_info.is_set());
//! assert_eq!(lrp.presence, actual_lrp::Presence::EVACUATING);
//!
//! let refused = ActualLRPInstanceKey::default().validate().unwrap_err();
//! assert_eq!(refused.message, "Invalid field: cell_id, Invalid field: instance_guid");
//! # Ok::<(), buffa::DecodeError>(())
//! ```
//!
//! `==` on messages takes an absent sub-message for an empty one. Where that matters compare the
//! encoded bytes, which are the same for the same message (maps are ordered).

#![forbid(unsafe_code)]

mod actual_lrps;
mod desired_lrps;
mod errors;
mod events;
#[allow(missing_docs)] // Generated: the fields are told in `proto/` and in the field tables there.
mod generated {
    include!(concat!(env!("OUT_DIR"), "/models.tree.rs"));
}
mod validation;

pub use buffa::{DecodeError, EnumValue, Message, MessageField};

pub use crate::actual_lrps::state;
pub use crate::desired_lrps::app_guid;
pub use crate::events::{Event, EventKind, UnknownEvent};
pub use crate::generated::models::*;
pub use crate::validation::{Problems, Validate};

//! Manifests: what apps should be, in YAML.
//!
//! `document` reads one and names everything that is wrong with it, `route` finds the domain of a
//! route, `diff` compares it with what is: all pure. `apply` makes the changes, an app at a time,
//! each in one transaction.

pub(crate) mod apply;
pub(crate) mod current;
pub(crate) mod diff;
pub(crate) mod document;
pub(crate) mod route;
pub(crate) mod size;

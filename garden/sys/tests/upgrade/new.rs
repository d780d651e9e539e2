//! A daemon's side and a supervisor of this build.

use garden_sys as build;
#[path = "../cell/mod.rs"]
pub mod cell;

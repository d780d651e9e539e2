//! A daemon's side and a supervisor of the build before.

use garden_sys_previous as build;
#[path = "../cell/mod.rs"]
pub mod cell;

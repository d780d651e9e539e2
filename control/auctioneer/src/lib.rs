//! Places instances and tasks on cells by auction.

#![forbid(unsafe_code)]

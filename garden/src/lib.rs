//! The container daemon: Garden's HTTP API over real Linux containers.

#![forbid(unsafe_code)]

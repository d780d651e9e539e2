//! The last logs and metrics of every source, and Log Cache's read API.

#![forbid(unsafe_code)]

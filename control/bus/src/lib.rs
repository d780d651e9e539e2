//! The messages of NATS, within one process or through a NATS server.

#![forbid(unsafe_code)]

//! Locks and presences with a time to live: the gRPC service and its client.

#![forbid(unsafe_code)]

//! The HTTP router: route table, retries, stickiness, headers, websockets.

#![forbid(unsafe_code)]

//! What runs inside app containers: builder, launcher, health check.

#![forbid(unsafe_code)]

//! Runs containers' steps over Garden: actions, checks, downloads, uploads, logs, identity.

#![forbid(unsafe_code)]

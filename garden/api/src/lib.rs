//! Garden's wire types: what travels between a Garden client and server as JSON.

#![forbid(unsafe_code)]

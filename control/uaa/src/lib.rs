//! Users, clients and tokens: the part of UAA that Cloud Foundry's clients and components use.

#![forbid(unsafe_code)]

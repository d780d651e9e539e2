//! The JSON that auctioneer, BBS and rep exchange: cell states, work, metrics.

#![forbid(unsafe_code)]

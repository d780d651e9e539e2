//! The cell: bids in auctions, and keeps the BBS and Garden in agreement.

#![forbid(unsafe_code)]

//! A client of the BBS: every call, with the original's retries, and the event streams.

#![forbid(unsafe_code)]

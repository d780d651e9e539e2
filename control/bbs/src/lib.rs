//! The bulletin board: desired and actual LRPs, tasks, events and convergence, over SQL.

#![forbid(unsafe_code)]

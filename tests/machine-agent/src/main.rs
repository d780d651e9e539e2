//! Process 1 of a test machine.

fn main() {}

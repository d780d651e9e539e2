//! What a cell does in its containers by the program itself: checks and archives.

#[path = "../../../executor/tests/cell/mod.rs"]
mod cell;
mod checks;
#[path = "../../../garden/tests/plot/mod.rs"]
mod plot;
mod transfers;

const BLOOMERY: &str = env!("CARGO_BIN_EXE_bloomery");

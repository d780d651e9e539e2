//! Whether a bus reaches others.

/// The state of a bus's connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// There is one.
    pub up: bool,
    /// How many there have been. A larger number than before means that messages may have been
    /// missed in between.
    pub times: u64,
}

//! The error body that every failed call answers with.

use serde::{Deserialize, Serialize};

/// All five keys are always on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename = "garden.marshalledError")]
pub struct WireError {
    /// Chooses the client's error type; the status does not.
    #[serde(rename = "Type")]
    pub kind: ErrorKind,
    /// For people, and for clients that compare whole texts.
    #[serde(rename = "Message")]
    pub message: String,
    /// Of a container that was not found.
    #[serde(rename = "Handle")]
    pub handle: String,
    /// Of a process that was not found.
    #[serde(rename = "ProcessID")]
    pub process_id: String,
    /// Never filled by the reference.
    #[serde(rename = "Binary")]
    pub binary: String,
}

/// The `Type` of a [`WireError`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorKind {
    /// No container has this handle.
    #[serde(rename = "ContainerNotFoundError")]
    ContainerNotFound,
    /// No process has this id.
    #[serde(rename = "ProcessNotFoundError")]
    ProcessNotFound,
    /// The program to run does not exist.
    #[serde(rename = "ExecutableNotFoundError")]
    ExecutableNotFound,
    /// Try again later.
    #[serde(rename = "ServiceUnavailableError")]
    ServiceUnavailable,
    /// Trying again is of no use.
    #[serde(rename = "UnrecoverableError")]
    Unrecoverable,
    /// Anything else.
    #[default]
    #[serde(rename = "", other)]
    Untyped,
}

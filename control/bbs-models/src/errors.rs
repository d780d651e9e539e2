//! [`Error`], which is the first field of every answer, and the standard message of each type.

use std::fmt;

use crate::generated::models::{Error, error::Type};

impl Type {
    /// The text that the original sends with this type when nothing more is to be said.
    pub fn standard_message(self) -> &'static str {
        match self {
            Self::InvalidRequest => "the request received is invalid",
            Self::ResourceConflict => "the requested resource is in a conflicting state",
            Self::ResourceExists => "the requested resource already exists",
            Self::ResourceNotFound => "the requested resource could not be found",
            Self::ActualLRPCannotBeClaimed => "cannot claim actual LRP",
            Self::ActualLRPCannotBeStarted => "cannot start actual LRP",
            Self::ActualLRPCannotBeCrashed => "cannot crash actual LRP",
            Self::ActualLRPCannotBeFailed => "cannot fail actual LRP",
            Self::ActualLRPCannotBeRemoved => "cannot remove actual LRP",
            Self::ActualLRPCannotBeUnclaimed => "cannot unclaim actual LRP",
            Self::Deserialize => "could not deserialize record",
            Self::Deadlock => "the request failed due to deadlock",
            Self::LockCollision => "lock already exists",
            _ => "the request failed for an unknown reason",
        }
    }
}

impl Error {
    /// An error with a message of its own.
    pub fn new(kind: Type, message: impl Into<String>) -> Self {
        Self { r#type: kind.into(), message: message.into(), ..Self::default() }
    }

    /// A state machine refused: the states in the words of the wire (`Pending`, `CLAIMED`).
    pub fn invalid_state_transition(from: impl fmt::Display, to: impl fmt::Display) -> Self {
        Self::new(Type::InvalidStateTransition, format!("Cannot transition from {from} to {to}"))
    }

    /// A task is reported by a cell that does not have it.
    pub fn running_on_different_cell(recorded: &str, caller: &str) -> Self {
        Self::new(Type::RunningOnDifferentCell, format!("Running on cell {recorded} not {caller}"))
    }

    /// The original compares errors by type alone, whatever they say.
    pub fn is(&self, kind: Type) -> bool {
        self.r#type == kind
    }
}

impl From<Type> for Error {
    /// With the standard message.
    fn from(kind: Type) -> Self {
        Self::new(kind, kind.standard_message())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

//! Why a call did not do what was asked.

use bbs_models::DecodeError;
use bbs_models::error::Type;
use http::StatusCode;

/// A call that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The BBS refuses.
    #[error("{call}: {error}")]
    Refused {
        /// The path.
        call: &'static str,
        /// What it says.
        error: Box<bbs_models::Error>,
    },
    /// It cannot be reached, or does not answer in time.
    #[error("{call}")]
    Unreachable {
        /// The path.
        call: &'static str,
        /// Why.
        source: Box<transport::Error>,
    },
    /// A BBS that does not know the call.
    #[error("{call}: the BBS does not serve it")]
    NotServed {
        /// The path.
        call: &'static str,
    },
    /// Something that is no BBS answers, such as a router on the way.
    #[error("{call}: unexpected answer {status}")]
    Status {
        /// The path.
        call: &'static str,
        /// Its answer.
        status: StatusCode,
        /// The answer comes from a router.
        router: bool,
    },
    /// The answer is no message of the kind that is expected.
    #[error("{call}: the answer is not readable")]
    Answer {
        /// The path.
        call: &'static str,
        /// Why.
        source: DecodeError,
    },
    /// An event stream broke, or something in it is not readable.
    #[error("{call}: the event stream broke: {reason}")]
    Stream {
        /// The path.
        call: &'static str,
        /// Why.
        reason: String,
    },
}

impl Error {
    /// The type that the original's client gives this error.
    pub fn kind(&self) -> Type {
        match self {
            Self::Refused { error, .. } => error.r#type.as_known().unwrap_or(Type::UnknownError),
            Self::Unreachable { source, .. } if source.is_timeout() => Type::Timeout,
            Self::Unreachable { .. } | Self::NotServed { .. } => Type::UnknownError,
            Self::Status { router: true, .. } => Type::RouterError,
            Self::Status { .. } | Self::Stream { .. } => Type::InvalidResponse,
            Self::Answer { .. } => Type::InvalidProtobufMessage,
        }
    }

    /// Errors are told apart by type alone.
    pub fn is(&self, kind: Type) -> bool {
        self.kind() == kind
    }
}

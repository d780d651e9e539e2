//! Events as the streams carry them: a type in words and a message.

use std::fmt;

use buffa::{DecodeError, Message};

use crate::generated::models as m;

macro_rules! events {
    ($($variant:ident($message:ident) = $name:literal,)*) => {
        /// An event's type, spelled on the wire as [`EventKind::name`] says.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum EventKind {
            $($variant,)*
        }

        /// One event of a stream.
        /// One event of a stream.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs)]
        #[allow(clippy::large_enum_variant)] // It is shared or passed on at once, not collected.
        pub enum Event {
            $($variant(m::$message),)*
        }

        impl EventKind {
            const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The `event:` line of a stream.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }

        impl Event {
            /// Its type.
            pub fn kind(&self) -> EventKind {
                match self {
                    $(Self::$variant(_) => EventKind::$variant,)*
                }
            }

            /// The message's bytes, which a stream carries in base64.
            pub fn encode(&self) -> Vec<u8> {
                match self {
                    $(Self::$variant(message) => message.encode_to_vec(),)*
                }
            }

            /// The event of this type with these bytes.
            pub fn decode(kind: EventKind, bytes: &[u8]) -> Result<Self, DecodeError> {
                Ok(match kind {
                    $(EventKind::$variant => Self::$variant(Message::decode_from_slice(bytes)?),)*
                })
            }
        }

        $(impl From<m::$message> for Event {
            fn from(message: m::$message) -> Self {
                Self::$variant(message)
            }
        })*
    };
}

events! {
    DesiredLRPCreated(DesiredLRPCreatedEvent) = "desired_lrp_created",
    DesiredLRPChanged(DesiredLRPChangedEvent) = "desired_lrp_changed",
    DesiredLRPRemoved(DesiredLRPRemovedEvent) = "desired_lrp_removed",
    ActualLRPInstanceCreated(ActualLRPInstanceCreatedEvent) = "actual_lrp_instance_created",
    ActualLRPInstanceChanged(ActualLRPInstanceChangedEvent) = "actual_lrp_instance_changed",
    ActualLRPInstanceRemoved(ActualLRPInstanceRemovedEvent) = "actual_lrp_instance_removed",
    ActualLRPCrashed(ActualLRPCrashedEvent) = "actual_lrp_crashed",
    TaskCreated(TaskCreatedEvent) = "task_created",
    TaskChanged(TaskChangedEvent) = "task_changed",
    TaskRemoved(TaskRemovedEvent) = "task_removed",
    ActualLRPGroupCreated(ActualLRPCreatedEvent) = "actual_lrp_created",
    ActualLRPGroupChanged(ActualLRPChangedEvent) = "actual_lrp_changed",
    ActualLRPGroupRemoved(ActualLRPRemovedEvent) = "actual_lrp_removed",
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A type that this version does not know. A consumer skips such an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown event type {0:?}")]
pub struct UnknownEvent(pub String);

impl std::str::FromStr for EventKind {
    type Err = UnknownEvent;

    fn from_str(name: &str) -> Result<Self, UnknownEvent> {
        let known = Self::ALL.iter().find(|kind| kind.name() == name);
        known.copied().ok_or_else(|| UnknownEvent(name.into()))
    }
}

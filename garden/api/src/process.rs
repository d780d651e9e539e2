//! Processes, and the frames of a hijacked connection.

use serde::{Deserialize, Serialize};

use crate::container::{BindMount, ImageRef};
use crate::limits::{ProcessLimits, ResourceLimits};
use crate::spelling::{is_default, wire_integer};

/// What Run asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename = "garden.ProcessSpec")]
pub struct ProcessSpec {
    /// Empty: the server generates a version 4 UUID.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The executable, searched in the process's PATH if it has no slash; also `argv[0]`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Arguments after `argv[0]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// `KEY=value`, after the image's and the container's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Working directory; empty: the user's home. Created if missing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub dir: String,
    /// `name`, `uid`, `name:group` or `uid:gid`; empty: root.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Of this process alone.
    pub rlimits: ResourceLimits,
    /// Only for processes with an image of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<ProcessLimits>,
    /// Present, even empty: on a terminal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tty: Option<TtySpec>,
    /// A root file system of its own.
    pub image: ImageRef,
    /// Only together with an image.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bind_mounts: Vec<BindMount>,
}

/// A terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename = "garden.TTYSpec")]
pub struct TtySpec {
    /// Absent: the default size; in a resize: no change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_size: Option<WindowSize>,
}

/// A terminal's size in characters. Zero is the default: 80 columns, 24 rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename = "garden.WindowSize")]
pub struct WindowSize {
    /// Width.
    #[serde(skip_serializing_if = "is_default")]
    pub columns: u16,
    /// Height.
    #[serde(skip_serializing_if = "is_default")]
    pub rows: u16,
}

impl WindowSize {
    /// With the defaults in place of zeros.
    #[must_use]
    pub fn or_default(self) -> Self {
        Self {
            columns: if self.columns == 0 { 80 } else { self.columns },
            rows: if self.rows == 0 { 24 } else { self.rows },
        }
    }
}

wire_integer! {
    /// A request to end a process.
    Signal: i64 as "garden.Signal" {
        /// SIGTERM.
        Terminate = 0,
        /// SIGKILL.
        Kill = 1,
    }
}

wire_integer! {
    /// Which stream a frame's data belongs to.
    Source: i64 as "transport.Source" {
        /// Standard input.
        Stdin = 0,
        /// Standard output.
        Stdout = 1,
        /// Standard error.
        Stderr = 2,
    }
}

/// One frame on a hijacked connection, in either direction. A frame from the client does one
/// thing: the first of `tty`, `source` and `signal` that is present.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename = "transport.ProcessPayload")]
pub struct Payload {
    /// Not looked at by the server.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub process_id: String,
    /// Only in the server's first frame: the token of the stream connections.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stream_id: String,
    /// Present in stdin frames.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Stdin; absent beside a `source`: end of stdin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Final: exit code, or 128 + signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_status: Option<i64>,
    /// Final: the status is not known, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Resize.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tty: Option<TtySpec>,
    /// Signal the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<Signal>,
}

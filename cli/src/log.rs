//! The daemons' log, on stderr.

use std::io::IsTerminal;

use tracing_subscriber::filter::LevelFilter;

/// How log lines look.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
pub enum Format {
    /// For people.
    Text,
    /// An object per line.
    Json,
}

/// Begins to log, from this level on. Once per process.
pub fn start(level: LevelFilter, format: Format) {
    let lines = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        Format::Text => lines.init(),
        Format::Json => lines.json().init(),
    }
}

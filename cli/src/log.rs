//! The daemons' log, on stderr.

mod lager;

use std::io::IsTerminal;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, reload};

pub use lager::TimeFormat;

/// How log lines look.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// An object per line.
    Json,
    /// An object per line as lager's, the originals' library, has it.
    Lager,
}

/// The level of a log that has begun.
#[derive(Clone, Debug)]
pub struct Level(reload::Handle<LevelFilter, Registry>);

impl Level {
    /// From now on this level and those above it are logged.
    pub fn set(&self, level: LevelFilter) {
        // The log lives as long as the process.
        let _ = self.0.modify(|filter| *filter = level);
    }
}

/// Begins to log for people what happens. Once per process.
pub fn start_for_people() {
    start(LevelFilter::INFO, Format::Text, "", TimeFormat::Rfc3339);
}

/// Begins to log, from this level on. Once per process. What `source` is called and how `time` is
/// given is for lager's lines.
pub fn start(level: LevelFilter, format: Format, source: &'static str, time: TimeFormat) -> Level {
    let (filter, handle) = reload::Layer::new(level);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let lines = match format {
        Format::Text => lines.boxed(),
        Format::Json => lines.json().boxed(),
        Format::Lager => {
            let events = lager::Lager::new(source, time);
            lines.fmt_fields(JsonFields::new()).event_format(events).boxed()
        }
    };
    tracing_subscriber::registry().with(filter).with(lines).init();
    Level(handle)
}

//! What a plugin writes to its stderr, as lines of the daemon's log.

use serde::Deserialize;

/// Of one run, in bytes; a plugin must not fill the log.
const MOST: usize = 64 << 10;
/// Of one line.
const LONGEST_LINE: usize = 4 << 10;

/// One run's.
#[derive(Debug)]
pub(super) struct Report<'a> {
    action: &'a str,
    handle: &'a str,
    line: Vec<u8>,
    bytes: usize,
    dropped: usize,
}

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Debug,
    Info,
    Error,
}

/// A line of lager, the original's logger, in its older and newer form.
#[derive(Deserialize)]
struct LagerLine {
    #[serde(default)]
    log_level: Option<u8>,
    #[serde(default)]
    level: Option<String>,
}

impl<'a> Report<'a> {
    pub(super) fn of(action: &'a str, handle: &'a str) -> Self {
        Self { action, handle, line: Vec::new(), bytes: 0, dropped: 0 }
    }

    pub(super) fn add(&mut self, piece: &[u8]) {
        let room = MOST.saturating_sub(self.bytes).min(piece.len());
        self.bytes += room;
        self.dropped += piece.len() - room;
        for &byte in &piece[..room] {
            if byte == b'\n' || self.line.len() == LONGEST_LINE {
                self.flush();
            }
            if byte != b'\n' {
                self.line.push(byte);
            }
        }
    }

    pub(super) fn end(&mut self) {
        self.flush();
        let Self { action, handle, dropped, .. } = *self;
        if dropped > 0 {
            tracing::warn!(handle, action, dropped, "a plugin has written too much for the log");
        }
    }

    fn flush(&mut self) {
        let line = std::mem::take(&mut self.line);
        let Self { action, handle, .. } = *self;
        let line = String::from_utf8_lossy(&line);
        match level(&line) {
            _ if line.trim().is_empty() => {}
            Level::Debug => tracing::debug!(handle, action, plugin = %line),
            Level::Info => tracing::info!(handle, action, plugin = %line),
            Level::Error => tracing::error!(handle, action, plugin = %line),
        }
    }
}

fn level(line: &str) -> Level {
    if !line.starts_with('{') {
        return Level::Info;
    }
    match serde_json::from_str::<LagerLine>(line) {
        Ok(LagerLine { log_level: Some(0), .. }) => Level::Debug,
        Ok(LagerLine { log_level: Some(2..), .. }) => Level::Error,
        Ok(LagerLine { level: Some(level), .. }) => match level.as_str() {
            "debug" => Level::Debug,
            "error" | "fatal" => Level::Error,
            _ => Level::Info,
        },
        _ => Level::Info,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_originals_logger_keep_their_level() {
        for (line, expected) in [
            ("plain words", Level::Info),
            ("{not json", Level::Info),
            (r#"{"timestamp":"1.5","source":"grootfs","message":"m","log_level":0}"#, Level::Debug),
            (r#"{"timestamp":"1.5","source":"grootfs","message":"m","log_level":1}"#, Level::Info),
            (r#"{"timestamp":"1.5","source":"grootfs","message":"m","log_level":3}"#, Level::Error),
            (r#"{"timestamp":"2026","level":"error","message":"m"}"#, Level::Error),
        ] {
            assert_eq!(level(line), expected, "{line}");
        }
    }

    #[test]
    fn a_run_has_a_share_of_the_log_and_no_more() {
        let mut report = Report::of("up", "a");
        report.add(&vec![b'x'; MOST + 7]);
        report.add(b"more\n");
        assert_eq!((report.bytes, report.dropped), (MOST, 12));
        assert!(report.line.len() <= LONGEST_LINE);
    }
}

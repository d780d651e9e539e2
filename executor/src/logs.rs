//! A container's log: lines of its processes, cut, tagged and limited (diego.md 10.9).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::run_info::LogConfig;

/// The most bytes of one message.
const MESSAGE: usize = 61_440;

/// Where logs go: a loggregator agent, or something like one. It is called from many tasks and
/// must not wait.
pub trait Sink: Send + Sync {
    /// Takes one message.
    fn log(&self, log: Log);

    /// Counts something of a source: `app instance exceeded …` and the like.
    fn count(&self, source: &LogConfig, name: &'static str);

    /// Takes what a container uses. Whoever keeps logs only need not.
    fn usage(&self, _usage: Usage) {}
}

/// What a container uses, now and then.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// Whose it is.
    pub source: LogConfig,
    /// Tags of its metrics.
    pub tags: BTreeMap<String, String>,
    /// Since its creation.
    pub age: Duration,
    /// Cores in use since the last time: 1.0 is one whole core.
    pub cpu_fraction: f64,
    /// CPU time since its creation.
    pub cpu_used: Duration,
    /// CPU time that its share entitled it to since then.
    pub cpu_entitled: Duration,
    /// The one over the other since the last time; none where it is entitled to nothing.
    pub cpu_entitlement_fraction: Option<f64>,
    /// Bytes.
    pub memory_bytes: u64,
    /// Bytes that it may use; 0 is no limit.
    pub memory_quota_bytes: u64,
    /// Bytes.
    pub disk_bytes: u64,
    /// Bytes that it may use; 0 is no limit.
    pub disk_quota_bytes: u64,
    /// Bytes received, where the network counts them.
    pub rx_bytes: Option<u64>,
    /// Bytes sent, where the network counts them.
    pub tx_bytes: Option<u64>,
    /// Bytes per second that it may log: -1 is no limit.
    pub log_rate_limit: i64,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Whose it is.
    pub source_id: String,
    /// The instance's index, as text.
    pub instance_id: String,
    /// `APP/PROC/WEB`, `STG`, `CELL`, …
    pub source_type: String,
    /// Further tags.
    pub tags: BTreeMap<String, String>,
    /// Standard error, or standard output.
    pub is_error: bool,
    /// One line, without its end; not always UTF-8.
    pub message: Vec<u8>,
}

/// The log of one container. Clones share its limit.
#[derive(Clone)]
pub struct Streamer {
    config: Arc<LogConfig>,
    limit: Arc<Limit>,
    sink: Arc<dyn Sink>,
}

impl std::fmt::Debug for Streamer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streamer").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Streamer {
    /// `bytes_per_second`: -1 is no limit, 0 is nothing at all.
    pub fn new(config: LogConfig, bytes_per_second: i64, sink: Arc<dyn Sink>) -> Self {
        Self { config: config.into(), limit: Limit::new(bytes_per_second).into(), sink }
    }

    /// What the platform itself has to say of the container; it does not count against its limit.
    pub fn platform(&self, source: &str, is_error: bool, message: &str) {
        self.emit(source, is_error, message.as_bytes());
    }

    /// Reads a process's output to its end, line by line.
    pub async fn stream(&self, source: &str, is_error: bool, mut output: impl AsyncRead + Unpin) {
        let mut lines = Lines::default();
        let mut piece = vec![0; 16 << 10];
        // A broken connection ends the output; the process's own end is told elsewhere.
        while let Ok(read @ 1..) = output.read(&mut piece).await {
            lines.take(&piece[..read], |line| self.line(source, is_error, line));
        }
        lines.finish(|line| self.line(source, is_error, line));
    }

    fn line(&self, source: &str, is_error: bool, line: &[u8]) {
        match self.limit.admit(line.len(), Instant::now()) {
            Verdict::Admitted => self.emit(source, is_error, line),
            Verdict::Exceeded { bytes_per_second } => {
                self.sink.count(&self.config, "AppInstanceExceededLogRateLimitCount");
                let text =
                    format!("app instance exceeded log rate limit ({bytes_per_second} bytes/sec)");
                self.emit(source, true, text.as_bytes());
            }
            Verdict::Dropped => {}
        }
    }

    fn emit(&self, source: &str, is_error: bool, message: &[u8]) {
        if self.config.guid.is_empty() || message.is_empty() {
            return;
        }
        let config = &self.config;
        let source_type = [source, config.source_name.as_str()]
            .into_iter()
            .find(|name| !name.is_empty())
            .unwrap_or("LOG");
        let given = |tag: &str, otherwise: &str| {
            config.tags.get(tag).map_or_else(|| otherwise.to_owned(), Clone::clone)
        };
        self.sink.log(Log {
            source_id: given("source_id", &config.guid),
            instance_id: given("instance_id", &config.index.to_string()),
            source_type: source_type.to_owned(),
            tags: config.tags.clone(),
            is_error,
            message: message.to_vec(),
        });
    }
}

/// Cuts a stream into lines at CR and LF, and long lines into messages. Empty lines are no message.
#[derive(Debug, Default)]
struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    fn take(&mut self, bytes: &[u8], mut line: impl FnMut(&[u8])) {
        for piece in bytes.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            let (text, ended) = match piece.split_last() {
                Some((b'\n' | b'\r', text)) => (text, true),
                _ => (piece, false),
            };
            self.begun.extend_from_slice(text);
            while self.begun.len() > MESSAGE {
                let cut = cut(&self.begun);
                line(&self.begun[..cut]);
                self.begun.drain(..cut);
            }
            if ended {
                self.finish(&mut line);
            }
        }
    }

    fn finish(&mut self, mut line: impl FnMut(&[u8])) {
        if !self.begun.is_empty() {
            line(&self.begun);
            self.begun.clear();
        }
    }
}

/// Where a message that is too long ends: at the limit, or before the character that lies across it.
fn cut(bytes: &[u8]) -> usize {
    let is_continuation = |byte: u8| byte & 0b1100_0000 == 0b1000_0000;
    (MESSAGE - 3..=MESSAGE).rev().find(|&at| !is_continuation(bytes[at])).unwrap_or(MESSAGE)
}

/// A token bucket of the size of one second. When it is empty, everything is dropped for a second.
#[derive(Debug)]
struct Limit {
    bytes_per_second: i64,
    bucket: Mutex<Option<Bucket>>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
    silent_until: Option<Instant>,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Admitted,
    /// The first that is dropped.
    Exceeded {
        bytes_per_second: i64,
    },
    Dropped,
}

impl Limit {
    fn new(bytes_per_second: i64) -> Self {
        Self { bytes_per_second, bucket: Mutex::new(None) }
    }

    fn admit(&self, bytes: usize, now: Instant) -> Verdict {
        match self.bytes_per_second {
            ..0 => return Verdict::Admitted,
            0 => return Verdict::Dropped,
            _ => {}
        }
        #[allow(clippy::cast_precision_loss)] // Limits and lines are far below 2^52.
        let (rate, bytes) = (self.bytes_per_second as f64, bytes as f64);
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = bucket.get_or_insert(Bucket { tokens: rate, filled: now, silent_until: None });
        if bucket.silent_until.is_some_and(|until| now < until) {
            return Verdict::Dropped;
        }
        bucket.silent_until = None;
        let since = now.saturating_duration_since(bucket.filled).as_secs_f64();
        bucket.tokens = (bucket.tokens + since * rate).min(rate);
        bucket.filled = now;
        if bytes <= bucket.tokens {
            bucket.tokens -= bytes;
            Verdict::Admitted
        } else {
            bucket.silent_until = Some(now + Duration::from_secs(1));
            Verdict::Exceeded { bytes_per_second: self.bytes_per_second }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::{Limit, Lines, Log, LogConfig, MESSAGE, Sink, Streamer, Verdict};

    #[derive(Default)]
    struct Kept(Mutex<Vec<Log>>);

    impl Sink for Kept {
        fn log(&self, log: Log) {
            self.0.lock().unwrap().push(log);
        }
        fn count(&self, _: &LogConfig, _: &'static str) {}
    }

    fn lines(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        for piece in pieces {
            lines.take(piece, |line| seen.push(line.to_vec()));
        }
        lines.finish(|line| seen.push(line.to_vec()));
        seen
    }

    #[test]
    fn lines_end_at_either_end() {
        assert_eq!(lines(&[b"a\nb", b"c\r\n\nd"]), [b"a".to_vec(), b"bc".to_vec(), b"d".to_vec()]);
    }

    #[test]
    fn long_lines_are_cut_between_characters() {
        let mut text = "x".repeat(MESSAGE - 1);
        text.push('é');
        text.push('!');
        let seen = lines(&[text.as_bytes()]);
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[0].len(), MESSAGE - 1);
        assert_eq!(seen[1], "é!".as_bytes());
    }

    proptest! {
        #[test]
        fn nothing_but_line_ends_is_lost(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..20)
        ) {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let all: Vec<u8> = pieces.concat();
            let kept: Vec<u8> =
                all.iter().copied().filter(|byte| !matches!(byte, b'\n' | b'\r')).collect();
            prop_assert_eq!(lines(&pieces).concat(), kept);
        }
    }

    #[test]
    fn beyond_the_limit_there_is_a_second_of_silence() {
        let limit = Limit::new(100);
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(limit.admit(100, at(0)), Verdict::Admitted);
        assert_eq!(limit.admit(50, at(500)), Verdict::Admitted);
        assert_eq!(limit.admit(1, at(500)), Verdict::Exceeded { bytes_per_second: 100 });
        assert_eq!(limit.admit(1, at(1499)), Verdict::Dropped);
        assert_eq!(limit.admit(1, at(1500)), Verdict::Admitted);
        // A single message above the limit never passes.
        assert_eq!(limit.admit(101, at(9000)), Verdict::Exceeded { bytes_per_second: 100 });
        assert_eq!(Limit::new(-1).admit(1 << 40, start), Verdict::Admitted);
        assert_eq!(Limit::new(0).admit(1, start), Verdict::Dropped);
    }

    #[tokio::test]
    async fn messages_are_tagged_with_their_source() {
        let kept = Arc::new(Kept::default());
        let config = LogConfig {
            guid: "app".into(),
            index: 3,
            source_name: "CELL".into(),
            tags: [("process_type".to_owned(), "web".to_owned())].into(),
        };
        let streamer = Streamer::new(config.clone(), -1, kept.clone());
        streamer.stream("APP/PROC/WEB", false, &b"one\ntwo"[..]).await;
        streamer.platform("", true, "created");
        let logs = std::mem::take(&mut *kept.0.lock().unwrap());
        assert_eq!(logs.len(), 3);
        assert_eq!((logs[0].source_id.as_str(), logs[0].instance_id.as_str()), ("app", "3"));
        assert_eq!(logs[1].message, b"two");
        assert_eq!(logs[2].source_type, "CELL");
        assert!(logs[2].is_error);

        let silent = LogConfig { guid: String::new(), ..config };
        Streamer::new(silent, -1, kept.clone()).platform("", false, "nobody hears");
        assert!(kept.0.lock().unwrap().is_empty());
    }
}

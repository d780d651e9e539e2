//! The envelopes of all sources, in memory.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prost::Message as _;
use tokio::sync::Notify;

use crate::envelope::now;
use crate::messages::loggregator::v2::{Envelope, envelope::Message};
use crate::selection::Selection;

/// What an envelope takes beside its own bytes: its places in the indexes.
const OVERHEAD: usize = 256;
/// Instances of one source whose numbers are kept.
const INSTANCES: usize = 1000;
/// Names of numbers of one instance.
const NUMBERS: usize = 100;
/// Envelopes that are looked at under one hold of the lock.
const AT_ONCE: usize = 2048;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Envelopes of one source; then its oldest go.
    pub envelopes_per_source: usize,
    /// Bytes of all; then the oldest of the source that has most go.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { envelopes_per_source: 100_000, bytes: 256 << 20 }
    }
}

/// Keeps envelopes. Clones share them.
#[derive(Clone, Debug)]
pub struct Store {
    limits: Limits,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    sources: HashMap<String, Source>,
    bytes: usize,
    /// Who waits for envelopes of which source.
    waiting: HashMap<String, Arc<Notify>>,
}

/// One source. An envelope is known by its time and by its place in the walk.
#[derive(Debug, Default)]
struct Source {
    by_time: BTreeMap<(i64, i64), Arc<Envelope>>,
    /// Place in the walk to time.
    walk: BTreeMap<i64, i64>,
    last_place: Option<i64>,
    bytes: usize,
    expired: u64,
    latest: BTreeMap<(String, String), BTreeMap<String, Number>>,
}

/// An envelope that a reader gets, and when it is said to be of.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Nanoseconds since the epoch: its timestamp, or its place in a walk.
    pub at: i64,
    /// The envelope with its true time.
    pub envelope: Arc<Envelope>,
}

/// What there is of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Envelopes.
    pub count: u64,
    /// Envelopes that made room for others.
    pub expired: u64,
    /// Nanoseconds since the epoch.
    pub oldest_timestamp: i64,
    /// Nanoseconds since the epoch.
    pub newest_timestamp: i64,
}

/// The last value under one name.
#[derive(Clone, Debug, PartialEq)]
pub struct Number {
    /// Nanoseconds since the epoch.
    pub timestamp: i64,
    /// `bytes`, `percentage`, …
    pub unit: String,
    /// The value.
    pub value: f64,
}

/// The last numbers of one instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Latest {
    /// The tag `process_id`, empty without one: instances of several processes are of one source.
    pub process_id: String,
    /// The instance's index, as text.
    pub instance_id: String,
    /// By name.
    pub numbers: BTreeMap<String, Number>,
}

impl Default for Store {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Store {
    /// An empty one.
    pub fn new(limits: Limits) -> Self {
        Self { limits, state: Arc::default() }
    }

    /// Takes envelopes in this order.
    pub fn add(&self, envelopes: impl IntoIterator<Item = Envelope>) {
        self.add_at(envelopes, now());
    }

    fn add_at(&self, envelopes: impl IntoIterator<Item = Envelope>, now: i64) {
        let mut state = self.state();
        for envelope in envelopes {
            state.add(envelope, now, self.limits.envelopes_per_source);
        }
        if state.bytes > self.limits.bytes {
            // A little more than needed, so that this is not done for each envelope.
            state.shrink(self.limits.bytes - self.limits.bytes / 32);
        }
    }

    /// The selected envelopes of a source by time. Equal times keep the order of arrival, and all
    /// that share the last one's time come along, whatever the limit.
    pub fn read(&self, source_id: &str, selection: &Selection) -> Vec<Entry> {
        let end = selection.end.unwrap_or_else(now);
        let mut entries: Vec<Entry> = Vec::new();
        let mut range =
            (Bound::Included((selection.start, i64::MIN)), Bound::Excluded((end, i64::MIN)));
        loop {
            let piece = self.piece(source_id, |source| {
                cut(&source.by_time, range, selection.descending, |key, found| {
                    (*key, found.clone())
                })
            });
            let Some((last, _)) = piece.last() else { return entries };
            range = after(range, *last, selection.descending);
            for ((at, _), envelope) in &piece {
                let full = entries.len() >= selection.limit;
                if full && entries.last().is_none_or(|last| last.at != *at) {
                    return entries;
                }
                if let Some(envelope) = selection.take(envelope) {
                    entries.push(Entry { at: *at, envelope });
                }
            }
        }
    }

    /// The selected envelopes of a source in the order of their arrival, for readers that go on
    /// after the last time they have seen. Each has a place of its own: its time, or the next free
    /// one where an envelope that arrived before has a later time. So a line that arrives late is
    /// read as well, a little later than it says. Places are never in the future unless the source
    /// sends faster than the clock ticks.
    pub fn walk(&self, source_id: &str, selection: &Selection) -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::new();
        let end = selection.end.map_or(Bound::Unbounded, Bound::Excluded);
        let mut range = (Bound::Included(selection.start), end);
        while entries.len() < selection.limit {
            let piece = self.piece(source_id, |source| {
                let places =
                    cut(&source.walk, range, selection.descending, |place, time| (*place, *time));
                let found = places.into_iter().filter_map(|(place, time)| {
                    Some((place, source.by_time.get(&(time, place))?.clone()))
                });
                found.collect::<Vec<_>>()
            });
            let Some((last, _)) = piece.last() else { break };
            range = after(range, *last, selection.descending);
            let taken = piece.iter().filter_map(|(at, envelope)| {
                Some(Entry { at: *at, envelope: selection.take(envelope)? })
            });
            entries.extend(taken.take(selection.limit - entries.len()));
        }
        entries
    }

    /// What is notified when the next envelope of a source has been taken.
    pub(crate) fn written(&self, source_id: &str) -> Arc<Notify> {
        let mut state = self.state();
        // Entries that nobody holds any more go here, so that the map stays as small as its use.
        state.waiting.retain(|_, notify| Arc::strong_count(notify) > 1);
        Arc::clone(state.waiting.entry(source_id.to_owned()).or_default())
    }

    /// What there is of each source, in the order of their ids.
    pub fn meta(&self) -> BTreeMap<String, Meta> {
        let state = self.state();
        state.sources.iter().map(|(id, source)| (id.clone(), source.meta())).collect()
    }

    /// The last numbers of each instance of a source that are not older than `since`, nanoseconds
    /// since the epoch.
    pub fn latest(&self, source_id: &str, since: i64) -> Vec<Latest> {
        let state = self.state();
        let instances = state.sources.get(source_id).map(|source| &source.latest);
        let instances = instances.into_iter().flatten();
        let fresh = instances.map(|((process_id, instance_id), numbers)| {
            let fresh = numbers.iter().filter(|(_, number)| number.timestamp >= since);
            let numbers = fresh.map(|(name, number)| (name.clone(), number.clone())).collect();
            Latest { process_id: process_id.clone(), instance_id: instance_id.clone(), numbers }
        });
        fresh.filter(|latest| !latest.numbers.is_empty()).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn piece<T>(&self, source_id: &str, cut: impl FnOnce(&Source) -> Vec<T>) -> Vec<T> {
        self.state().sources.get(source_id).map(cut).unwrap_or_default()
    }
}

type Range<K> = (Bound<K>, Bound<K>);

/// The first [`AT_ONCE`] of a range, from the end that the reader wants.
fn cut<K: Ord + Copy, V, T>(
    map: &BTreeMap<K, V>,
    range: Range<K>,
    descending: bool,
    show: impl Fn(&K, &V) -> T,
) -> Vec<T> {
    // A BTreeMap panics at a range that ends before it begins.
    let (start, end) = range;
    let empty = match (start, end) {
        (Bound::Included(start), Bound::Excluded(end)) => start >= end,
        (Bound::Excluded(start), Bound::Excluded(end)) => start >= end,
        _ => false,
    };
    if empty {
        return Vec::new();
    }
    let entries = map.range((start, end));
    let show = |(key, value): (&K, &V)| show(key, value);
    if descending {
        entries.rev().take(AT_ONCE).map(show).collect()
    } else {
        entries.take(AT_ONCE).map(show).collect()
    }
}

/// What of a range is left after `last`.
fn after<K>((start, end): Range<K>, last: K, descending: bool) -> Range<K> {
    if descending { (start, Bound::Excluded(last)) } else { (Bound::Excluded(last), end) }
}

fn size(envelope: &Envelope) -> usize {
    envelope.encoded_len() + OVERHEAD
}

impl State {
    fn add(&mut self, envelope: Envelope, now: i64, most: usize) {
        // One look-up where the source is known, which is nearly always.
        if !self.sources.contains_key(&envelope.source_id) {
            self.sources.insert(envelope.source_id.clone(), Source::default());
        }
        let Some(source) = self.sources.get_mut(&envelope.source_id) else { return };
        while source.by_time.len() >= most.max(1) {
            self.bytes -= source.drop_oldest();
        }
        if let Some(waiting) = self.waiting.get(&envelope.source_id) {
            waiting.notify_waiters();
        }
        self.bytes += source.add(envelope, now);
    }

    fn shrink(&mut self, bytes: usize) {
        while self.bytes > bytes {
            let most = self.sources.iter_mut().max_by_key(|(_, source)| source.bytes);
            let Some((id, source)) = most else { return };
            let id = id.clone();
            // In steps, since looking for the largest takes longer than dropping one.
            let until = source.bytes - source.bytes / 16;
            while self.bytes > bytes && source.bytes >= until && !source.by_time.is_empty() {
                self.bytes -= source.drop_oldest();
            }
            if source.by_time.is_empty() {
                self.sources.remove(&id);
            }
        }
    }
}

impl Source {
    fn add(&mut self, envelope: Envelope, now: i64) -> usize {
        if let Some(Message::Gauge(gauge)) = &envelope.message {
            let process_id = envelope.tags.get("process_id").cloned().unwrap_or_default();
            let numbers = gauge.metrics.iter().map(|(name, gauge)| {
                let (unit, value) = (gauge.unit.clone(), gauge.value);
                (name.clone(), Number { timestamp: envelope.timestamp, unit, value })
            });
            let instance = (process_id, envelope.instance_id.clone());
            let known = self.latest.contains_key(&instance);
            if known || self.latest.len() < INSTANCES {
                let latest = self.latest.entry(instance).or_default();
                for (name, number) in numbers {
                    let known = latest.get(&name).map(|known| known.timestamp);
                    let newer = known.is_none_or(|known| known <= number.timestamp);
                    if newer && (known.is_some() || latest.len() < NUMBERS) {
                        latest.insert(name, number);
                    }
                }
            }
        }
        let place = envelope.timestamp.min(now);
        let place = self.last_place.map_or(place, |last| place.max(last.saturating_add(1)));
        self.last_place = Some(place);
        let size = size(&envelope);
        self.bytes += size;
        self.walk.insert(place, envelope.timestamp);
        self.by_time.insert((envelope.timestamp, place), Arc::new(envelope));
        size
    }

    /// The bytes that it held.
    fn drop_oldest(&mut self) -> usize {
        let Some(((_, place), envelope)) = self.by_time.pop_first() else { return 0 };
        self.walk.remove(&place);
        self.expired += 1;
        let size = size(&envelope);
        self.bytes -= size;
        size
    }

    fn meta(&self) -> Meta {
        let time = |entry: Option<(&(i64, i64), _)>| entry.map_or(0, |(key, _)| key.0);
        Meta {
            count: self.by_time.len() as u64,
            expired: self.expired,
            oldest_timestamp: time(self.by_time.first_key_value()),
            newest_timestamp: time(self.by_time.last_key_value()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Origin;
    use crate::messages::logcache::v1::EnvelopeType;

    fn line(source: &str, timestamp: i64, text: &str) -> Envelope {
        let origin = Origin { source_id: source.into(), ..Origin::default() };
        Envelope { timestamp, ..Envelope::line(origin, "APP", false, text.to_owned()) }
    }

    fn texts(entries: &[Entry]) -> Vec<String> {
        let text = |entry: &Entry| match &entry.envelope.message {
            Some(Message::Log(log)) => String::from_utf8_lossy(&log.payload).into_owned(),
            other => format!("{other:?}"),
        };
        entries.iter().map(text).collect()
    }

    fn up_to(end: i64) -> Selection {
        Selection { start: i64::MIN, end: Some(end), ..Selection::default() }
    }

    #[test]
    fn a_walk_sees_each_line_once_however_late_it_arrives() {
        let store = Store::default();
        let mut start = i64::MIN;
        let mut seen = Vec::new();
        for (arrival, batch) in
            [vec![100, 300], vec![200], vec![300, 50], vec![], vec![9_000, 400]].iter().enumerate()
        {
            let now = 1_000 + i64::try_from(arrival).unwrap();
            store.add_at(batch.iter().map(|time| line("a", *time, &time.to_string())), now);
            let entries = store.walk("a", &Selection { start, ..Selection::default() });
            if let Some(last) = entries.last() {
                assert!(last.at <= now + 1, "a place in the future holds up the walk");
                start = last.at + 1;
            }
            seen.extend(texts(&entries));
        }
        assert_eq!(seen, ["100", "300", "200", "300", "50", "9000", "400"]);
        let by_time = store.read("a", &up_to(10_000));
        assert_eq!(texts(&by_time), ["50", "100", "200", "300", "300", "400", "9000"]);
    }

    #[test]
    fn a_walk_is_limited_and_goes_both_ways() {
        let store = Store::default();
        store.add_at((0..5000).map(|n| line("a", n, &n.to_string())), 10_000);
        let selection = Selection { start: 10, limit: 3000, ..Selection::default() };
        let entries = store.walk("a", &selection);
        assert_eq!((entries.len(), entries[0].at, entries[2999].at), (3000, 10, 3009));
        let selection = Selection { descending: true, limit: 1, ..selection };
        assert_eq!(texts(&store.walk("a", &selection)), ["4999"]);
        assert!(store.walk("a", &Selection { start: 5000, ..selection }).is_empty());
    }

    #[test]
    fn reads_go_over_more_than_one_piece() {
        let store = Store::default();
        store.add_at((0..5000).map(|n| line("a", n, &n.to_string())), 10_000);
        let gauge = Envelope::gauge(
            Origin { source_id: "a".into(), ..Origin::default() },
            [("cpu", 1.0, "percentage")],
        );
        store.add_at([Envelope { timestamp: 4000, ..gauge }], 10_000);
        let gauges = up_to(10_000).of_type(EnvelopeType::Gauge);
        assert_eq!(store.read("a", &gauges).len(), 1);
        let descending = Selection { descending: true, ..gauges };
        assert_eq!(store.read("a", &descending)[0].at, 4000);
    }

    #[test]
    fn the_source_that_has_most_makes_room() {
        let limits = Limits { bytes: 100 * (OVERHEAD + 60), ..Limits::default() };
        let store = Store::new(limits);
        store.add_at((0..10).map(|n| line("quiet", n, "line")), 0);
        for n in 0..1000 {
            store.add_at([line("noisy", n, "line")], 0);
            assert!(store.state().bytes <= limits.bytes);
        }
        let meta = store.meta();
        assert_eq!((meta["quiet"].count, meta["quiet"].expired), (10, 0));
        assert_eq!(meta["noisy"].count + meta["noisy"].expired, 1000);
        assert!(meta["noisy"].count > 50, "{meta:?}");
        assert_eq!(meta["noisy"].newest_timestamp, 999);
        let kept: usize = store.state().sources.values().map(|source| source.bytes).sum();
        assert_eq!(kept, store.state().bytes);
        let walked = store.walk("noisy", &Selection { limit: 1000, ..up_to(i64::MAX) });
        assert_eq!(walked.len() as u64, meta["noisy"].count);
    }

    #[test]
    fn one_that_fits_nowhere_leaves_nothing_behind() {
        let store = Store::new(Limits { bytes: 1000, ..Limits::default() });
        store.add_at([line("big", 1, &"x".repeat(2000))], 0);
        assert!(store.meta().is_empty());
        assert_eq!(store.state().bytes, 0);
    }

    #[test]
    fn the_latest_numbers_are_by_process_and_instance() {
        let store = Store::default();
        let gauge = |process: &str, instance: &str, timestamp, cpu| {
            let tags = [("process_id".to_owned(), process.to_owned())].into();
            let (source_id, instance_id) = ("app".into(), instance.into());
            let origin = Origin { source_id, instance_id, tags };
            let gauge = Envelope::gauge(origin, [("cpu", cpu, "percentage")]);
            Envelope { timestamp, ..gauge }
        };
        store.add([
            gauge("web", "0", 10, 1.0),
            gauge("web", "1", 11, 2.0),
            gauge("worker", "0", 12, 3.0),
            gauge("web", "0", 20, 4.0),
            gauge("web", "0", 15, 5.0),
        ]);
        let latest = store.latest("app", 11);
        let shown: Vec<_> = latest
            .iter()
            .map(|one| (&*one.process_id, &*one.instance_id, one.numbers["cpu"].value))
            .collect();
        assert_eq!(shown, [("web", "0", 4.0), ("web", "1", 2.0), ("worker", "0", 3.0)]);
        assert!(store.latest("app", 21).is_empty());
        assert!(store.latest("other", 0).is_empty());
    }

    #[test]
    fn ranges_that_are_empty_or_upside_down_are_empty() {
        let store = Store::default();
        store.add([line("a", 5, "x")]);
        for (start, end) in [(5, 5), (6, 5), (i64::MAX, i64::MIN)] {
            let selection = Selection { start, end: Some(end), ..Selection::default() };
            assert!(store.read("a", &selection).is_empty());
            assert!(store.walk("a", &selection).is_empty());
        }
    }
}

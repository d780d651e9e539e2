//! What happens in a Garden, counted.
//!
//! The meters are statics, as there is one Garden in a daemon: whoever counts needs no reference to
//! them, and counting is one atomic addition, without a lock and without looking anything up. Nothing
//! in here has a container's name: how much there is to tell does not grow with what clients do.

pub(crate) mod exposition;

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What only grows.
#[derive(Debug)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub(crate) fn increment(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is under way.
#[derive(Debug)]
pub(crate) struct Level(AtomicI64);

impl Level {
    const fn new() -> Self {
        Self(AtomicI64::new(0))
    }

    /// One more, until the answer is dropped.
    pub(crate) fn rise(&'static self) -> Risen {
        self.0.fetch_add(1, Ordering::Relaxed);
        Risen(self)
    }

    fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One of what is under way.
#[derive(Debug)]
pub(crate) struct Risen(&'static Level);

impl Drop for Risen {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Upper bounds of buckets in microseconds: what a create takes with a parked container and without,
/// and what an image takes to be unpacked.
const BOUNDS: [u64; 13] = [
    500, 1_000, 2_000, 3_000, 5_000, 10_000, 20_000, 50_000, 100_000, 500_000, 1_000_000,
    5_000_000, 20_000_000,
];

/// How long things take.
#[derive(Debug)]
pub(crate) struct Histogram {
    /// The last one is for what is beyond all bounds.
    buckets: [Counter; BOUNDS.len() + 1],
    nanoseconds: Counter,
}

impl Histogram {
    const fn new() -> Self {
        Self { buckets: [const { Counter::new() }; BOUNDS.len() + 1], nanoseconds: Counter::new() }
    }

    fn observe(&self, took: Duration) {
        let bucket = BOUNDS.partition_point(|bound| Duration::from_micros(*bound) < took);
        self.buckets[bucket].increment();
        self.nanoseconds.add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }
}

/// Something that clients ask for, by how it came out.
#[derive(Debug)]
pub(crate) struct Operation {
    done: Histogram,
    failed: Histogram,
    under_way: Level,
}

impl Operation {
    const fn new() -> Self {
        Self { done: Histogram::new(), failed: Histogram::new(), under_way: Level::new() }
    }

    /// Counts a call and its time.
    pub(crate) fn time<T, E>(&'static self, call: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let (begun, _risen) = (Instant::now(), self.under_way.rise());
        let outcome = call();
        let histogram = if outcome.is_ok() { &self.done } else { &self.failed };
        histogram.observe(begun.elapsed());
        outcome
    }
}

/// Statuses that requests are answered with; all others count as the last one.
const STATUSES: [u16; 8] = [200, 201, 400, 404, 405, 413, 500, 0];
/// Routes of the server at most, those without a call among them.
const MOST_ROUTES: usize = 32;

/// Answered requests by route, as the server numbers them, and status.
#[derive(Debug)]
pub(crate) struct Requests {
    counts: [[Counter; STATUSES.len()]; MOST_ROUTES],
}

impl Requests {
    const fn new() -> Self {
        Self { counts: [const { [const { Counter::new() }; STATUSES.len()] }; MOST_ROUTES] }
    }

    pub(crate) fn count(&self, route: usize, status: u16) {
        let known = STATUSES.iter().position(|known| *known == status);
        let column = known.unwrap_or(STATUSES.len() - 1);
        self.counts[route.min(MOST_ROUTES - 1)][column].increment();
    }
}

/// All meters.
#[derive(Debug)]
pub(crate) struct Meters {
    pub(crate) creates: Operation,
    pub(crate) destroys: Operation,
    pub(crate) runs: Operation,
    /// Containers that were parked, of those that could have been.
    pub(crate) pool_hits: Counter,
    /// And that were made while somebody waited.
    pub(crate) pool_misses: Counter,
    /// Parked containers that could not be made.
    pub(crate) pool_failures: Counter,
    /// Processes that the kernel killed for want of memory.
    pub(crate) memory_kills: Counter,
    /// Ends of processes.
    pub(crate) exits: Counter,
    /// And those whose status nobody can know.
    pub(crate) unknown_exits: Counter,
    /// Bytes that clients did not read in time, or that nobody was there to keep.
    pub(crate) dropped_output: Counter,
    pub(crate) requests: Requests,
    pub(crate) requests_under_way: Level,
}

/// This daemon's.
pub(crate) static METERS: Meters = Meters {
    creates: Operation::new(),
    destroys: Operation::new(),
    runs: Operation::new(),
    pool_hits: Counter::new(),
    pool_misses: Counter::new(),
    pool_failures: Counter::new(),
    memory_kills: Counter::new(),
    exits: Counter::new(),
    unknown_exits: Counter::new(),
    dropped_output: Counter::new(),
    requests: Requests::new(),
    requests_under_way: Level::new(),
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_the_first_bucket_that_it_does_not_exceed() {
        let histogram = Histogram::new();
        for micros in [0, 500, 501, 20_000_000, 20_000_001] {
            histogram.observe(Duration::from_micros(micros));
        }
        let counts: Vec<_> = histogram.buckets.iter().map(Counter::get).collect();
        assert_eq!(counts, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(histogram.nanoseconds.get(), 40_001_002_000);
    }

    #[test]
    fn what_is_under_way_is_so_until_it_ends() {
        static OPERATION: Operation = Operation::new();
        let failed: Result<(), ()> = OPERATION.time(|| {
            assert_eq!(OPERATION.under_way.get(), 1);
            Err(())
        });
        assert!(failed.is_err());
        assert_eq!(OPERATION.under_way.get(), 0);
        let count = |of: &Histogram| of.buckets.iter().map(Counter::get).sum::<u64>();
        assert_eq!((count(&OPERATION.done), count(&OPERATION.failed)), (0, 1));
    }

    #[test]
    fn no_status_and_no_route_is_beyond_the_table() {
        let requests = Requests::new();
        requests.count(MOST_ROUTES + 7, 999);
        requests.count(0, 201);
        assert_eq!(requests.counts[MOST_ROUTES - 1][STATUSES.len() - 1].get(), 1);
        assert_eq!(requests.counts[0][1].get(), 1);
    }
}

//! The crash policy: how often an instance is restarted at once, and how long it waits afterwards.
//!
//! The figures are the original's constants; operators cannot change them there either.

/// Nanoseconds in a second, the unit of all times on the board.
const SECOND: i64 = 1_000_000_000;
/// An instance that ran for longer starts to count anew.
const STEADY: i64 = 5 * 60 * SECOND;
/// Crashes below this are restarted at once.
const IMMEDIATE: i32 = 3;
/// Crashes from this on are never restarted.
const HOPELESS: i32 = 200;
/// The first wait; it doubles with every crash.
const SHORTEST: i64 = 30 * SECOND;
/// Doublings before the longest wait is reached.
const DOUBLINGS: i32 = 5;
/// The longest wait.
const LONGEST: i64 = 16 * 60 * SECOND;

/// The count after one more crash of an instance that has run for `running` nanoseconds, if it ran.
pub fn count_after(count: i32, running: Option<i64>) -> i32 {
    match running {
        Some(time) if time > STEADY => 1,
        _ => count.saturating_add(1),
    }
}

/// Whether the crash with this count is restarted without a wait.
pub fn restarts_at_once(count: i32) -> bool {
    count < IMMEDIATE
}

/// When, in nanoseconds since the epoch, the instance that crashed at `since` is to be restarted.
/// `None` is never.
pub fn restart_time(count: i32, since: i64) -> Option<i64> {
    if count >= HOPELESS {
        return None;
    }
    if restarts_at_once(count) {
        return Some(since);
    }
    let doublings = (count - IMMEDIATE).min(DOUBLINGS);
    Some(since.saturating_add((SHORTEST << doublings).min(LONGEST)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn waits_double_from_half_a_minute_to_sixteen_minutes() {
        let wait = |count| restart_time(count, 0).map(|time| time / SECOND);
        let waits: Vec<_> = (1..=10).map(wait).collect();
        assert_eq!(waits, [0, 0, 30, 60, 120, 240, 480, 960, 960, 960].map(Some));
        assert_eq!(wait(199), Some(960));
        assert_eq!(wait(200), None);
    }

    #[test]
    fn five_minutes_of_running_forgive_the_crashes_before() {
        assert_eq!(count_after(7, Some(5 * 60 * SECOND)), 8);
        assert_eq!(count_after(7, Some(5 * 60 * SECOND + 1)), 1);
        assert_eq!(count_after(7, None), 8);
    }

    proptest! {
        #[test]
        fn no_count_shortens_the_wait(count in 0..199_i32, since: i64) {
            let (this, next) = (restart_time(count, since), restart_time(count + 1, since));
            prop_assert!(next.is_none() || this <= next);
            prop_assert!(this.is_none_or(|time| time >= since));
        }
    }
}

//! Few samples of a skewed quantity: order statistics, and the order in which samples are taken.

/// The value below which a fraction of the samples lies, by nearest rank; `None` without samples.
pub fn quantile(samples: &[f64], fraction: f64) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank among a few thousand samples; casts from float saturate"
    )]
    let rank = (fraction * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).or(sorted.last()).copied()
}

/// The median.
pub fn p50(samples: &[f64]) -> Option<f64> {
    quantile(samples, 0.5)
}

/// What all but one in twenty stay below.
pub fn p95(samples: &[f64]) -> Option<f64> {
    quantile(samples, 0.95)
}

/// A reproducible order for every round (xorshift64*, Vigna 2016), so that no subject always
/// follows the same other.
#[derive(Debug)]
pub struct Shuffle(u64);

impl Shuffle {
    /// The same seed gives the same orders.
    pub fn new(seed: u64) -> Self {
        Self(seed.max(1))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A random order of `0..count`.
    pub fn order(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<_> = (0..count).collect();
        for last in (1..count).rev() {
            let below = u64::try_from(last + 1).unwrap_or(u64::MAX);
            let chosen = usize::try_from(self.next() % below).unwrap_or(0);
            order.swap(last, chosen);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples() {
        let samples = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert_eq!(p50(&samples), Some(3.0));
        assert_eq!(p95(&samples), Some(5.0));
        assert_eq!(quantile(&samples, 0.0), Some(1.0));
        assert_eq!(quantile(&samples, 1.0), Some(5.0));
        assert_eq!(p50(&[1.0, 2.0]), Some(1.0));
        assert_eq!(p50(&[]), None);
        let hundred: Vec<f64> = (1..=100_u32).map(f64::from).collect();
        assert_eq!(p95(&hundred), Some(95.0));
    }

    #[test]
    fn orders_are_permutations_and_differ() {
        let mut shuffle = Shuffle::new(7);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..100 {
            let order = shuffle.order(6);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3, 4, 5]);
            seen.insert(order);
        }
        assert!(seen.len() > 50, "only {} orders in 100 rounds", seen.len());
        assert_eq!(Shuffle::new(3).order(9), Shuffle::new(3).order(9));
    }
}

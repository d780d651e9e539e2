//! Ranges of addresses and ports, as sets and rules hold them.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use crate::nftables::{Element, SetOfRule, Shape, Transaction};

/// A number that sets can hold ranges of.
pub(crate) trait Ranged: Copy + Ord {
    fn bytes(self) -> Vec<u8>;
    /// The next number, unless this is the last one.
    fn next(self) -> Option<Self>;
}

impl Ranged for Ipv4Addr {
    fn bytes(self) -> Vec<u8> {
        self.octets().to_vec()
    }

    fn next(self) -> Option<Self> {
        self.to_bits().checked_add(1).map(Self::from_bits)
    }
}

impl Ranged for u16 {
    fn bytes(self) -> Vec<u8> {
        self.to_be_bytes().to_vec()
    }

    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

/// The same numbers as ranges that neither overlap nor touch, which is what a set of ranges takes.
pub(crate) fn merge<N: Ranged>(ranges: &[RangeInclusive<N>]) -> Vec<RangeInclusive<N>> {
    let mut sorted: Vec<_> = ranges.iter().filter(|range| !range.is_empty()).cloned().collect();
    sorted.sort_by_key(|range| (*range.start(), *range.end()));
    let mut merged: Vec<RangeInclusive<N>> = Vec::new();
    for range in sorted {
        match merged.last_mut() {
            Some(last) if last.end().next().is_none_or(|next| *range.start() <= next) => {
                *last = *last.start()..=*last.end().max(range.end());
            }
            _ => merged.push(range),
        }
    }
    merged
}

/// The elements of a set that holds these merged ranges. One up to the last number has no end.
pub(crate) fn range_elements<N: Ranged>(merged: &[RangeInclusive<N>]) -> Vec<Element> {
    let bounds = |range: &RangeInclusive<N>| {
        let end = range.end().next().map(|next| Element::end(next.bytes()));
        [Some(Element::key(range.start().bytes())), end].into_iter().flatten()
    };
    merged.iter().flat_map(bounds).collect()
}

/// Ranges as a rule compares with them.
#[derive(Clone, Debug)]
pub(crate) enum Within<N> {
    Range(RangeInclusive<N>),
    Set(SetOfRule),
}

impl<N: Ranged> Within<N> {
    /// `None` for no ranges at all.
    pub(crate) fn new(
        transaction: &mut Transaction<'_>,
        key: u32,
        ranges: &[RangeInclusive<N>],
    ) -> Option<Self> {
        match merge(ranges).as_slice() {
            [] => None,
            [range] => Some(Self::Range(range.clone())),
            merged => {
                let length = u32::try_from(merged[0].start().bytes().len()).unwrap_or(u32::MAX);
                let shape = Shape { key: (key, length), value: None, ranges: true };
                let set = transaction.add_anonymous_set(shape, &range_elements(merged));
                Some(Self::Set(set))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_that_touch_become_one() {
        assert_eq!(merge(&[5u16..=9, 1..=4, 12..=12, 11..=13]), [1..=9, 11..=13]);
        assert_eq!(merge(&[0u16..=65535, 7..=7, 65535..=65535]), [0..=65535]);
        assert_eq!(range_elements(&[0u16..=65535]).len(), 1);
        assert!(merge::<u16>(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn merging_keeps_the_numbers(ranges in prop::collection::vec((0u16..60, 0u16..60), 0..12)) {
            let ranges: Vec<_> = ranges.iter().map(|(a, b)| *a..=*b).collect();
            let merged = merge(&ranges);
            for number in 0..70u16 {
                prop_assert_eq!(
                    ranges.iter().any(|range| range.contains(&number)),
                    merged.iter().any(|range| range.contains(&number))
                );
            }
            for pair in merged.windows(2) {
                prop_assert!(*pair[0].end() + 1 < *pair[1].start());
            }
        }
    }
}

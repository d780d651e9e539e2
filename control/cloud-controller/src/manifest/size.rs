//! Sizes with units: `64M`, `1 gb`, `512kb`.

/// Bytes, from an integer and a unit in any case; `None` if it is not that.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..digits].parse().ok()?;
    let shift = match text[digits..].trim().to_ascii_uppercase().as_str() {
        "B" => 0,
        "K" | "KB" => 10,
        "M" | "MB" => 20,
        "G" | "GB" => 30,
        "T" | "TB" => 40,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

/// Whole MiB, at least one.
pub(crate) fn mebibytes(text: &str) -> Option<i64> {
    bytes(text).and_then(|bytes| i64::try_from(bytes >> 20).ok()).filter(|size| *size > 0)
}

/// Bytes a second; `-1` and `0` need no unit.
pub(crate) fn log_rate(text: &str) -> Option<i64> {
    match text.trim() {
        "-1" => Some(-1),
        "0" => Some(0),
        text => bytes(text).and_then(|bytes| i64::try_from(bytes).ok()),
    }
}

/// MiB with a unit.
pub(crate) fn show_mebibytes(size: i64) -> String {
    format!("{size}M")
}

/// A log rate with the largest unit that leaves no rest.
pub(crate) fn show_log_rate(rate: i64) -> String {
    if rate <= 0 {
        return rate.to_string();
    }
    for (shift, unit) in [(40, "T"), (30, "G"), (20, "M"), (10, "K")] {
        if rate % (1 << shift) == 0 {
            return format!("{}{unit}", rate >> shift);
        }
    }
    format!("{rate}B")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn units_are_binary_and_required() {
        assert_eq!(mebibytes("64M"), Some(64));
        assert_eq!(mebibytes("1g"), Some(1024));
        assert_eq!(mebibytes("1 GB"), Some(1024));
        assert_eq!(mebibytes("2097152B"), Some(2));
        for text in ["64", "M", "", "1.5G", "-1M", "1X", "512K", "99999999999999T"] {
            assert_eq!(mebibytes(text), None, "{text}");
        }
        assert_eq!(log_rate("-1"), Some(-1));
        assert_eq!(log_rate("16K"), Some(16384));
        assert_eq!(log_rate("5"), None);
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(size in 1i64..1 << 40, rate in -1i64..1 << 50) {
            prop_assert_eq!(mebibytes(&show_mebibytes(size)), Some(size));
            prop_assert_eq!(log_rate(&show_log_rate(rate)), Some(rate));
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = (mebibytes(&text), log_rate(&text));
        }
    }
}

//! Subjects: parts joined by dots.

/// Whether a message can be published on it.
pub(crate) fn is_name(subject: &str) -> bool {
    subject.split('.').all(|part| is_part(part) && part != "*" && part != ">")
}

/// Whether it can be subscribed to.
pub(crate) fn is_pattern(subject: &str) -> bool {
    let mut parts = subject.split('.').peekable();
    while let Some(part) = parts.next() {
        if !is_part(part) || part == ">" && parts.peek().is_some() {
            return false;
        }
    }
    true
}

fn is_part(part: &str) -> bool {
    !part.is_empty() && !part.bytes().any(|byte| byte <= b' ' || byte == 0x7f)
}

/// Whether a subscription to `pattern` is given what is published on `name`.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = name.split('.');
    for wanted in pattern.split('.') {
        match (wanted, parts.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (wanted, Some(part)) if wanted == part => {}
            _ => return false,
        }
    }
    parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_for_parts() {
        for (pattern, name, expected) in [
            ("router.start", "router.start", true),
            ("router.start", "router.greet", false),
            ("router.*", "router.start", true),
            ("router.*", "router", false),
            ("router.*", "router.a.b", false),
            ("*.start", "router.start", true),
            ("router.>", "router.a.b", true),
            ("router.>", "router", false),
            (">", "router", true),
            ("router", "router.start", false),
            ("router.st*", "router.start", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn what_cannot_be_on_the_wire_is_no_subject() {
        for bad in ["", ".", "a.", ".a", "a..b", "a b", "a\r\nPUB x 0", "\u{7f}"] {
            assert!(!is_pattern(bad) && !is_name(bad), "{bad:?}");
        }
        for pattern in ["a.*", "*", ">", "a.>"] {
            assert!(is_pattern(pattern) && !is_name(pattern), "{pattern}");
        }
        assert!(!is_pattern("a.>.b"));
        assert!(is_name("_INBOX.a>b") && is_pattern("_INBOX.a*b"));
    }
}

//! Request targets as they are in the log.

/// Path and query. A path with bytes that have no place in one is written with escapes throughout, as Go
/// does; a query is left alone.
pub(crate) fn in_log(path: &[u8]) -> String {
    let (path, query) = match path.iter().position(|byte| *byte == b'?') {
        Some(at) => path.split_at(at),
        None => (path, &b""[..]),
    };
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~!$&'()*+,/:;=@[]%".contains(byte);
    let mut out = String::with_capacity(path.len() + query.len());
    if path.is_empty() {
        out.push('/');
    } else if path.iter().all(fits) {
        out.push_str(&String::from_utf8_lossy(path));
    } else {
        let mut rest = path;
        while let [byte, after @ ..] = rest {
            let escaped = after
                .get(..2)
                .filter(|_| *byte == b'%')
                .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
            rest = if escaped.is_some() { &after[2..] } else { after };
            match escaped.unwrap_or(*byte) {
                byte if byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&byte) => {
                    out.push(char::from(byte));
                }
                byte => out.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    out.push_str(&String::from_utf8_lossy(query));
    out
}

#[cfg(test)]
mod tests {
    use super::in_log;

    #[test]
    fn odd_paths_are_escaped() {
        for (path, logged) in [
            (&b""[..], "/"),
            (b"?a", "/?a"),
            (b"/a%2Fb?c\"", "/a%2Fb?c\""),
            (b"/a#frag", "/a%23frag"),
            (b"/a\\b", "/a%5Cb"),
            (b"/\"x\"?a=\"b\"", "/%22x%22?a=\"b\""),
            (b"/\xe4", "/%E4"),
            (b"/[x]?[y]", "/[x]?[y]"),
            (b"*", "*"),
        ] {
            assert_eq!(in_log(path), logged);
        }
    }
}

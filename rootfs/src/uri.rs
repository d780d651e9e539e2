//! What makes an image reference no URI, in the words of Go's `net/url`, which are the original
//! server's answer. Addresses in brackets are not looked into: nothing here connects to them.

/// Why a reference is no URI.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("parse {}: {reason}", quoted(.text))]
pub struct Error {
    text: String,
    reason: Reason,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Reason {
    #[error("net/url: invalid control character in URL")]
    Control,
    #[error("missing protocol scheme")]
    Scheme,
    #[error("first path segment in URL cannot contain colon")]
    Colon,
    #[error("net/url: invalid userinfo")]
    User,
    #[error("invalid port {} after host", quoted(.0))]
    Port(String),
    #[error("invalid character {} in host name", quoted(.0))]
    Host(String),
    #[error("invalid URL escape {}", quoted(.0))]
    Escape(String),
}

/// Fails unless `reference` is a URI, which a path without a colon before its first slash is too.
pub fn check(reference: &str) -> Result<(), Error> {
    let (before, fragment) = reference.split_once('#').unwrap_or((reference, ""));
    let wrong = |text: &str| {
        let text = text.to_owned();
        move |reason| Error { text, reason }
    };
    check_before_fragment(before).map_err(wrong(before))?;
    check_escapes(fragment).map_err(wrong(reference))
}

fn check_before_fragment(text: &str) -> Result<(), Reason> {
    if text.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(Reason::Control);
    }
    let (scheme, rest) = match scheme(text) {
        Some("") => return Err(Reason::Scheme),
        Some(scheme) => (scheme, &text[scheme.len() + 1..]),
        None => ("", text),
    };
    let rest = rest.split('?').next().unwrap_or_default();
    if !rest.starts_with('/') {
        let first = rest.split('/').next().unwrap_or_default();
        return match scheme {
            "" if first.contains(':') => Err(Reason::Colon),
            "" => check_escapes(rest),
            // What follows is the scheme's own business.
            _ => Ok(()),
        };
    }
    let is_path = scheme.is_empty() && rest.starts_with("///");
    let path = match rest.strip_prefix("//").filter(|_| !is_path) {
        Some(rest) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            check_authority(scheme, authority)?;
            path
        }
        None => rest,
    };
    check_escapes(path)
}

/// The text before a colon that ends a scheme; `None` if a character before it is in no scheme.
fn scheme(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once(':')?;
    let in_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    let begins = scheme.bytes().next().is_none_or(|byte| byte.is_ascii_alphabetic());
    (begins && scheme.bytes().all(in_scheme)).then_some(scheme)
}

fn check_authority(scheme: &str, authority: &str) -> Result<(), Reason> {
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (user, host),
        None => ("", authority),
    };
    if !host.starts_with('[') {
        let strict = matches!(scheme.to_ascii_lowercase().as_str(), "http" | "https");
        let colon = if strict { host.find(':') } else { host.rfind(':') };
        let port = colon.map_or("", |colon| &host[colon..]);
        if port.bytes().skip(1).any(|byte| !byte.is_ascii_digit()) {
            return Err(Reason::Port(port.to_owned()));
        }
        check_host(host)?;
    }
    let in_user = |char: char| char.is_ascii_alphanumeric() || "-._:~!$&'()*+,;=%@".contains(char);
    if !user.chars().all(in_user) {
        return Err(Reason::User);
    }
    user.splitn(2, ':').try_for_each(check_escapes)
}

fn check_host(host: &str) -> Result<(), Reason> {
    for (at, char) in host.char_indices() {
        if char == '%' {
            let escape = escape(&host[at..])?;
            // Escapes stand for bytes beyond ASCII, and for the sign itself.
            if escape.as_bytes()[1] < b'8' && escape != "%25" {
                return Err(Reason::Escape(escape.to_owned()));
            }
        } else if char.is_ascii()
            && !char.is_ascii_alphanumeric()
            && !"-_.~!$&'()*+,;=:[]<>\"".contains(char)
        {
            return Err(Reason::Host(char.to_string()));
        }
    }
    Ok(())
}

fn check_escapes(text: &str) -> Result<(), Reason> {
    text.match_indices('%').try_for_each(|(at, _)| escape(&text[at..]).map(drop))
}

/// The three bytes that a percent sign begins.
fn escape(text: &str) -> Result<&str, Reason> {
    match text.as_bytes() {
        [_, high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => Ok(&text[..3]),
        bytes => {
            let three = &bytes[..bytes.len().min(3)];
            Err(Reason::Escape(String::from_utf8_lossy(three).into_owned()))
        }
    }
}

/// As Go's `%q`.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for char in text.chars() {
        match char {
            '"' | '\\' => quoted.extend(['\\', char]),
            '\x07' => quoted.push_str("\\a"),
            '\x08' => quoted.push_str("\\b"),
            '\x0b' => quoted.push_str("\\v"),
            '\x0c' => quoted.push_str("\\f"),
            '\n' | '\r' | '\t' => quoted.extend(char.escape_default()),
            _ if char.is_ascii_control() => {
                quoted.push_str(&format!("\\x{:02x}", u32::from(char)));
            }
            _ => quoted.push(char),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_in_use_are_uris() {
        for good in [
            "",
            "/srv/rootfs",
            "relative/path",
            "relative/with:colon",
            "/with space/and:colon",
            "///three",
            "raw:///srv/rootfs",
            "file:///srv/a%20b",
            "oci:///srv/layout#name",
            "docker:///busybox#1.36",
            "docker://registry.example:5000/a/b#c",
            "docker://user:p%40ss@registry.example/a",
            "docker://[::1]:5000/a",
            "preloaded:cflinuxfs4",
            "preloaded+layer:/x.tar?layer=http://a/%zz&layer_path=/",
            "opaque:%zz",
            "*",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
    }

    /// Expected are the words of Go 1.26's `url.Parse`.
    #[test]
    fn what_is_no_uri_is_told_as_go_tells_it() {
        for (bad, words) in [
            ("%gg::", r#"parse "%gg::": first path segment in URL cannot contain colon"#),
            ("1a:b", r#"parse "1a:b": first path segment in URL cannot contain colon"#),
            ("a b:c", r#"parse "a b:c": first path segment in URL cannot contain colon"#),
            (":x", r#"parse ":x": missing protocol scheme"#),
            ("/a%zz", r#"parse "/a%zz": invalid URL escape "%zz""#),
            ("/a%2", r#"parse "/a%2": invalid URL escape "%2""#),
            ("a%", r#"parse "a%": invalid URL escape "%""#),
            ("raw:///x%g1y#f", r#"parse "raw:///x%g1y": invalid URL escape "%g1""#),
            ("/x#%q", r#"parse "/x#%q": invalid URL escape "%q""#),
            ("/a\nb\x01", r#"parse "/a\nb\x01": net/url: invalid control character in URL"#),
            (
                "docker://a\"b c/d",
                r#"parse "docker://a\"b c/d": invalid character " " in host name"#,
            ),
            ("docker://a:b:x/c", r#"parse "docker://a:b:x/c": invalid port ":x" after host"#),
            ("http://a:b:1/c", r#"parse "http://a:b:1/c": invalid port ":b:1" after host"#),
            ("docker://a%41/c", r#"parse "docker://a%41/c": invalid URL escape "%41""#),
            ("docker://a b@h/c", r#"parse "docker://a b@h/c": net/url: invalid userinfo"#),
            ("docker://a:%4@h/c", r#"parse "docker://a:%4@h/c": invalid URL escape "%4""#),
            ("//a b", r#"parse "//a b": invalid character " " in host name"#),
        ] {
            assert_eq!(check(bad).unwrap_err().to_string(), words);
        }
    }
}

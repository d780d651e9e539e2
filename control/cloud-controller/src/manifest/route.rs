//! Routes of manifests: a host, a domain and a path in one text.

/// A route in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    /// Index of the domain.
    pub domain: usize,
    pub host: String,
    pub path: String,
}

/// Why a text is no route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Malformed,
    NoDomain,
    /// It has a port: only TCP routes have.
    Port,
}

/// Finds the domain that the route ends with, of those given by name: it is the domain's own, or has
/// one label before it. More of them could name what lies in another domain.
pub(crate) fn resolve(route: &str, domains: &[&str]) -> Result<Parts, Fault> {
    let route = route.strip_prefix("http://").unwrap_or(route);
    let route = route.strip_prefix("https://").unwrap_or(route);
    let (name, path) = match route.find('/') {
        Some(at) => route.split_at(at),
        None => (route, ""),
    };
    let path = if path == "/" { "" } else { path };
    if let Some((_, port)) = name.rsplit_once(':') {
        let digits = !port.is_empty() && port.chars().all(|c| c.is_ascii_digit());
        return Err(if digits { Fault::Port } else { Fault::Malformed });
    }
    let name = name.to_ascii_lowercase();
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.*".contains(c);
    if name.is_empty() || !name.contains('.') || !name.chars().all(good) {
        return Err(Fault::Malformed);
    }
    let mut best: Option<Parts> = None;
    for (index, domain) in domains.iter().enumerate() {
        let host = match name.strip_suffix(domain) {
            Some("") => "",
            Some(host) => match host.strip_suffix('.') {
                Some(host) if !host.contains('.') => host,
                _ => continue,
            },
            None => continue,
        };
        if best.as_ref().is_none_or(|best| domain.len() > domains[best.domain].len()) {
            best = Some(Parts { domain: index, host: host.into(), path: path.into() });
        }
    }
    best.ok_or(Fault::NoDomain)
}

/// A host made of an app's name: its letters, digits and hyphens, in lower case.
pub(crate) fn host_of(name: &str) -> String {
    let host: String = name
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_whitespace() || c == '.' || c == '_' { '-' } else { c })
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .collect();
    host.trim_matches('-').chars().take(63).collect()
}

const ADJECTIVES: [&str; 16] = [
    "active",
    "brave",
    "calm",
    "daring",
    "eager",
    "fluent",
    "grateful",
    "happy",
    "insightful",
    "kind",
    "lean",
    "noisy",
    "patient",
    "quick",
    "sleepy",
    "wise",
];
const NOUNS: [&str; 16] = [
    "badger", "bear", "cheetah", "crane", "dingo", "eland", "fox", "gazelle", "hare", "impala",
    "koala", "lynx", "otter", "panda", "quokka", "wombat",
];

/// `<app>-<adjective>-<noun>-<two letters>`, from a random number.
pub(crate) fn random_host(name: &str, mut random: u64) -> String {
    let mut pick = |most: u64| {
        let index = random % most;
        random /= most;
        usize::try_from(index).unwrap_or(0)
    };
    let (adjective, noun) = (ADJECTIVES[pick(16)], NOUNS[pick(16)]);
    let letters: String =
        (0..2).map(|_| char::from(b"abcdefghijklmnopqrstuvwxyz"[pick(26)])).collect();
    let tail = format!("-{adjective}-{noun}-{letters}");
    let name: String = host_of(name).chars().take(63 - tail.len()).collect();
    format!("{}{tail}", name.trim_end_matches('-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DOMAINS: [&str; 3] = ["example.test", "apps.example.test", "other.test"];

    fn parts(route: &str) -> Result<(usize, String, String), Fault> {
        resolve(route, &DOMAINS).map(|parts| (parts.domain, parts.host, parts.path))
    }

    #[test]
    fn the_longest_domain_wins() {
        assert_eq!(parts("web1.apps.example.test"), Ok((1, "web1".into(), String::new())));
        assert_eq!(parts("b.apps.example.test/p/q"), Ok((1, "b".into(), "/p/q".into())));
        assert_eq!(parts("apps.example.test"), Ok((1, String::new(), String::new())));
        assert_eq!(parts("x.example.test/"), Ok((0, "x".into(), String::new())));
        assert_eq!(parts("*.Other.test"), Ok((2, "*".into(), String::new())));
        assert_eq!(parts("https://x.other.test/p"), Ok((2, "x".into(), "/p".into())));
    }

    #[test]
    fn what_fits_no_domain_or_is_no_route_is_refused() {
        assert_eq!(parts("notexample.test"), Err(Fault::NoDomain));
        assert_eq!(parts("a.b.c"), Err(Fault::NoDomain));
        assert_eq!(parts("a.b.apps.example.test"), Err(Fault::NoDomain));
        assert_eq!(parts("tcp.other.test:1024"), Err(Fault::Port));
        for route in ["", "/p", "a b.example.test", "localhost", "http://", "a?.example.test"] {
            assert_eq!(parts(route), Err(Fault::Malformed), "{route}");
        }
    }

    #[test]
    fn hosts_are_made_of_names() {
        assert_eq!(host_of("My App_2.0"), "my-app-2-0");
        assert_eq!(random_host("web", 0), "web-active-badger-aa");
    }

    proptest! {
        #[test]
        fn random_hosts_are_hosts(name in ".{0,80}", random: u64) {
            let host = random_host(&name, random);
            prop_assert!(host.len() <= 63);
            prop_assert!(host.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'));
        }

        #[test]
        fn no_route_panics(route in ".*") {
            let _ = resolve(&route, &DOMAINS);
        }
    }
}

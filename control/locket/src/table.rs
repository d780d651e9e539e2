//! Who holds what until when. Pure: no clock, no disk.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::models::{Resource, TypeCode};

/// Longer times to live are cut, so that deadlines can be computed: thirty years.
const LONGEST: Duration = Duration::from_secs(1_000_000_000);

/// One resource: owner, value, type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) owner: String,
    pub(crate) value: String,
    pub(crate) kind: Kind,
    pub(crate) ttl: Ttl,
}

/// What a resource is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Lock,
    Presence,
}

/// A time to live in seconds, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ttl(i64);

/// Why a request is refused; as text what the original says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("lock-collision")]
    Collision,
    #[error("resource-not-found")]
    NotFound,
    #[error("invalid-ttl")]
    Ttl,
    #[error("invalid-owner")]
    Owner,
    #[error("invalid-type")]
    Kind,
    #[error("invalid-resource")]
    NoResource,
}

impl Kind {
    /// The code of a request, unknown ones included.
    pub(crate) fn from_code(code: i32) -> Result<Self, Refusal> {
        match TypeCode::try_from(code) {
            Ok(TypeCode::Lock) => Ok(Self::Lock),
            Ok(TypeCode::Presence) => Ok(Self::Presence),
            Ok(TypeCode::Unknown) | Err(_) => Err(Refusal::Kind),
        }
    }

    pub(crate) fn code(self) -> TypeCode {
        match self {
            Self::Lock => TypeCode::Lock,
            Self::Presence => TypeCode::Presence,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lock => "lock",
            Self::Presence => "presence",
        }
    }
}

impl Ttl {
    pub(crate) fn from_seconds(seconds: i64) -> Result<Self, Refusal> {
        if seconds > 0 { Ok(Self(seconds)) } else { Err(Refusal::Ttl) }
    }

    pub(crate) fn seconds(self) -> i64 {
        self.0
    }

    fn duration(self) -> Duration {
        Duration::from_secs(self.0.unsigned_abs()).min(LONGEST)
    }
}

impl Entry {
    pub(crate) fn into_resource(self, key: String) -> Resource {
        Resource {
            key,
            owner: self.owner,
            value: self.value,
            r#type: self.kind.name().into(),
            type_code: self.kind.code().into(),
        }
    }
}

/// All resources, by key.
#[derive(Debug, Default)]
pub(crate) struct Table {
    entries: BTreeMap<String, (Entry, Instant)>,
}

impl Table {
    /// Whether `entry` may take `key`, and if so whether that changes more than its time.
    pub(crate) fn lock_changes(&self, key: &str, entry: &Entry) -> Result<bool, Refusal> {
        match self.entries.get(key) {
            Some((held, _)) if held.owner != entry.owner => Err(Refusal::Collision),
            Some((held, _)) => Ok(held != entry),
            None => Ok(true),
        }
    }

    /// Sets or renews, whoever held it.
    pub(crate) fn put(&mut self, key: String, entry: Entry, now: Instant) {
        let deadline = now + entry.ttl.duration();
        self.entries.insert(key, (entry, deadline));
    }

    /// Whether `owner` may release `key`, and if so whether it is there at all.
    pub(crate) fn release_changes(&self, key: &str, owner: &str) -> Result<bool, Refusal> {
        match self.entries.get(key) {
            Some((held, _)) if held.owner != owner => Err(Refusal::Collision),
            held => Ok(held.is_some()),
        }
    }

    pub(crate) fn remove(&mut self, key: &str) {
        self.entries.remove(key);
    }

    pub(crate) fn fetch(&self, key: &str) -> Result<Resource, Refusal> {
        let (entry, _) = self.entries.get(key).ok_or(Refusal::NotFound)?;
        Ok(entry.clone().into_resource(key.to_owned()))
    }

    pub(crate) fn fetch_all(&self, kind: Kind) -> Vec<Resource> {
        self.entries
            .iter()
            .filter(|(_, (entry, _))| entry.kind == kind)
            .map(|(key, (entry, _))| entry.clone().into_resource(key.clone()))
            .collect()
    }

    /// Takes out what ended.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<(String, Entry)> {
        self.entries
            .extract_if(.., |_, (_, deadline)| *deadline <= now)
            .map(|(key, (entry, _))| (key, entry))
            .collect()
    }

    /// When the next one ends.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.entries.values().map(|(_, deadline)| *deadline).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(owner: &str, seconds: i64) -> Entry {
        Entry {
            owner: owner.into(),
            value: String::new(),
            kind: Kind::Lock,
            ttl: Ttl::from_seconds(seconds).unwrap(),
        }
    }

    #[test]
    fn only_the_owner_renews_and_releases() {
        let (mut table, now) = (Table::default(), Instant::now());
        assert_eq!(table.lock_changes("k", &entry("a", 1)), Ok(true));
        table.put("k".into(), entry("a", 1), now);
        assert_eq!(table.lock_changes("k", &entry("a", 1)), Ok(false));
        assert_eq!(table.lock_changes("k", &entry("a", 2)), Ok(true));
        assert_eq!(table.lock_changes("k", &entry("b", 1)), Err(Refusal::Collision));
        assert_eq!(table.release_changes("k", "b"), Err(Refusal::Collision));
        assert_eq!(table.release_changes("k", "a"), Ok(true));
        table.remove("k");
        assert_eq!(table.release_changes("k", "b"), Ok(false));
    }

    #[test]
    fn what_is_not_renewed_ends_at_its_time() {
        let (mut table, now) = (Table::default(), Instant::now());
        let second = Duration::from_secs(1);
        table.put("short".into(), entry("a", 1), now);
        table.put("long".into(), entry("a", 2), now);
        table.put("endless".into(), entry("a", i64::MAX), now);
        assert_eq!(table.next_deadline(), Some(now + second));
        assert!(table.expire(now + second - Duration::from_nanos(1)).is_empty());
        table.put("long".into(), entry("a", 2), now + second);
        let ended = table.expire(now + 2 * second);
        assert_eq!(ended, [("short".to_owned(), entry("a", 1))]);
        assert_eq!(table.next_deadline(), Some(now + 3 * second));
        assert_eq!(table.expire(now + 3 * second).len(), 1);
        assert!(table.fetch("endless").is_ok());
    }
}

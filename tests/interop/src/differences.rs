//! The deliberate differences, and the scenarios that do not pass yet.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;
use serde_json::json;

use crate::comparison::Difference;

/// One deliberate difference.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The scenario.
    pub scenario: String,
    /// Who plays it: `server` or `client`.
    #[serde(rename = "as")]
    pub as_: String,
    /// Line of the recording.
    pub line: usize,
    /// What was recorded.
    pub expected: String,
    /// What ours does.
    pub ours: String,
    /// The sentence of Garden's reference that asks for it.
    pub because: String,
}

/// A scenario that does not pass yet.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pending {
    /// The scenario.
    pub scenario: String,
    /// Who plays it: `server` or `client`.
    #[serde(rename = "as")]
    pub as_: String,
    /// What is missing.
    pub reason: String,
}

/// Both lists.
#[derive(Debug)]
pub struct Ledger {
    entries: Vec<Entry>,
    pending: BTreeMap<(String, String), String>,
}

/// What a replay comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Equal but for so many deliberate differences.
    Equal(usize),
    /// Known not to pass, and why.
    NotYet(String),
    /// What is wrong.
    Wrong(Vec<String>),
}

fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> anyhow::Result<Vec<T>> {
    let text = fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
    let mut all = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
        let parsed = serde_json::from_str(line);
        all.push(parsed.with_context(|| format!("{}:{}", path.display(), index + 1))?);
    }
    Ok(all)
}

impl Ledger {
    /// Reads `differences.jsonl` and `not-yet.jsonl`.
    pub fn read(directory: &Path) -> anyhow::Result<Self> {
        let entries = read(&directory.join("differences.jsonl"))?;
        let pending: Vec<Pending> = read(&directory.join("not-yet.jsonl"))?;
        let pending = pending.into_iter().map(|p| ((p.scenario, p.as_), p.reason)).collect();
        Ok(Self { entries, pending })
    }

    /// How many deliberate differences there are.
    pub fn deliberate(&self) -> usize {
        self.entries.len()
    }

    /// Judges a scenario played as `as_`. An entry that no longer matches is as wrong as a
    /// difference without one, and so is a scenario that passes though it should not yet.
    pub fn judge(&self, scenario: &str, as_: &str, differences: &[Difference]) -> Verdict {
        let mut wrong = Vec::new();
        let mut known: Vec<_> =
            self.entries.iter().filter(|e| e.scenario == scenario && e.as_ == as_).collect();
        let deliberate = known.len();
        for difference in differences {
            let same = |entry: &&Entry| {
                (entry.line, &entry.expected, &entry.ours)
                    == (difference.line, &difference.expected, &difference.ours)
            };
            match known.iter().position(same) {
                Some(index) => drop(known.remove(index)),
                None => wrong.push(format!(
                    "{difference}\n  as an entry: {}",
                    json!({
                        "scenario": scenario,
                        "as": as_,
                        "line": difference.line,
                        "expected": difference.expected,
                        "ours": difference.ours,
                        "because": "",
                    })
                )),
            }
        }
        for entry in known {
            wrong.push(format!(
                "line {}: this deliberate difference is not seen any more",
                entry.line
            ));
        }
        match self.pending.get(&(scenario.to_owned(), as_.to_owned())) {
            Some(_) if wrong.is_empty() => {
                Verdict::Wrong(vec!["listed as not passing yet, but it passes".into()])
            }
            Some(reason) => Verdict::NotYet(reason.clone()),
            None if wrong.is_empty() => Verdict::Equal(deliberate),
            None => Verdict::Wrong(wrong),
        }
    }

    /// Judges a scenario that could not be played.
    pub fn cannot(&self, scenario: &str, as_: &str, error: &str) -> Verdict {
        match self.pending.get(&(scenario.to_owned(), as_.to_owned())) {
            Some(reason) => Verdict::NotYet(reason.clone()),
            None => Verdict::Wrong(vec![error.to_owned()]),
        }
    }
}

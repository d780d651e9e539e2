//! The deliberate differences.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
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
    /// The sentence of Garden's reference that asks for it, or of `ARCHITECTURE.md` behind its name.
    pub because: String,
}

/// All of them.
#[derive(Debug)]
pub struct Ledger {
    entries: Vec<Entry>,
}

/// What a replay comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Equal but for so many deliberate differences.
    Equal(usize),
    /// What is wrong.
    Wrong(Vec<String>),
}

const LIST: &str = "tests/interop/differences.jsonl";
const ARCHITECTURE: &str = "ARCHITECTURE.md";

impl Entry {
    /// Whether it says why, and our own documentation says so too.
    fn has_reason(&self, architecture: &str) -> bool {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let (reference, ours) = match self.because.split_once(&format!("{ARCHITECTURE}: ")) {
            Some((reference, ours)) => (reference, Some(ours)),
            None => (self.because.as_str(), None),
        };
        ours.map_or(!reference.trim().is_empty(), |ours| {
            // A sentence's beginning is one without what follows.
            let ours = words(ours.trim().trim_end_matches('.'));
            !ours.is_empty() && words(architecture).contains(&ours)
        })
    }
}

impl Ledger {
    /// Reads `differences.jsonl`, in the workspace.
    pub fn read(workspace: &Path) -> anyhow::Result<Self> {
        let read = |path: &str| {
            let path = workspace.join(path);
            fs::read_to_string(&path).with_context(|| format!("{}", path.display()))
        };
        let (list, architecture) = (read(LIST)?, read(ARCHITECTURE)?);
        let mut entries = Vec::new();
        for (index, line) in list.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
            let at = || format!("{LIST}:{}", index + 1);
            let entry: Entry = serde_json::from_str(line).with_context(at)?;
            ensure!(entry.has_reason(&architecture), "{}: no reason: {:?}", at(), entry.because);
            entries.push(entry);
        }
        Ok(Self { entries })
    }

    /// How many deliberate differences there are.
    pub fn deliberate(&self) -> usize {
        self.entries.len()
    }

    /// Judges a scenario played as `as_`. An entry that no longer matches is as wrong as a
    /// difference without one.
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
        if wrong.is_empty() { Verdict::Equal(deliberate) } else { Verdict::Wrong(wrong) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_there_and_our_own_is_in_the_documentation() {
        let has_reason = |because: &str| {
            let entry = json!({
                "scenario": "ping", "as": "server", "line": 1, "expected": "a", "ours": "b",
                "because": because,
            });
            let entry: Entry = serde_json::from_value(entry).unwrap();
            entry.has_reason("Rings come\nonce. Nothing else.")
        };
        for good in
            ["0 = never.", "ARCHITECTURE.md: Rings come once.", "a; ARCHITECTURE.md: Nothing."]
        {
            assert!(has_reason(good), "{good}");
        }
        for bad in ["", " ", "ARCHITECTURE.md: ", "a; ARCHITECTURE.md: Rings come twice."] {
            assert!(!has_reason(bad), "{bad}");
        }
    }
}

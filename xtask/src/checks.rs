//! `cargo xtask test`: every check that a change has to pass, in the order of their cost.

use std::fmt::{self, Display};
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::{build, elevated, packages};

/// Licences a dependency may have; an SPDX `OR` needs one of them, an `AND` all.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Runs all checks and stops at the first that fails; says at the end how long each took.
pub fn run() -> anyhow::Result<()> {
    packages::provide(&[
        packages::UP,
        packages::GARDEN,
        packages::BENCH,
        packages::MACHINES,
        packages::TEST,
    ])?;
    let mut steps = Steps::default();
    let done = steps.all();
    print!("{steps}");
    done
}

/// The steps that were taken, with how long they took and what they came to.
#[derive(Debug, Default)]
struct Steps(Vec<(&'static str, Duration, String)>);

impl Steps {
    fn all(&mut self) -> anyhow::Result<()> {
        self.take("format", || command(cargo().args(["fmt", "--all", "--check"])))?;
        self.take("licences", licences)?;
        self.take("clippy", || {
            let arguments = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
            command(cargo().args(arguments))
        })?;
        self.take("documentation", || {
            command(
                cargo()
                    .args(["doc", "--workspace", "--no-deps", "--document-private-items"])
                    .env("RUSTDOCFLAGS", "-D warnings"),
            )
        })?;
        self.take("building of tests", || {
            command(cargo().args(["test", "--workspace", "--no-run"]))
        })?;
        self.take("tests", tests)
    }

    fn take<T: Display>(
        &mut self,
        name: &'static str,
        step: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<()> {
        let begun = Instant::now();
        let done = step();
        let outcome = done.as_ref().map_or_else(|_| "failed".to_owned(), T::to_string);
        self.0.push((name, begun.elapsed(), outcome));
        done.map(drop)
    }
}

impl Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{:<18} {:>8}", "step", "seconds")?;
        for (name, took, outcome) in &self.0 {
            writeln!(f, "{name:<18} {:>8.1}  {outcome}", took.as_secs_f64())?;
        }
        Ok(())
    }
}

/// A step that either succeeds or says itself what is wrong.
fn command(command: &mut Command) -> anyhow::Result<&'static str> {
    packages::run(command).map(|()| "")
}

/// Runs all tests, as root.
fn tests() -> anyhow::Result<Tally> {
    let mut command = cargo();
    command.args(["test", "--workspace"]).stdout(Stdio::piped());
    if let Some(runner) = elevated::runner()? {
        command.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", runner);
    }
    println!("==> cargo test --workspace");
    let mut child = command.spawn().context("cannot start cargo test")?;
    let mut tally = Tally::default();
    let output = child.stdout.take().context("cargo test has no output")?;
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("cannot read what cargo test says")?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        tally.read(&line);
    }
    let status = child.wait().context("cannot wait for cargo test")?;
    if !status.success() {
        bail!("cargo test --workspace failed: {status}; so far {tally}");
    }
    if tally.ignored > 0 {
        bail!("tests are never skipped: {tally}");
    }
    Ok(tally)
}

/// What the runners' closing lines come to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    programs: u32,
    passed: u32,
    failed: u32,
    ignored: u32,
}

impl Tally {
    /// Takes note of `test result: ok. 1 passed; 0 failed; 0 ignored; …`.
    fn read(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else { return };
        let Some((_, counts)) = result.split_once(". ") else { return };
        self.programs += 1;
        for count in counts.split("; ") {
            let Some((number, what)) = count.split_once(' ') else { continue };
            let number: u32 = number.parse().unwrap_or(0);
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

impl Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { programs, passed, failed, ignored } = self;
        write!(f, "{passed} passed, {failed} failed, {ignored} ignored, in {programs} programs")
    }
}

fn cargo() -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(build::workspace());
    command
}

/// Checks every dependency's licence from cargo's own metadata.
fn licences() -> anyhow::Result<&'static str> {
    let output = cargo()
        .args(["metadata", "--format-version", "1", "--filter-platform"])
        .arg("x86_64-unknown-linux-gnu")
        .output()
        .context("cannot start cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let mut refused = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let licence = package["license"].as_str().unwrap_or("none");
        if !allowed(licence) {
            refused.push(format!("{} {}: {licence}", package["name"], package["version"]));
        }
    }
    if !refused.is_empty() {
        bail!("dependencies under a licence that is not on the list:\n{}", refused.join("\n"));
    }
    Ok("all dependencies are under a listed one")
}

/// Evaluates an SPDX expression of `AND`, `OR`, `/` and parentheses against [`LICENCES`].
fn allowed(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    split_outside_parentheses(&expression, " AND ").iter().all(|part| {
        split_outside_parentheses(part, " OR ").iter().any(|choice| {
            let choice = choice.trim();
            match choice.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
                Some(inner) => allowed(inner),
                None => LICENCES.contains(&choice),
            }
        })
    })
}

fn split_outside_parentheses<'a>(text: &'a str, separator: &str) -> Vec<&'a str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0_usize, 0);
    for (index, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ if depth == 0 && text[index..].starts_with(separator) && index >= start => {
                parts.push(&text[start..index]);
                start = index + separator.len();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::{Tally, allowed};

    #[test]
    fn closing_lines_are_added_up() {
        let mut tally = Tally::default();
        for line in [
            "running 3 tests",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 5 filtered out",
        ] {
            tally.read(line);
        }
        assert_eq!(tally, Tally { programs: 2, passed: 13, failed: 2, ignored: 1 });
    }

    #[test]
    fn licence_expressions() {
        for accepted in [
            "MIT",
            "MIT OR Apache-2.0",
            "MIT/Apache-2.0",
            "LGPL-2.1-or-later OR MIT",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT",
        ] {
            assert!(allowed(accepted), "{accepted}");
        }
        for refused in ["GPL-3.0-or-later", "none", "MIT AND AGPL-3.0", "(GPL-2.0) AND MIT"] {
            assert!(!allowed(refused), "{refused}");
        }
    }
}

//! `cargo xtask test`: every check that a change has to pass, in the order of their cost.

use std::process::Command;

use anyhow::{Context, bail};

use crate::packages::{self, run as run_command};
use crate::{build, elevated};

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

/// Runs all checks and stops at the first that fails.
pub fn run() -> anyhow::Result<()> {
    let needed = [packages::UP, packages::GARDEN, packages::TEST].into_iter().flatten();
    packages::provide(&needed.collect::<Vec<_>>())?;
    run_command(cargo().args(["fmt", "--all", "--check"]))?;
    licences()?;
    run_command(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    run_command(
        cargo()
            .args(["doc", "--workspace", "--no-deps", "--document-private-items"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    let mut tests = cargo();
    tests.args(["test", "--workspace"]);
    if let Some(runner) = elevated::runner() {
        tests.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", runner);
    }
    run_command(&mut tests)
}

fn cargo() -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(build::workspace());
    command
}

/// Checks every dependency's licence from cargo's own metadata.
fn licences() -> anyhow::Result<()> {
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
    println!("==> licences: all dependencies are under a listed one");
    Ok(())
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
    use super::allowed;

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

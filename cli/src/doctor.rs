//! `bloomery doctor`: what this host lacks for containers, for people or for programs.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context, bail};
use bloomery_garden::doctor::{Fact, Grade, examine};
use serde::Serialize;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::garden::with_file;
use crate::serve;

/// The host is not ready.
const NOT_READY: u8 = 3;

/// A Garden's flags, and how to tell.
#[derive(clap::Args, Debug)]
// The flags of a Garden have a group of this name already.
#[group(skip)]
pub struct Flags {
    /// An object per fact, in an array, instead of lines.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    garden: serve::Flags,
}

/// Looks, tells, and answers with a status.
pub fn run(flags: Flags) -> ExitCode {
    match look(flags) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(NOT_READY),
        Err(error) => {
            eprintln!("bloomery: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether containers can be made.
fn look(flags: Flags) -> anyhow::Result<bool> {
    let file = flags.garden.config.clone();
    let flags = with_file(flags, file, "bloomery doctor", &["doctor"])?;
    let (config, _) = flags.garden.into_config();
    let runtime = Runtime::new().context("cannot start the runtime")?;
    let facts = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot await SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("cannot await SIGTERM")?;
        let mut looking = tokio::task::spawn_blocking(move || examine(&config));
        tokio::select! {
            facts = &mut looking => return facts.context("the look was broken off"),
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        // What was made for the look is taken away first.
        let _ = looking.await;
        bail!("interrupted")
    })?;
    let told = if flags.json { json(&facts)? } else { lines(&facts) };
    std::io::stdout().write_all(told.as_bytes()).context("cannot write")?;
    Ok(!facts.iter().any(|fact| grade(fact) == Some(Grade::Missing)))
}

fn grade(fact: &Fact) -> Option<Grade> {
    fact.lack.as_ref().map(|lack| lack.grade)
}

fn state(grade: Option<Grade>) -> &'static str {
    match grade {
        None => "ok",
        Some(Grade::Degraded) => "degraded",
        Some(Grade::Missing) => "missing",
    }
}

fn json(facts: &[Fact]) -> anyhow::Result<String> {
    #[derive(Serialize)]
    struct Line<'a> {
        name: &'a str,
        state: &'static str,
        found: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        follows: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        remedy: Option<&'a str>,
    }
    let lines: Vec<_> = facts
        .iter()
        .map(|fact| Line {
            name: &fact.name,
            state: state(grade(fact)),
            found: &fact.found,
            follows: fact.lack.as_ref().map(|lack| lack.follows.as_str()),
            remedy: fact.lack.as_ref().map(|lack| lack.remedy.as_str()),
        })
        .collect();
    Ok(serde_json::to_string_pretty(&lines).context("cannot write JSON")? + "\n")
}

/// A line per fact; below it what follows and what to do, where something does.
fn lines(facts: &[Fact]) -> String {
    let wide = facts.iter().map(|fact| fact.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for fact in facts {
        let (state, Fact { name, found, lack }) = (state(grade(fact)), fact);
        let _ = writeln!(text, "{state:8}  {name:wide$}  {found}");
        if let Some(lack) = lack {
            let _ = writeln!(text, "{:10}{:wide$}  so: {}", "", "", lack.follows);
            let _ = writeln!(text, "{:10}{:wide$}  do: {}", "", "", lack.remedy);
        }
    }
    let count = |wanted| facts.iter().filter(|fact| grade(fact) == wanted).count();
    let (ok, degraded, missing) =
        (count(None), count(Some(Grade::Degraded)), count(Some(Grade::Missing)));
    let _ = writeln!(text, "{ok} ok, {degraded} degraded, {missing} missing");
    text
}

#[cfg(test)]
mod tests {
    use bloomery_garden::doctor::Lack;

    use super::*;

    fn facts() -> Vec<Fact> {
        let fact = |name: &str, lack| Fact { name: name.into(), found: "as it is".into(), lack };
        let lack = Lack {
            grade: Grade::Degraded,
            follows: "something follows".into(),
            remedy: "something helps".into(),
        };
        vec![fact("kernel", None), fact("seccomp", Some(lack))]
    }

    #[test]
    fn what_is_not_ok_says_what_follows_and_what_to_do() {
        assert_eq!(
            lines(&facts()),
            "ok        kernel   as it is\n\
             degraded  seccomp  as it is\n\
             \u{20}                  so: something follows\n\
             \u{20}                  do: something helps\n\
             1 ok, 1 degraded, 0 missing\n"
        );
    }

    #[test]
    fn programs_get_the_same() {
        let told: serde_json::Value = serde_json::from_str(&json(&facts()).unwrap()).unwrap();
        assert_eq!(
            told,
            serde_json::json!([
                {"name": "kernel", "state": "ok", "found": "as it is"},
                {
                    "name": "seccomp", "state": "degraded", "found": "as it is",
                    "follows": "something follows", "remedy": "something helps"
                }
            ])
        );
    }
}

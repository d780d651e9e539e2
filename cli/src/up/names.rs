//! Names of the platform, for the system's resolver.

use std::fs;
use std::net::ToSocketAddrs as _;
use std::path::Path;

use anyhow::Context;

use super::installation::Installation;

const HOSTS: &str = "/etc/hosts";
const BEGIN: &str = "# bloomery: begin";
const END: &str = "# bloomery: end";

/// Names that clients need before any app is there.
fn names(domain: &str) -> Vec<String> {
    ["api", "uaa", "login", "log-cache"].iter().map(|host| format!("{host}.{domain}")).collect()
}

/// Says what is to be done where the resolver does not know the platform's names, or does it.
pub fn check(installation: &Installation, write: bool) -> anyhow::Result<()> {
    let names = names(&installation.domain);
    let known = |name: &String| {
        (name.as_str(), 80).to_socket_addrs().is_ok_and(|mut all| all.any(|a| a.ip().is_loopback()))
    };
    if names.iter().all(known) {
        return Ok(());
    }
    let line = format!("127.0.0.1 {}", names.join(" "));
    if write {
        let text = fs::read_to_string(HOSTS).with_context(|| format!("cannot read {HOSTS}"))?;
        replace(HOSTS.as_ref(), &with_block(&text, Some(&line)))?;
        println!("  names     written into {HOSTS}");
    } else {
        println!("  names     this system's resolver does not know {}; add to {HOSTS}:", names[0]);
        println!("              {line}");
        println!("            (and the name of each app), or run `bloomery up --hosts`");
    }
    Ok(())
}

/// Removes what [`check`] wrote.
pub fn forget() -> anyhow::Result<()> {
    let text = fs::read_to_string(HOSTS).with_context(|| format!("cannot read {HOSTS}"))?;
    let without = with_block(&text, None);
    if without != text {
        replace(HOSTS.as_ref(), &without)?;
    }
    Ok(())
}

/// In place: in a container the file is a mount, which cannot be replaced.
fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The text with our block, or without it.
fn with_block(text: &str, line: Option<&str>) -> String {
    let mut inside = false;
    let mut all: Vec<&str> = Vec::new();
    for existing in text.lines() {
        match existing {
            BEGIN => inside = true,
            END if inside => inside = false,
            _ if inside => {}
            other => all.push(other),
        }
    }
    if let Some(line) = line {
        all.extend([BEGIN, line, END]);
    }
    let mut text = all.join("\n");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::with_block;

    #[test]
    fn the_block_is_replaced_and_the_rest_is_left() {
        let text = "127.0.0.1 localhost\n\n::1 localhost\n";
        let once = with_block(text, Some("127.0.0.1 api.x"));
        assert_eq!(
            once,
            "127.0.0.1 localhost\n\n::1 localhost\n# bloomery: begin\n127.0.0.1 api.x\n# bloomery: end\n"
        );
        assert!(
            with_block(&once, Some("127.0.0.1 api.y"))
                .ends_with("localhost\n# bloomery: begin\n127.0.0.1 api.y\n# bloomery: end\n")
        );
        assert_eq!(with_block(&once, None), text);
    }
}

//! Flags as Go's flag package reads them: `-name value`, `-name=value`, with one dash or two, and a
//! boolean alone or with `=`. The lifecycle's programs are called by programs that write them so.

use std::collections::BTreeMap;
use std::ffi::OsString;

/// What stood on a command line.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    values: BTreeMap<&'static str, String>,
}

/// A command line that cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum FlagError {
    #[error("flag provided but not defined: -{0}")]
    Unknown(String),
    #[error("flag needs an argument: -{0}")]
    NoValue(String),
    #[error("invalid value {value:?} for flag -{name}: {wanted} is wanted")]
    Invalid { name: &'static str, value: String, wanted: &'static str },
    #[error("argument {0:?} is not a flag")]
    NotAFlag(String),
}

impl Flags {
    /// Reads `arguments`; `valued` and `booleans` name every flag there is.
    pub(crate) fn parse(
        arguments: &[OsString],
        valued: &[&'static str],
        booleans: &[&'static str],
    ) -> Result<(Self, Vec<String>), FlagError> {
        let mut flags = Self::default();
        let mut rest =
            arguments.iter().map(|argument| argument.to_string_lossy().into_owned()).peekable();
        while let Some(argument) = rest.next_if(|argument| argument.starts_with('-')) {
            if argument == "--" {
                break;
            }
            let body = argument.trim_start_matches('-');
            let (name, value) = match body.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (body, None),
            };
            if let Some(name) = booleans.iter().find(|known| **known == name) {
                // An empty value is how callers write "not set" (`-skipCertVerify=`).
                flags.values.insert(name, value.unwrap_or_else(|| "true".into()));
            } else if let Some(name) = valued.iter().find(|known| **known == name) {
                let value = match value {
                    Some(value) => value,
                    None => rest.next().ok_or_else(|| FlagError::NoValue((*name).into()))?,
                };
                flags.values.insert(name, value);
            } else {
                return Err(FlagError::Unknown(name.to_owned()));
            }
        }
        Ok((flags, rest.collect()))
    }

    /// The flag's text, or `default` where it was not given.
    pub(crate) fn text(&self, name: &'static str, default: &str) -> String {
        self.values.get(name).cloned().unwrap_or_else(|| default.to_owned())
    }

    /// Whether the flag was given with something after it.
    pub(crate) fn given(&self, name: &'static str) -> Option<&str> {
        self.values.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A boolean: absent and empty are false.
    pub(crate) fn boolean(&self, name: &'static str) -> Result<bool, FlagError> {
        match self.given(name) {
            None | Some("false" | "0" | "f" | "F" | "FALSE" | "False") => Ok(false),
            Some("true" | "1" | "t" | "T" | "TRUE" | "True") => Ok(true),
            Some(value) => {
                Err(FlagError::Invalid { name, value: value.to_owned(), wanted: "true or false" })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{FlagError, Flags};

    fn parse(line: &[&str]) -> Result<(Flags, Vec<String>), FlagError> {
        let line: Vec<_> = line.iter().map(std::ffi::OsString::from).collect();
        Flags::parse(&line, &["port", "uri"], &["skip"])
    }

    #[test]
    fn reads_what_go_would_read() {
        let (flags, rest) =
            parse(&["-port=8080", "--uri", "/up", "-skip", "rest", "-port=1"]).unwrap();
        assert_eq!(flags.text("port", ""), "8080");
        assert_eq!(flags.text("uri", ""), "/up");
        assert_eq!(flags.boolean("skip"), Ok(true));
        assert_eq!(rest, ["rest", "-port=1"]);
    }

    #[test]
    fn an_empty_boolean_is_false() {
        assert_eq!(parse(&["-skip="]).unwrap().0.boolean("skip"), Ok(false));
        assert_eq!(parse(&[]).unwrap().0.boolean("skip"), Ok(false));
        assert!(parse(&["-skip=maybe"]).unwrap().0.boolean("skip").is_err());
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        assert_eq!(parse(&["-other"]).unwrap_err(), FlagError::Unknown("other".into()));
        assert_eq!(parse(&["-port"]).unwrap_err(), FlagError::NoValue("port".into()));
    }
}

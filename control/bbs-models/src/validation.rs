//! What the BBS refuses, in the original's words.
//!
//! A refusal is the list of all problems, joined by `, `, outer field first. The texts and their
//! order are part of the protocol: people read them in the Cloud Controller's errors.

mod actions;
mod actual_lrps;
mod checks;
mod desired_lrps;
mod domains;
mod images;
mod metric_tags;
mod security_groups;
mod tasks;
mod volumes;

use crate::generated::models::{Error, error::Type};

/// Bytes that an annotation may have.
const MAXIMUM_ANNOTATION: usize = 10 * 1024;
/// Bytes that the values of all routes may have together.
const MAXIMUM_ROUTES: usize = 128 * 1024;
/// Bytes that the contents of all mounted files may have together.
const MAXIMUM_MOUNTED_FILES: usize = 1024 * 1024;

/// A message that the BBS checks before it does anything with it.
pub trait Validate {
    /// Adds what is wrong with `self`, in the original's order.
    fn check(&self, problems: &mut Problems);

    /// All problems as one `InvalidRequest`.
    fn validate(&self) -> Result<(), Error> {
        let mut problems = Problems::default();
        self.check(&mut problems);
        problems.into_result()
    }
}

/// What is wrong with a message, each in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(Vec<String>);

impl Problems {
    /// `Invalid field: NAME`.
    pub fn invalid(&mut self, field: &str) {
        self.say(format!("Invalid field: {field}"));
    }

    /// A problem with a text of its own.
    pub fn say(&mut self, problem: impl Into<String>) {
        self.0.push(problem.into());
    }

    /// `field` is invalid when `wrong`.
    fn invalid_if(&mut self, wrong: bool, field: &str) {
        if wrong {
            self.invalid(field);
        }
    }

    /// The problems of `inner`, if any, behind the name of the field that holds it.
    fn within(&mut self, field: &str, inner: &impl Validate) {
        let mut problems = Self::default();
        inner.check(&mut problems);
        if !problems.0.is_empty() {
            self.invalid(field);
            self.0.append(&mut problems.0);
        }
    }

    fn into_result(self) -> Result<(), Error> {
        match self.0.is_empty() {
            true => Ok(()),
            false => Err(Error::new(Type::InvalidRequest, self.0.join(", "))),
        }
    }
}

/// Process and task guids: letters, digits, `_` and `-`, at least one.
fn is_guid(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    !text.is_empty() && text.bytes().all(allowed)
}

/// Whether a root file system is a URL with a scheme, as `preloaded:cflinuxfs4` is.
fn has_scheme(root_fs: &str) -> bool {
    let Some((scheme, _)) = root_fs.split_once(':') else { return false };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(allowed)
        && !root_fs.bytes().any(|byte| byte.is_ascii_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guid_is_not_empty_and_has_no_other_bytes() {
        assert!(is_guid("aZ09_-"));
        for bad in ["", "a.b", "a b", "a\n", "ä"] {
            assert!(!is_guid(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_root_fs_needs_a_scheme() {
        for good in ["preloaded:cflinuxfs4", "preloaded+layer:x?y=z", "docker:///busybox#1", "a:"] {
            assert!(has_scheme(good), "{good:?}");
        }
        for bad in ["", "cflinuxfs4", ":x", "1a:x", "/a:b", "a:\n"] {
            assert!(!has_scheme(bad), "{bad:?}");
        }
    }
}

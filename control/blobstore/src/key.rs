//! Where a blob lies.

use std::fmt;

use object_store::path::Path;

/// Kinds of blobs; each has a directory of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bucket {
    /// Uploaded applications, by package guid.
    Packages,
    /// Staged applications, by `<droplet guid>/<sha256>`.
    Droplets,
    /// What a buildpack keeps from one staging to the next, by `<app guid>/<stack>`.
    BuildpackCache,
    /// Buildpacks, by `<buildpack guid>_<sha256>`.
    Buildpacks,
    /// Single application files, by SHA-1.
    Resources,
}

impl Bucket {
    fn directory(self) -> &'static str {
        match self {
            Self::Packages => "cc-packages",
            Self::Droplets => "cc-droplets",
            Self::BuildpackCache => "cc-droplets/buildpack_cache",
            Self::Buildpacks => "cc-buildpacks",
            Self::Resources => "cc-resources/app_bits_cache",
        }
    }
}

/// The key of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(Path);

impl Key {
    /// `None` if `name` is no key: those are letters, digits, `_`, `-` and `.` in parts separated by
    /// single slashes, where a part is not `.` or `..` and the whole has at least five characters.
    pub fn new(bucket: Bucket, name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let part_is_good = |part: &str| {
            let good = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
            !part.is_empty() && part != "." && part != ".." && part.chars().all(good)
        };
        let first = name.split('/').next()?;
        if first.len() < 5 || !name.split('/').all(part_is_good) {
            return None;
        }
        let (one, two) = (&name[..2], &name[2..4]);
        if one == ".." || two == ".." {
            return None;
        }
        Path::parse(format!("{}/{one}/{two}/{name}", bucket.directory())).ok().map(Self)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_lies_where_the_original_looks_for_it() {
        let at = |bucket, name| Key::new(bucket, name).map(|key| key.to_string());
        let packages = |name| at(Bucket::Packages, name);
        assert_eq!(packages("ABcdef-1").unwrap(), "cc-packages/ab/cd/abcdef-1");
        assert_eq!(at(Bucket::Droplets, "abcdef/99").unwrap(), "cc-droplets/ab/cd/abcdef/99");
        assert_eq!(
            at(Bucket::BuildpackCache, "abcdef/cflinuxfs4").unwrap(),
            "cc-droplets/buildpack_cache/ab/cd/abcdef/cflinuxfs4"
        );
        assert_eq!(
            at(Bucket::Resources, "0123456").unwrap(),
            "cc-resources/app_bits_cache/01/23/0123456"
        );
    }

    #[test]
    fn what_could_lead_elsewhere_is_no_key() {
        for name in [
            "",
            "abcd",
            "../../x",
            "abcdef/../x",
            "abcdef//x",
            "/abcdef",
            "abcdef#1",
            "....x",
            "äöüäö",
        ] {
            assert_eq!(Key::new(Bucket::Packages, name), None, "{name}");
        }
    }
}

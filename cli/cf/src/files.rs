//! The files of an app on this machine.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sha1::{Digest as _, Sha1};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::error::Error;

/// What is never uploaded.
const IGNORED: [&str; 9] = [
    ".cfignore",
    "/manifest.yml",
    ".git",
    ".gitignore",
    ".hg",
    ".svn",
    "_darcs",
    ".DS_Store",
    ".cloudfoundry",
];
/// How deep directories are followed.
const DEPTH: usize = 64;

/// A file or an empty size of a directory, by its path in the app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// With slashes; a directory ends with one.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Bytes.
    pub size: u64,
    /// Hexadecimal; empty for a directory.
    pub sha1: String,
}

/// All files of an app, in the order of their paths.
#[derive(Debug)]
pub(crate) struct Files {
    root: PathBuf,
    pub entries: Vec<Entry>,
    /// Where a zip was unpacked.
    _unpacked: Option<tempfile::TempDir>,
}

impl Files {
    /// Of a directory, or of what is in a zip. Blocks.
    pub fn of(path: &Path) -> Result<Self, Error> {
        let cannot = || Error::file("reading", path);
        let metadata = std::fs::metadata(path).map_err(cannot())?;
        let (root, unpacked) = if metadata.is_dir() {
            (path.to_owned(), None)
        } else {
            let dir = tempfile::tempdir().map_err(cannot())?;
            let file = File::open(path).map_err(cannot())?;
            let bad = |error| Error::said(format!("{} is no zip: {error}", path.display()));
            ZipArchive::new(file).map_err(bad)?.extract(dir.path()).map_err(bad)?;
            (dir.path().to_owned(), Some(dir))
        };
        let rules = match std::fs::read_to_string(root.join(".cfignore")) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            text => text.map_err(Error::file("reading", &root.join(".cfignore")))?,
        };
        let rules = IGNORED.into_iter().chain(rules.lines()).filter_map(Rule::of).collect();
        let mut entries = Vec::new();
        walk(&root, "", &rules, 0, &mut entries)?;
        if !entries.iter().any(|entry| !entry.path.ends_with('/')) {
            return Err(Error::said(format!("No app files found in '{}'", path.display())));
        }
        Ok(Self { root, entries, _unpacked: unpacked })
    }

    /// A zip of all but those that are `known` to the server. `None` if that leaves no file.
    pub fn zip(&self, known: impl Fn(&Entry) -> bool) -> Result<Option<File>, Error> {
        let missing: Vec<&Entry> = self.entries.iter().filter(|entry| !known(entry)).collect();
        if !missing.iter().any(|entry| !entry.path.ends_with('/')) {
            return Ok(None);
        }
        let bad =
            |error: zip::result::ZipError| Error::said(format!("packaging the files: {error}"));
        let file = tempfile::tempfile().map_err(Error::file("making", &std::env::temp_dir()))?;
        let mut zip = ZipWriter::new(file);
        for entry in missing {
            let options = SimpleFileOptions::default()
                .compression_method(CompressionMethod::Deflated)
                .large_file(entry.size > u64::from(u32::MAX))
                .unix_permissions(entry.mode);
            if entry.path.ends_with('/') {
                zip.add_directory(entry.path.as_str(), options).map_err(bad)?;
                continue;
            }
            zip.start_file(entry.path.as_str(), options).map_err(bad)?;
            let path = self.root.join(&entry.path);
            let mut file = File::open(&path).map_err(Error::file("reading", &path))?;
            std::io::copy(&mut file, &mut zip).map_err(Error::file("packaging", &path))?;
        }
        let mut file = zip.finish().map_err(bad)?;
        let whole = file.flush().and_then(|()| file.rewind());
        whole.map_err(Error::file("packaging", &self.root))?;
        Ok(Some(file))
    }
}

fn walk(
    dir: &Path,
    prefix: &str,
    rules: &Vec<Rule>,
    depth: usize,
    entries: &mut Vec<Entry>,
) -> Result<(), Error> {
    let cannot = || Error::file("reading", dir);
    if depth > DEPTH {
        return Err(Error::said(format!("{} is too deep: links in a circle?", dir.display())));
    }
    let listed = std::fs::read_dir(dir).map_err(cannot())?;
    let mut names: Vec<_> = listed
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<_, _>>()
        .map_err(cannot())?;
    names.sort();
    for name in names {
        let path = dir.join(&name);
        let Some(name) = name.to_str() else {
            return Err(Error::said(format!("{} is no UTF-8", path.display())));
        };
        let relative = format!("{prefix}{name}");
        // A link is what it leads to; one that leads nowhere is no file.
        let metadata = match std::fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            metadata => metadata.map_err(Error::file("reading", &path))?,
        };
        if ignored(rules, &relative, metadata.is_dir()) {
            continue;
        }
        let mode = metadata.permissions().mode() & 0o777;
        if metadata.is_dir() {
            let path_in_app = format!("{relative}/");
            let entry = Entry { path: path_in_app, mode, size: 0, sha1: String::new() };
            entries.push(entry);
            walk(&path, &format!("{relative}/"), rules, depth + 1, entries)?;
        } else if metadata.is_file() {
            let sha1 = digest(&path).map_err(Error::file("reading", &path))?;
            entries.push(Entry { path: relative, mode, size: metadata.len(), sha1 });
        }
    }
    Ok(())
}

fn digest(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha1::new();
    let mut piece = vec![0; 64 << 10];
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        hash.update(&piece[..read]);
    }
}

/// One line of a `.cfignore`, which is like a `.gitignore`.
#[derive(Debug)]
struct Rule {
    pattern: Vec<u8>,
    negated: bool,
    only_directories: bool,
    /// It holds a slash before its end, so it says where.
    anchored: bool,
}

impl Rule {
    fn of(line: &str) -> Option<Self> {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return None;
        }
        let (negated, line) = line.strip_prefix('!').map_or((false, line), |line| (true, line));
        let (only_directories, line) =
            line.strip_suffix('/').map_or((false, line), |line| (true, line));
        let anchored = line.contains('/');
        let pattern = line.trim_start_matches('/').as_bytes().to_vec();
        Some(Self { pattern, negated, only_directories, anchored })
    }

    fn matches(&self, path: &str, is_dir: bool) -> bool {
        let name = path.rsplit('/').next().unwrap_or(path);
        let text = if self.anchored { path } else { name };
        (is_dir || !self.only_directories) && glob(&self.pattern, text.as_bytes())
    }
}

/// Whether the last rule that says something of a path says that it is left out. What is below an
/// ignored directory is never looked at.
fn ignored(rules: &[Rule], path: &str, is_dir: bool) -> bool {
    rules.iter().rev().find(|rule| rule.matches(path, is_dir)).is_some_and(|rule| !rule.negated)
}

/// `*` and `?` stop at slashes, `**` does not.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'*', b'*', b'/', rest @ ..], _) if glob(rest, text) => true,
        ([b'*', b'*', rest @ ..], _) => {
            glob(rest, text) || !text.is_empty() && glob(pattern, &text[1..])
        }
        ([b'*', rest @ ..], _) => {
            glob(rest, text)
                || text.first().is_some_and(|byte| *byte != b'/') && glob(pattern, &text[1..])
        }
        ([b'?', rest @ ..], [byte, text @ ..]) => *byte != b'/' && glob(rest, text),
        ([byte, rest @ ..], [other, text @ ..]) => byte == other && glob(rest, text),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left_out(rules: &str, path: &str, is_dir: bool) -> bool {
        let rules: Vec<Rule> = rules.lines().filter_map(Rule::of).collect();
        ignored(&rules, path, is_dir)
    }

    #[test]
    fn rules_are_those_of_git() {
        for (rules, path, is_dir, expected) in [
            ("*.log", "a/b.log", false, true),
            ("*.log", "a/b.logs", false, false),
            ("/a", "a", false, true),
            ("/a", "b/a", false, false),
            ("a/", "a", true, true),
            ("a/", "a", false, false),
            ("a/*.o", "a/x.o", false, true),
            ("a/*.o", "a/b/x.o", false, false),
            ("a/**/x", "a/b/c/x", false, true),
            ("a/**/x", "a/x", false, true),
            ("**/x", "x", false, true),
            ("*.log\n!keep.log", "keep.log", false, false),
            ("# a\n\n  b  ", "b", false, true),
            ("?", "ab", false, false),
        ] {
            assert_eq!(left_out(rules, path, is_dir), expected, "{rules:?} {path}");
        }
    }

    #[test]
    fn a_directory_becomes_a_zip_of_what_is_not_known() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("index.html", "hello");
        write("sub/run.sh", "#!/bin/sh\n");
        write("node_modules/x", "x");
        write(".git/config", "x");
        write(".cfignore", "node_modules\n");
        write("manifest.yml", "---");
        let script = dir.path().join("sub/run.sh");
        std::fs::set_permissions(script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let files = Files::of(dir.path()).unwrap();
        let paths: Vec<&str> = files.entries.iter().map(|entry| &*entry.path).collect();
        assert_eq!(paths, ["index.html", "sub/", "sub/run.sh"]);
        assert_eq!(files.entries[0].sha1, "aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d");

        let zip = files.zip(|entry| entry.path == "index.html").unwrap().unwrap();
        let mut zip = ZipArchive::new(zip).unwrap();
        let names: Vec<String> = zip.file_names().map(|name| name.unwrap().into_owned()).collect();
        assert_eq!(names, ["sub/", "sub/run.sh"]);
        assert_eq!(zip.by_name("sub/run.sh").unwrap().unix_mode().unwrap() & 0o777, 0o755);
        assert!(files.zip(|entry| !entry.path.ends_with('/')).unwrap().is_none());

        // The same as a zip.
        let path = dir.path().join("app.zip");
        let mut whole = files.zip(|_| false).unwrap().unwrap();
        std::io::copy(&mut whole, &mut File::create(&path).unwrap()).unwrap();
        assert_eq!(Files::of(&path).unwrap().entries, files.entries);
    }

    #[test]
    fn a_directory_without_files_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("empty")).unwrap();
        let error = Files::of(dir.path()).unwrap_err().to_string();
        assert!(error.starts_with("No app files found in"), "{error}");
    }
}

//! Apps to push.

use std::io::{Cursor, Write as _};

use serde_json::{Value, json};
use sha1::{Digest as _, Sha1};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// A directory of an app, as a client has it.
#[derive(Clone, Debug)]
pub struct App {
    /// Its name, and the host of its route.
    pub name: &'static str,
    /// Paths and contents.
    pub files: Vec<(&'static str, Vec<u8>)>,
}

/// An app that says who it is: `/` answers `version`, `life` (which differs from process to process),
/// `instance` and `index`; `/file/NAME`, `/env/NAME` and `/log/TEXT` do what they say,
/// `/read/VARIABLE` and `/read/VARIABLE/NAME` give a file that a variable leads to,
/// `/fetch/HOST` gives what the server at port 80 of a host says, and `/exit/N` ends it.
pub fn server(name: &'static str, version: &str) -> App {
    let files = vec![
        ("app.py", include_bytes!("../apps/server.py").to_vec()),
        // Large enough to be kept by the platform for the next push.
        ("large.bin", (0..100_000_u32).flat_map(|number| (number % 251).to_le_bytes()).collect()),
        ("version.txt", version.as_bytes().to_vec()),
    ];
    App { name, files }
}

impl App {
    /// What a client says of its files before it sends them.
    pub fn resources(&self) -> Vec<Value> {
        let resource = |(path, bytes): &(&str, Vec<u8>)| {
            let digest: String =
                Sha1::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            json!({
                "path": path,
                "mode": "644",
                "checksum": { "value": digest },
                "size_in_bytes": bytes.len(),
            })
        };
        self.files.iter().map(resource).collect()
    }

    /// An archive of the files that are not among these resources.
    pub fn archive_without(&self, matched: &[Value]) -> Vec<u8> {
        let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
        for (path, bytes) in &self.files {
            if matched.iter().any(|resource| resource["path"] == *path) {
                continue;
            }
            archive
                .start_file(*path, SimpleFileOptions::default().unix_permissions(0o644))
                .unwrap();
            archive.write_all(bytes).unwrap();
        }
        archive.finish().unwrap().into_inner()
    }

    /// The manifest that a client sends, with these lines in it.
    pub fn manifest(&self, lines: &str) -> String {
        let mut text = format!("applications:\n- name: {}\n  default-route: true\n", self.name);
        for line in lines.lines() {
            text.push_str(&format!("  {line}\n"));
        }
        text
    }
}

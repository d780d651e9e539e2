//! The builder with the platform's own buildpacks, from pushed files to a droplet that works.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use lifecycle::{Program, buildpacks};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A staging container's directories, with the platform's buildpacks installed.
struct Staging {
    directory: TempDir,
    order: Vec<&'static str>,
}

impl Staging {
    fn with_app(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let staging = Self {
            order: buildpacks::ALL.iter().map(|buildpack| buildpack.name).collect(),
            directory,
        };
        for buildpack in buildpacks::ALL {
            let name = format!("{:016x}", xxhash_rust::xxh64::xxh64(buildpack.name.as_bytes(), 0));
            let archive = std::io::Cursor::new(buildpack.archive().unwrap());
            let target = staging.path("buildpacks").join(name);
            zip::ZipArchive::new(archive).unwrap().extract(target).unwrap();
        }
        for (name, text) in files {
            let path = staging.path("app").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        fs::create_dir_all(staging.path("app")).unwrap();
        staging
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs the builder; the result, if it got that far.
    fn build(&self, more: &[&str]) -> Option<Value> {
        let flag = |name: &str, to: &str| format!("-{name}={}", self.path(to).display());
        let mut arguments = vec![
            flag("buildDir", "app"),
            flag("outputDroplet", "droplet"),
            flag("outputMetadata", "result.json"),
            flag("outputBuildArtifactsCache", "output-cache"),
            flag("buildpacksDir", "buildpacks"),
            flag("buildArtifactsCacheDir", "cache"),
            "-skipCertVerify=".into(),
        ];
        if !more.iter().any(|argument| argument.starts_with("-buildpackOrder")) {
            arguments.push(format!("-buildpackOrder={}", self.order.join(",")));
        }
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        Program::Builder.run(arguments.into_iter().map(Into::into));
        let text = fs::read(self.path("result.json")).ok()?;
        Some(serde_json::from_slice(&text).unwrap())
    }

    /// The droplet, unpacked as a cell does it.
    fn unpacked(&self) -> PathBuf {
        let home = self.path("home");
        let droplet = flate2::read::GzDecoder::new(File::open(self.path("droplet")).unwrap());
        tar::Archive::new(droplet).unpack(&home).unwrap();
        home
    }
}

/// The static server of a droplet, killed when dropped.
struct Server(Child, u16);

impl Server {
    fn start(home: &Path) -> Self {
        // The port is free now and taken right after: others may be quicker, so try again.
        for _ in 0..20 {
            let port =
                std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut child = Command::new(home.join("deps/0/bin/static-server"))
                .arg(home.join("app/public"))
                .env("PORT", port.to_string())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut line = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
            if line.starts_with("serving ") {
                return Self(child, port);
            }
            child.wait().unwrap();
        }
        panic!("no port could be had");
    }

    fn get(&self, path: &str, header: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.1)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn static_files_become_a_droplet_that_serves_them() {
    let staging = Staging::with_app(&[
        ("Staticfile", "root: public\n"),
        ("public/index.html", "<h1>hello</h1>"),
        ("public/css/site.css", "h1 { color: red }"),
        ("secret.txt", "not below the root"),
    ]);
    let result = staging.build(&[]).unwrap();
    assert_eq!(result["lifecycle_type"], "buildpack");
    assert_eq!(result["lifecycle_metadata"]["buildpack_key"], "staticfile_buildpack");
    assert_eq!(result["lifecycle_metadata"]["detected_buildpack"], "staticfile");
    assert_eq!(
        result["lifecycle_metadata"]["buildpacks"],
        json!([{"key": "staticfile_buildpack", "name": "staticfile", "version": "1"}])
    );
    let command = result["process_types"]["web"].as_str().unwrap();
    assert_eq!(command, r#"exec "$DEPS_DIR/0/bin/static-server" "$HOME/public""#);

    let home = staging.unpacked();
    for directory in ["app", "deps", "profile.d", "logs", "tmp"] {
        assert!(home.join(directory).is_dir(), "{directory}");
    }
    let info: Value =
        serde_json::from_slice(&fs::read(home.join("staging_info.yml")).unwrap()).unwrap();
    assert_eq!(info["start_command"], command);

    std::os::unix::fs::symlink("../../secret.txt", home.join("app/public/out")).unwrap();
    let server = Server::start(&home);
    let page = server.get("/", "");
    assert!(page.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/html"), "{page}");
    assert!(page.ends_with("<h1>hello</h1>"), "{page}");
    for (target, place) in
        [("/css", "/css/"), ("//css?v=1", "/css/?v=1"), ("http://app.example.com/css", "/css/")]
    {
        let answer = server.get(target, "");
        assert!(answer.contains(&format!("Location: {place}\r\n")), "{target}: {answer}");
    }
    for target in ["http://app.example.com", "HTTP://app.example.com/?x=y://z", "//", "/?a"] {
        assert!(server.get(target, "").ends_with("<h1>hello</h1>"), "{target}");
    }
    assert!(server.get("/css/site.css?v=1", "").contains("Content-Type: text/css"));
    assert!(server.get("/css/site.css", "Range: bytes=0-1\r\n").ends_with("\r\n\r\nh1"));
    for hidden in ["/out", "/../secret.txt", "/%2e%2e/secret.txt", "/nothing", "/css/"] {
        let answer = server.get(hidden, "");
        assert!(answer.starts_with("HTTP/1.1 40"), "{hidden}: {answer}");
        assert!(!answer.contains("not below"), "{hidden}");
    }
    let tag = page.lines().find_map(|line| line.strip_prefix("ETag: ")).unwrap();
    let again = server.get("/", &format!("If-None-Match: {tag}\r\n"));
    assert!(again.starts_with("HTTP/1.1 304"), "{again}");
}

#[test]
fn python_is_taken_from_the_root_file_system() {
    let staging =
        Staging::with_app(&[("app.py", "print('hello')\n"), ("requirements.txt", "# none\n")]);
    let result = staging.build(&[]).unwrap();
    assert_eq!(result["lifecycle_metadata"]["detected_buildpack"], "python");
    assert_eq!(result["process_types"]["web"], "exec python3 app.py");
    let profile = fs::read_to_string(staging.unpacked().join("profile.d/python.sh")).unwrap();
    assert!(profile.contains("PYTHONUNBUFFERED=1"), "{profile}");
}

#[test]
fn python_packages_that_are_not_there_are_an_error() {
    let staging = Staging::with_app(&[("app.py", ""), ("requirements.txt", "flask==3\n")]);
    assert!(staging.build(&[]).is_none());
    assert!(!staging.path("droplet").exists());
}

#[test]
fn a_procfile_makes_any_files_an_app() {
    let staging =
        Staging::with_app(&[("Procfile", "web: ./run $PORT\nworker: ./work\n"), ("run", "")]);
    let result = staging.build(&[]).unwrap();
    assert_eq!(result["lifecycle_metadata"]["buildpack_key"], "binary_buildpack");
    assert_eq!(result["process_types"], json!({"web": "./run $PORT", "worker": "./work"}));
    assert_eq!(
        result["processes"],
        json!([{"type": "web", "command": "./run $PORT"}, {"type": "worker", "command": "./work"}])
    );
}

#[test]
fn named_buildpacks_are_not_asked() {
    let staging = Staging::with_app(&[("program", "")]);
    assert!(staging.build(&[]).is_none(), "nothing detects it");
    let result = staging.build(&["-buildpackOrder=binary_buildpack", "-skipDetect=true"]).unwrap();
    assert_eq!(result["lifecycle_metadata"]["detected_buildpack"], "");
    assert_eq!(result["process_types"], json!({}));
    assert!(staging.unpacked().join("app/program").is_file());
}

#[test]
fn a_buildpack_that_only_finalizes_cannot_come_first() {
    let staging = Staging::with_app(&[("index.html", "")]);
    let order = "-buildpackOrder=binary_buildpack,staticfile_buildpack";
    assert!(staging.build(&[order, "-skipDetect=true"]).is_none());
}

#[test]
fn several_buildpacks_supply_into_numbered_deps() {
    let staging = Staging::with_app(&[("index.html", "")]);
    let key = "supplier";
    let name = format!("{:016x}", xxhash_rust::xxh64::xxh64(key.as_bytes(), 0));
    let bin = staging.path("buildpacks").join(&name).join("inner/bin");
    fs::create_dir_all(&bin).unwrap();
    let script = "#!/bin/bash\nset -e\nmkdir -p \"$3/$4/lib\"\necho \"$2\" > \"$3/$4/lib/cache\"\necho kept > \"$2/file\"\n";
    fs::write(bin.join("supply"), script).unwrap();
    fs::set_permissions(bin.join("supply"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    fs::create_dir_all(staging.path("cache/0000000000000000")).unwrap();

    let order = "-buildpackOrder=supplier,staticfile_buildpack";
    let result = staging.build(&[order, "-skipDetect=true"]).unwrap();
    assert_eq!(result["lifecycle_metadata"]["buildpack_key"], "staticfile_buildpack");
    let home = staging.unpacked();
    let cache = fs::read_to_string(home.join("deps/0/lib/cache")).unwrap();
    assert_eq!(Path::new(cache.trim()).file_name().unwrap(), name.as_str());
    assert!(home.join("deps/1/bin/static-server").is_file());
    assert!(staging.path("cache").join(&name).join("file").is_file());
    assert!(!staging.path("cache/0000000000000000").exists(), "an unused cache is dropped");
    assert!(fs::metadata(staging.path("output-cache")).unwrap().len() > 0);
}

//! The sample app, which `up --sample` pushes as anybody would push theirs.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bloomery_cf::{Command, Login, Push};

use super::installation::Installation;
use super::place::Place;

const NAME: &str = "hello";
const FILES: [(&str, &str); 2] = [
    ("Staticfile", include_str!("../../samples/hello/Staticfile")),
    ("index.html", include_str!("../../samples/hello/index.html")),
];
/// For the router to learn of an instance that runs.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two questions to it.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Pushes the sample app and returns once its URL answers.
pub fn push(place: &Place, installation: &Installation) -> anyhow::Result<()> {
    let started = Instant::now();
    let directory = place.data().join("sample").join(NAME);
    write(&directory)?;
    let session = Session(place.run().join("sample.json"));
    let runtime = super::runtime()?;
    runtime.block_on(async {
        println!();
        let login = Login {
            api: Some(installation.url("api")),
            user: Some("admin".into()),
            password: Some(platform::Secrets::read(&place.platform_data())?.admin),
            org: Some("dev".into()),
            space: Some("dev".into()),
            skip_ssl_validation: false,
        };
        bloomery_cf::run(Command::Login(login), session.0.clone())
            .await
            .context("cannot log in to push the sample app")?;
        println!();
        let push = Push {
            name: Some(NAME.into()),
            path: Some(directory),
            memory: Some("64M".into()),
            no_manifest: true,
            ..Push::default()
        };
        bloomery_cf::run(Command::Push(Box::new(push)), session.0.clone())
            .await
            .context("cannot push the sample app")
    })?;
    let host = format!("{NAME}.{}", installation.apps_authority());
    wait_for_answer(&host, installation.port, PATIENCE, |answer| {
        answer.lines().next().is_some_and(|status| status.contains(" 200 "))
    })?;
    println!(
        "\n  Sample    http://{host}    pushed, and answers after {:.1} s",
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

/// A session of our own, so that nobody's is touched; it holds tokens, and does not stay.
struct Session(PathBuf);

impl Drop for Session {
    fn drop(&mut self) {
        // A push that failed early has written none.
        let _ = fs::remove_file(&self.0);
    }
}

fn write(directory: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    for (name, text) in FILES {
        let path = directory.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Waits until the router's answer for an app, head and body, is the right one. The router is asked
/// whatever the name resolves to.
pub fn wait_for_answer(
    host: &str,
    port: u16,
    patience: Duration,
    is_right: impl Fn(&str) -> bool,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        match ask(host, port, patience) {
            Ok(answer) if is_right(&answer) => return Ok(()),
            _ if Instant::now() < deadline => std::thread::sleep(LOOK_EVERY),
            Ok(answer) => {
                bail!("http://{host} answers {}", answer.lines().next().unwrap_or_default())
            }
            Err(error) => {
                return Err(error).with_context(|| format!("http://{host} does not answer"));
            }
        }
    }
}

fn ask(host: &str, port: u16, patience: Duration) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(patience))?;
    write!(stream, "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(1 << 16).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

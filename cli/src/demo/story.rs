//! The demonstration itself: one container, from its making to its end.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bloomery_garden::client::ProcessIo;
use garden_api::{ContainerSpec, CpuLimits, Limits, MemoryLimits, NetIn, PidLimits, ProcessSpec};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use super::daemon::Daemon;
use super::outside;
use crate::say::say;

const HANDLE: &str = "demonstration";
const MEMORY: u64 = 64 << 20;
const PIDS: u64 = 64;
/// Where the container's web server listens.
const PORT: u32 = 8080;
const PATIENCE: Duration = Duration::from_secs(30);

/// Tells the story; fails at the first step that is not as promised.
pub async fn tell(daemon: &Daemon) -> anyhow::Result<()> {
    let host_port = create(daemon).await?;
    stream(daemon).await?;
    look_inside(daemon).await?;
    exceed_memory(daemon).await?;
    serve(daemon, host_port).await?;
    leave(daemon).await?;
    destroy(daemon).await
}

fn chapter(title: &str) {
    say!("\n{title}");
}

fn shell(script: &str) -> ProcessSpec {
    ProcessSpec {
        path: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        ..ProcessSpec::default()
    }
}

/// Runs a script to its end; its output is shown as it comes, and answered.
async fn told(daemon: &Daemon, script: &str) -> anyhow::Result<(i64, String)> {
    say!("  $ {script}");
    let process = daemon
        .client
        .run(HANDLE, &shell(script), ProcessIo::outputs())
        .await
        .with_context(|| format!("cannot run {script:?}"))?;
    let (output, error) = (process.take_stdout(), process.take_stderr());
    let (output, error) = tokio::join!(show(output), show(error));
    let status = tokio::time::timeout(PATIENCE, process.wait()).await??;
    Ok((status, output? + &error?))
}

async fn show(stream: Option<impl AsyncRead + Unpin>) -> io::Result<String> {
    let Some(mut stream) = stream else { return Ok(String::new()) };
    let mut all = Vec::new();
    let mut buffer = vec![0; 4096];
    let mut fresh = true;
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return Ok(String::from_utf8_lossy(&all).into_owned());
        }
        all.extend_from_slice(&buffer[..length]);
        for piece in String::from_utf8_lossy(&buffer[..length]).split_inclusive('\n') {
            let _ = write!(io::stdout(), "{}{piece}", if fresh { "    " } else { "" });
            fresh = piece.ends_with('\n');
        }
        let _ = io::stdout().flush();
    }
}

async fn create(daemon: &Daemon) -> anyhow::Result<u32> {
    chapter(
        "A container with limits: 64 MiB of memory, 64 processes, a share of the CPU, one port",
    );
    let spec = ContainerSpec {
        handle: HANDLE.into(),
        env: vec!["GREETING=hello from inside".into()],
        limits: Limits {
            memory: MemoryLimits { limit_in_bytes: MEMORY },
            cpu: CpuLimits { limit_in_shares: 512, ..CpuLimits::default() },
            pid: PidLimits { max: PIDS },
            ..Limits::default()
        },
        net_in: vec![NetIn { host_port: 0, container_port: PORT }],
        ..ContainerSpec::default()
    };
    let begun = Instant::now();
    daemon.client.create(&spec).await.context("cannot create the container")?;
    let took = begun.elapsed();
    let info = daemon.client.info(HANDLE).await?;
    let ports = info.mapped_ports.unwrap_or_default();
    let port = ports.first().context("the port is not mapped")?.host_port;
    say!(
        "  created in {:.1} ms: {} at {}, port {port} of {} leads to its port {PORT}",
        took.as_secs_f64() * 1e3,
        HANDLE,
        info.container_ip,
        info.external_ip
    );
    Ok(port)
}

async fn stream(daemon: &Daemon) -> anyhow::Result<()> {
    chapter("A process's output, as it is written");
    let script = "for i in 1 2 3; do echo $GREETING, $i; sleep 0.2; done; exit 7";
    let (status, output) = told(daemon, script).await?;
    ensure!(output.lines().count() == 3 && status == 7, "expected three lines and status 7");
    say!("    exit status {status}");
    Ok(())
}

async fn look_inside(daemon: &Daemon) -> anyhow::Result<()> {
    chapter("What it sees: its own name, users, processes, devices; no privilege on the host");
    let (_, users) = told(daemon, "hostname; id; cat /proc/self/uid_map").await?;
    ensure!(users.contains("4294967294"), "root is not mapped");
    told(daemon, "ps; ls /dev").await?;
    let (_, state) =
        told(daemon, "grep -E '^(CapEff|CapBnd|Seccomp|NoNewPrivs):' /proc/self/status").await?;
    ensure!(state.contains("00000000a80425fb"), "the capabilities are others");
    let (status, _) = told(daemon, "mount -t tmpfs none /mnt").await?;
    ensure!(status != 0, "a container may mount");
    let (_, limits) = told(
        daemon,
        "cd /sys/fs/cgroup; grep -H . memory.max pids.max memory/memory.limit_in_bytes pids/pids.max 2>/dev/null",
    )
    .await?;
    ensure!(limits.contains(&MEMORY.to_string()), "the memory limit is not seen inside");
    Ok(())
}

async fn exceed_memory(daemon: &Daemon) -> anyhow::Result<()> {
    chapter("Its limits hold: 100 MiB do not fit into 64");
    let (status, _) = told(daemon, "head -c 104857600 /dev/zero | tail | wc -c").await?;
    let events = daemon.client.info(HANDLE).await?.events;
    say!("    exit status {status}; events: {events:?}");
    ensure!(events.iter().any(|event| event == "Out of memory"), "no event tells of it");
    Ok(())
}

async fn serve(daemon: &Daemon, host_port: u32) -> anyhow::Result<()> {
    chapter("A port of it, reached from the host");
    let script = format!(
        "mkdir -p /tmp/www && echo $GREETING > /tmp/www/index.html && exec httpd -f -p {PORT} -h /tmp/www"
    );
    say!("  $ {script}");
    daemon.client.run(HANDLE, &shell(&script), ProcessIo::default()).await?;
    let external = daemon.client.info(HANDLE).await?.external_ip;
    let address = format!("{external}:{host_port}");
    let begun = Instant::now();
    loop {
        match fetch(&address).await {
            Ok(page) if page.contains("hello from inside") => {
                say!("  http://{address}/\n    {}", page.lines().last().unwrap_or_default());
                return Ok(());
            }
            other if begun.elapsed() > PATIENCE => {
                bail!("http://{address}/ does not answer as expected: {other:?}")
            }
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn fetch(address: &str) -> io::Result<String> {
    let mut connection = tokio::net::TcpStream::connect(address).await?;
    connection.write_all(format!("GET / HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut page = String::new();
    connection.read_to_string(&mut page).await?;
    Ok(page)
}

async fn leave(daemon: &Daemon) -> anyhow::Result<()> {
    chapter(
        "From inside to the outside: a name looked up, a page fetched under the host's address",
    );
    let (status, _) = told(daemon, &format!("nslookup {}", outside::HOST)).await?;
    ensure!(status == 0, "the name is not found");
    let (status, page) = told(daemon, &format!("wget -q -O - http://{}/", outside::HOST)).await?;
    ensure!(status == 0 && page.contains(outside::GREETING), "the page is not fetched");
    Ok(())
}

async fn destroy(daemon: &Daemon) -> anyhow::Result<()> {
    chapter("Destroyed");
    let begun = Instant::now();
    daemon.client.destroy(HANDLE).await?;
    say!("  gone after {:.1} ms", begun.elapsed().as_secs_f64() * 1e3);
    ensure!(daemon.client.info(HANDLE).await.is_err(), "it is still known");
    Ok(())
}

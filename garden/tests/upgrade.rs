//! An operator replaces the program by one whose supervisor keeps another ledger and whose records
//! look otherwise, and starts the daemon again: clients notice no more than of any restart.
//! `bloomery-garden-previous` is the daemon with the supervisor of the build before.

mod plot;

use std::fs;
use std::sync::Arc;

use bloomery_garden::client::{Address, Client, ProcessIo};
use bloomery_garden_previous as before;
use garden_api::{
    ContainerSpec, ContainerState, ProcessSpec, Properties, Signal, TtySpec, WindowSize,
};
use garden_sys::program::PROGRAM;
use plot::place::Place;
use plot::running::shell;
use plot::{PATIENCE, Plot, wait_until};
use tokio::io::AsyncReadExt;
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// A daemon of the build before, on a plot's places.
struct Earlier {
    runtime: Runtime,
    garden: Arc<before::Gardener>,
    stop: watch::Sender<bool>,
    serving: tokio::task::JoinHandle<()>,
}

impl Earlier {
    fn start(plot: &Plot) -> Self {
        let config = before::config::Config {
            listen: before::config::Listen::Unix { path: plot.socket(), mode: 0o660 },
            depot: plot.config.depot.clone(),
            run: plot.config.run.clone(),
            store: plot.config.store.clone(),
            tag: plot.config.tag.clone(),
            default_rootfs: plot.config.default_rootfs.clone(),
            pool: 1,
            ..before::config::Config::default()
        };
        let runtime = Runtime::new().unwrap();
        let handle = runtime.handle().clone();
        let listen = config.listen.clone();
        let garden = plot.host.inside(|| before::Gardener::start(config, handle)).unwrap();
        let (stop, stopped) = watch::channel(false);
        let listener = {
            let _inside = runtime.enter();
            before::server::Listener::bind(&listen).unwrap()
        };
        let settings = before::server::Settings::default();
        let serving =
            runtime.spawn(before::server::serve(listener, garden.clone(), settings, stopped));
        Self { runtime, garden, stop, serving }
    }

    /// As by SIGTERM.
    fn end(self) {
        let Self { runtime, garden, stop, serving } = self;
        stop.send_replace(true);
        let ended = runtime.block_on(async { tokio::time::timeout(PATIENCE * 2, serving).await });
        ended.expect("the server stops").unwrap();
        garden.leave();
        let gone = Arc::downgrade(&garden);
        drop(garden);
        runtime.shutdown_timeout(PATIENCE);
        wait_until("the daemon is gone", || gone.strong_count() == 0);
    }
}

fn named(id: &str, script: &str) -> ProcessSpec {
    ProcessSpec { id: id.into(), ..shell(script) }
}

fn listening() -> ProcessIo {
    ProcessIo { stdout: true, ..ProcessIo::default() }
}

async fn hear_all(output: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut text = String::new();
    tokio::time::timeout(PATIENCE, output.read_to_string(&mut text)).await.unwrap().unwrap();
    text
}

/// Writes a container's record as the build before did.
fn make_record_older(plot: &Plot, handle: &str) {
    let path = plot.config.depot.join(handle).join("container.json");
    let mut record: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(record["version"], 3);
    let stopped = record["phase"] == "stopped";
    record["version"] = 1.into();
    record["phase"] = "created".into();
    record["stopped"] = stopped.into();
    fs::write(&path, serde_json::to_vec(&record).unwrap()).unwrap();
}

fn program_of(pid: i32) -> Vec<u8> {
    fs::read(format!("/proc/{pid}/exe")).unwrap()
}

#[test]
fn everything_goes_on_under_a_daemon_of_the_next_build() {
    const LINES: u32 = 600;
    let host = Place::new();
    host.run("ip link set lo up");
    let mut plot = Plot::prepared(host, |_| {});
    let clients = Runtime::new().unwrap();
    let client = Client::new(Address::Unix(plot.socket()));

    let earlier = Earlier::start(&plot);
    let (first_lines, keeper, anchor) = clients.block_on(async {
        for handle in ["kept", "stopped"] {
            let spec = ContainerSpec { handle: handle.into(), ..ContainerSpec::default() };
            client.create(&spec).await.unwrap();
        }
        client.stop("stopped", true).await.unwrap();
        let ended = named("ended", "exit 3");
        let ended = client.run("kept", &ended, ProcessIo::default()).await.unwrap();
        assert_eq!(ended.wait().await.unwrap(), 3);
        // One that talks, one on a terminal, one that writes all the time, with a client each.
        let talker = named("talker", "read a; echo $a; read a; echo $a; exit 7");
        let talker = client.run("kept", &talker, listening()).await.unwrap();
        talker.write_stdin(b"before\n").await.unwrap();
        let mut said = [0; 7];
        talker.take_stdout().unwrap().read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"before\n");
        let window_size = Some(WindowSize { columns: 100, rows: 30 });
        let tty = ProcessSpec {
            tty: Some(TtySpec { window_size }),
            ..named("tty", "stty size; read line; stty size; echo got $line; exit 4")
        };
        let terminal = client.run("kept", &tty, listening()).await.unwrap();
        let mut said = [0; 8];
        terminal.take_stdout().unwrap().read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"30 100\r\n");
        let script = format!(
            "i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); sleep 0.005; done; exit 9"
        );
        let writer = client.run("kept", &named("writer", &script), listening()).await.unwrap();
        let mut lines = writer.take_stdout().unwrap();
        let mut first = vec![0; 7];
        lines.read_exact(&mut first).await.unwrap();
        let (keeper, anchor) = plot.supervisor();
        assert_ne!(program_of(keeper), PROGRAM);
        // It stops in the middle of all this.
        let ending = tokio::task::spawn_blocking(move || earlier.end());
        let rest = hear_all(&mut lines).await;
        for process in [talker, terminal, writer] {
            process.wait().await.unwrap_err();
        }
        ending.await.unwrap();
        (String::from_utf8(first).unwrap() + &rest, keeper, anchor)
    });
    make_record_older(&plot, "kept");
    make_record_older(&plot, "stopped");

    plot.come_back();
    plot.serve();
    wait_until("keeper and anchor run this build", || {
        [keeper, anchor].into_iter().all(|pid| program_of(pid) == PROGRAM)
    });
    assert_eq!(plot.supervisor(), (keeper, anchor), "under their old pids");
    clients.block_on(async {
        let mut handles = client.list(&Properties::new()).await.unwrap();
        handles.sort();
        assert_eq!(handles, ["kept", "stopped"]);
        for (handle, state) in
            [("kept", ContainerState::Active), ("stopped", ContainerState::Stopped)]
        {
            assert_eq!(client.info(handle).await.unwrap().state, Some(state));
        }
        let ended = client.attach("kept", "ended", ProcessIo::default()).await.unwrap();
        assert_eq!(ended.wait().await.unwrap(), 3);
        let talker = client.attach("kept", "talker", listening()).await.unwrap();
        talker.write_stdin(b"after\n").await.unwrap();
        assert_eq!(hear_all(&mut talker.take_stdout().unwrap()).await, "after\n");
        assert_eq!(talker.wait().await.unwrap(), 7);
        let terminal = client.attach("kept", "tty", listening()).await.unwrap();
        terminal.resize(WindowSize { columns: 90, rows: 20 }).await.unwrap();
        terminal.write_stdin(b"this\n").await.unwrap();
        let said = hear_all(&mut terminal.take_stdout().unwrap()).await;
        assert_eq!(said, "this\r\n20 90\r\ngot this\r\n");
        assert_eq!(terminal.wait().await.unwrap(), 4);
        let writer = client.attach("kept", "writer", listening()).await.unwrap();
        let lines = first_lines + &hear_all(&mut writer.take_stdout().unwrap()).await;
        let expected: String = (0..LINES).map(|line| format!("line {line}\n")).collect();
        assert_eq!(lines, expected, "no byte is lost, and none is given twice");
        assert_eq!(writer.wait().await.unwrap(), 9);
        // And the container is as usable as before.
        let more = client.run("kept", &named("more", "read never"), ProcessIo::default()).await;
        let more = more.unwrap();
        more.signal(Signal::Kill).await.unwrap();
        assert_eq!(more.wait().await.unwrap(), 137);
    });
}

#[test]
fn a_record_of_a_build_to_come_stops_the_start_and_changes_nothing() {
    let mut plot = Plot::new();
    plot.create("kept");
    let process = plot.garden().run("kept", &named("p", "read line; exit 6")).unwrap();
    drop(process);
    let (keeper, _) = plot.supervisor();
    plot.leave();
    let path = plot.config.depot.join("kept/container.json");
    let record = fs::read_to_string(&path).unwrap();
    fs::write(&path, record.replace("\"version\":3", "\"version\":4")).unwrap();
    let (config, runtime) = (plot.config.clone(), plot.runtime.handle().clone());
    let refused = plot.host.inside(|| bloomery_garden::Gardener::start(config, runtime));
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("kept") && refused.contains("newer build"), "{refused}");
    fs::write(&path, record).unwrap();
    plot.come_back();
    assert_eq!(plot.supervisor().0, keeper);
    let taken = plot.attach(plot.garden().process("kept", "p").unwrap());
    taken.say("\n");
    assert_eq!(taken.end_open().0, garden_sys::supervisor::Exit::Status(6));
}

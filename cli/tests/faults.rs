//! kill -9 of daemon, keeper and anchor, at named steps and at random under load: nothing that was
//! acknowledged is lost, and nothing is left behind.
//!
//! `BLOOMERY_KILLS` is the number of random kills, `BLOOMERY_SEED` repeats a run, and
//! `BLOOMERY_KILL_SPACING_MS` is the least time between two kills: none by default, but before kernel
//! 6.15 nothing is promised for kills less than a second apart.

#[path = "../../garden/sys/tests/chance/mod.rs"]
mod chance;
#[path = "faults/held.rs"]
mod held;
#[path = "faults/output.rs"]
mod output;
mod site;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bloomery_garden::client::{Client, Error, ProcessIo};
use bloomery_garden::fault;
use chance::{Random, number};
use garden_api::{ImageRef, ProcessLimits, ProcessSpec, Properties, Signal, TtySpec, WindowSize};
use output::{Written, share_of};
use rustix::process::Signal as Number;
use site::traces::{Traces, descriptors, processes, supervisor};
use site::waiting::kernel_keeps_statuses;
use site::{PATIENCE, Site, named, shell};
use tokio::runtime::Runtime;

/// Kills so far apart lose no status, whatever the kernel.
const APART: Duration = Duration::from_secs(1);

async fn everything(client: &Client) -> Vec<String> {
    client.list(&Properties::from([("garden.state".into(), "all".into())])).await.unwrap()
}

/// Pids of processes with this argument.
fn with_argument(argument: &str) -> Vec<i32> {
    let has = |pid: &i32| {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.split('\0').any(|one| one == argument))
    };
    processes().map(|(pid, _)| pid).filter(has).collect()
}

/// A container whose process must never notice anything.
async fn make_steady(client: &Client, number: u64) -> (String, Vec<i32>) {
    client.create(&named("steady")).await.unwrap();
    let argument = (1_000_000_000 + u64::from(std::process::id()) * 4 + number).to_string();
    let spec = ProcessSpec {
        id: "steady".into(),
        path: "/bin/sleep".into(),
        args: vec![argument.clone()],
        ..ProcessSpec::default()
    };
    drop(client.run("steady", &spec, ProcessIo::default()).await.unwrap());
    let pids = with_argument(&argument);
    assert_eq!(pids.len(), 1);
    (argument, pids)
}

/// Steps that only a pea passes.
fn is_a_peas(step: &str) -> bool {
    matches!(
        step,
        "run/cgroup-made"
            | "run/volume-made"
            | "run/root-sent"
            | "end/cgroup-removed"
            | "end/volume-removed"
    )
}

#[test]
fn a_daemon_killed_at_any_step_leaves_nothing_half_done() {
    let saves: Vec<_> = (2..=SAVES).map(|nth| format!("save/written:{nth}")).collect();
    let steps = fault::STEPS.into_iter().filter(|step| !is_a_peas(step));
    killed_at(0, steps.chain(saves.iter().map(String::as_str)), |_| shell("p", "exit 7"));
}

#[test]
fn a_daemon_killed_at_any_step_of_a_pea_leaves_nothing_half_done() {
    let steps = fault::STEPS
        .into_iter()
        .filter(|step| ["run/", "end/"].iter().any(|begin| step.starts_with(begin)));
    killed_at(3, steps.clone(), |site| pea(site, "p", "exit 7", false));
    killed_at(3, steps, |site| pea(site, "p", "exit 7", true));
}

/// As [`shell`], in an image of its own; beside its container if it has limits.
fn pea(site: &Site, id: &str, script: &str, limits: bool) -> ProcessSpec {
    let image = site.config.default_rootfs.as_ref().unwrap();
    ProcessSpec {
        image: ImageRef { uri: image.display().to_string(), ..ImageRef::default() },
        limits: limits.then(ProcessLimits::default),
        ..shell(id, script)
    }
}

fn killed_at<'a>(
    number: u32,
    steps: impl Iterator<Item = &'a str>,
    process: impl Fn(&Site) -> ProcessSpec,
) {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let mut site = Site::new(number);
        let spec = process(&site);
        let client = site.client();
        site.start(None);
        site.wait_up().await;
        let (argument, pids) = make_steady(&client, number.into()).await;
        let before = Traces::settled(&site.config, 1, 1);
        site.kill();
        for step in steps {
            site.start(Some(step));
            site.wait_up().await;
            let done = cycle(&client, &spec).await;
            site.expect_death(step);
            site.start(None);
            site.wait_up().await;
            check(&client, done, step).await;
            assert_eq!(with_argument(&argument), pids, "{step}");
            before.expect_again(&site.config);
            site.kill();
        }
        // There is no further one.
        site.start(Some(&format!("save/written:{}", SAVES + 1)));
        site.wait_up().await;
        assert_eq!(cycle(&client, &spec).await, Done::Destroyed);
        site.kill();
        site.start(None);
        site.wait_up().await;
        client.destroy("steady").await.unwrap();
    });
}

/// What was acknowledged, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Done {
    Nothing,
    Created,
    Ran,
    Ended,
    Destroyed,
}

/// How often [`cycle`] has the record written: as it is begun and when it is made, for its property,
/// for its process's start and end, and as its destroy is begun.
const SAVES: usize = 6;

/// Makes a container, has a process end in it with status 7, and destroys it.
async fn cycle(client: &Client, process: &ProcessSpec) -> Done {
    if client.create(&named("cycle")).await.is_err() {
        return Done::Nothing;
    }
    if client.set_property("cycle", "colour", "red").await.is_err() {
        return Done::Created;
    }
    let Ok(process) = client.run("cycle", process, ProcessIo::default()).await else {
        return Done::Created;
    };
    match process.wait().await {
        Ok(status) => assert_eq!(status, 7),
        Err(_) => return Done::Ran,
    }
    if client.destroy("cycle").await.is_err() {
        return Done::Ended;
    }
    Done::Destroyed
}

async fn check(client: &Client, done: Done, step: &str) {
    let listed = everything(client).await.contains(&"cycle".to_owned());
    let destroying = step.starts_with("destroy/");
    // The client has had the status by then and may have asked for the next thing.
    let asked = step.starts_with("end/") && !matches!(step, "end/heard" | "end/recorded");
    assert!(
        listed || destroying || asked || done == Done::Nothing || done == Done::Destroyed,
        "{step}: an acknowledged container is there after {done:?}"
    );
    assert!(!(listed && done == Done::Destroyed), "{step}: a destroyed container is gone");
    if !listed {
        return;
    }
    if done >= Done::Created && !destroying {
        let attached = client.attach("cycle", "p", ProcessIo::default()).await;
        match attached {
            Ok(process) => assert_eq!(process.wait().await.unwrap(), 7, "{step}"),
            Err(Error::ProcessNotFound(_)) if done == Done::Created => {}
            Err(error) => panic!("{step}: the status is lost after {done:?}: {error}"),
        }
    }
    // Whatever it is, it is whole: it runs a process.
    let process = client.run("cycle", &shell("q", "exit 8"), ProcessIo::default()).await.unwrap();
    assert_eq!(process.wait().await.unwrap(), 8, "{step}");
    client.destroy("cycle").await.unwrap();
}

/// What workers and killer know of each other.
#[derive(Default)]
struct Shared {
    /// Odd while there is no daemon.
    deaths: AtomicU64,
    /// Calls under way.
    calls: AtomicUsize,
    /// Clients that wait for their process's end.
    waits: AtomicUsize,
    finish: AtomicBool,
    cycles: AtomicU64,
    statuses: AtomicU64,
    /// Statuses that nobody knows.
    unknown: AtomicU64,
    unsure: AtomicU64,
    /// Bytes that processes wrote, and of these the ones that a killed daemon had read.
    written: AtomicUsize,
    lost: AtomicUsize,
}

impl Shared {
    /// Makes a call. `Err` when the daemon has died meanwhile and nobody knows what came of it; any
    /// other failure of the connection is a failure of the test.
    async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<Result<T, Error>, ()> {
        self.counted(&self.calls, call).await
    }

    async fn counted<T>(
        &self,
        under_way: &AtomicUsize,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<Result<T, Error>, ()> {
        let before = self.deaths.load(Ordering::SeqCst);
        under_way.fetch_add(1, Ordering::SeqCst);
        let outcome = call.await;
        under_way.fetch_sub(1, Ordering::SeqCst);
        let alive = before.is_multiple_of(2) && before == self.deaths.load(Ordering::SeqCst);
        match outcome {
            Err(error) if !alive && is_broken(&error) => {
                self.unsure.fetch_add(1, Ordering::SeqCst);
                self.wait_for_daemon().await;
                Err(())
            }
            other => Ok(other),
        }
    }

    async fn wait_for_daemon(&self) {
        let deadline = Instant::now() + 2 * PATIENCE;
        while self.deaths.load(Ordering::SeqCst) % 2 == 1 {
            assert!(Instant::now() < deadline, "another daemon serves");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

fn is_broken(error: &Error) -> bool {
    matches!(
        error,
        Error::Unreachable { .. }
            | Error::Broken { .. }
            | Error::Disconnected { .. }
            | Error::NoStream { .. }
    )
}

/// Creates, runs and destroys until told to finish, remembering what was acknowledged.
async fn work(
    client: Client,
    shared: Arc<Shared>,
    worker: u64,
    mut random: Random,
    peas: [ProcessSpec; 2],
) {
    let mut round = 0;
    while !shared.finish.load(Ordering::SeqCst) {
        round += 1;
        let handle = format!("w{worker}-{round}");
        // Where nobody knows what came of it, it must go all the same.
        if let Ok(created) = shared.call(client.create(&named(&handle))).await {
            created.unwrap_or_else(|error| panic!("{handle}: create: {error}"));
            let status = i64::try_from(random.below(100)).unwrap();
            let (script, written) = Written::by_script(random.below(100));
            let process = shell("p", &format!("{script}; exit {status}"));
            let spec = match random.below(4) {
                0 => ProcessSpec { args: process.args, ..peas[0].clone() },
                1 => ProcessSpec { args: process.args, ..peas[1].clone() },
                _ => process,
            };
            run(&client, &shared, &handle, &spec, status, written).await;
        }
        loop {
            match shared.call(client.destroy(&handle)).await {
                Ok(Ok(()) | Err(Error::ContainerNotFound(_))) => break,
                Ok(Err(error)) => panic!("{handle}: destroy: {error}"),
                Err(()) => {}
            }
        }
        if let Ok(listed) = shared
            .call(client.list(&Properties::from([("garden.state".into(), "all".into())])))
            .await
        {
            assert!(!listed.unwrap().contains(&handle), "{handle} is destroyed");
        }
        shared.cycles.fetch_add(1, Ordering::SeqCst);
    }
}

/// Runs a process in a container that is there, and must be told its status and what it wrote.
async fn run(
    client: &Client,
    shared: &Shared,
    handle: &str,
    spec: &ProcessSpec,
    status: i64,
    mut written: Written,
) {
    let stdout = || ProcessIo { stdout: true, ..ProcessIo::default() };
    let started = shared.call(client.run(handle, spec, stdout())).await;
    let acknowledged = started.is_ok();
    let mut process = started
        .ok()
        .map(|started| started.unwrap_or_else(|error| panic!("{handle}: run: {error}")));
    let misheard = |error: String| -> usize { panic!("{handle}: {error}") };
    loop {
        if let Some(process) = process.take() {
            let deaths = shared.deaths.load(Ordering::SeqCst);
            let waiting = shared.counted(&shared.waits, process.wait());
            let share = share_of(&process);
            let (ended, share) = tokio::join!(waiting, share);
            // A status may have come from a daemon that was killed before its last output.
            let alive = deaths == shared.deaths.load(Ordering::SeqCst);
            let heard =
                if ended.is_ok() && alive { written.ended(&share) } else { written.cut(&share) };
            shared.lost.fetch_add(heard.unwrap_or_else(misheard), Ordering::SeqCst);
            if let Ok(ended) = ended {
                match ended {
                    Ok(ended) => assert_eq!(ended, status, "{handle}"),
                    Err(Error::StatusUnknown { .. }) => {
                        shared.unknown.fetch_add(1, Ordering::SeqCst);
                    }
                    Err(error) => panic!("{handle}: wait: {error}"),
                }
                shared.statuses.fetch_add(1, Ordering::SeqCst);
                shared.written.fetch_add(written.length(), Ordering::SeqCst);
                return;
            }
        } else {
            // The client of a daemon that was killed got nothing.
            written.cut("").unwrap_or_else(misheard);
        }
        match shared.call(client.attach(handle, &spec.id, stdout())).await {
            Ok(Ok(attached)) => process = Some(attached),
            Ok(Err(Error::ProcessNotFound(_))) if !acknowledged => return,
            Ok(Err(error)) => panic!("{handle}: an acknowledged process is lost: {error}"),
            Err(()) => {}
        }
    }
}

#[test]
fn random_kills_under_load_lose_nothing() {
    let (kills, seed) =
        (number("BLOOMERY_KILLS", 200), number("BLOOMERY_SEED", std::process::id().into()));
    let spacing = number("BLOOMERY_KILL_SPACING_MS", 0);
    println!("kills {kills}, seed {seed}, {spacing} ms apart");
    let runtime = Runtime::new().unwrap();
    let mut random = Random(seed * 2 + 1);
    let mut site = Site::new(1);
    let client = site.client();
    site.start(None);
    let (before, open, argument, pids) = runtime.block_on(async {
        site.wait_up().await;
        // Once there has been everything, so that what is made once is there.
        assert_eq!(cycle(&client, &shell("p", "exit 7")).await, Done::Destroyed);
        let before = Traces::settled(&site.config, 0, 0);
        let open = descriptors(site.daemon()).len();
        let (argument, pids) = make_steady(&client, 1).await;
        (before, open, argument, pids)
    });
    let shared = Arc::new(Shared::default());
    let workers: Vec<_> = (0..3)
        .map(|worker| {
            let random = Random(random.below(u64::MAX) * 2 + 1);
            let peas = [false, true].map(|limits| pea(&site, "p", "", limits));
            runtime.spawn(work(client.clone(), Arc::clone(&shared), worker, random, peas))
        })
        .collect();
    let mut counts = [0_u64; 3];
    let (mut inside, mut waited_for) = (0, 0);
    let mut look = || {
        let calls = shared.calls.load(Ordering::SeqCst);
        inside += u64::from(calls > 0);
        waited_for += u64::from(calls == 0 && shared.waits.load(Ordering::SeqCst) > 0);
    };
    for _ in 0..kills {
        assert!(workers.iter().all(|worker| !worker.is_finished()), "workers go on");
        std::thread::sleep(Duration::from_millis(spacing + random.below(60)));
        let victim = usize::try_from(random.below(3)).unwrap();
        counts[victim] += 1;
        if victim == 0 {
            shared.deaths.fetch_add(1, Ordering::SeqCst);
            look();
            site.kill();
            site.start(None);
            runtime.block_on(site.wait_up());
            shared.deaths.fetch_add(1, Ordering::SeqCst);
        } else {
            let (keeper, anchor) = supervisor(&site.config.run);
            look();
            site::signal(if victim == 1 { keeper } else { anchor }, Number::KILL);
            let deadline = Instant::now() + PATIENCE;
            while supervisor(&site.config.run) == (keeper, anchor) {
                assert!(Instant::now() < deadline, "another one takes over");
            }
        }
    }
    shared.finish.store(true, Ordering::SeqCst);
    for worker in workers {
        runtime
            .block_on(async { tokio::time::timeout(4 * PATIENCE, worker).await })
            .expect("a worker ends")
            .unwrap_or_else(|error| panic!("{error}\n{}", site.log()));
    }
    let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
    println!(
        "daemon {}, keeper {}, anchor {}; inside a call {inside}, while a client only waited for an end \
         {waited_for}; cycles {}, statuses {}, of them unknown {}, calls whose outcome had to be looked \
         up {}; bytes written {}, of them lost with a daemon that had read them {}",
        counts[0],
        counts[1],
        counts[2],
        count(&shared.cycles),
        count(&shared.statuses),
        count(&shared.unknown),
        count(&shared.unsure),
        shared.written.load(Ordering::SeqCst),
        shared.lost.load(Ordering::SeqCst)
    );
    assert!(inside * 4 >= kills * 3, "{inside} of {kills} kills were inside a call");
    assert_eq!(with_argument(&argument), pids, "the steady process has noticed nothing");
    runtime.block_on(async {
        assert_eq!(everything(&client).await, ["steady"]);
        let process = client.attach("steady", "steady", ProcessIo::default()).await.unwrap();
        process.signal(Signal::Kill).await.unwrap();
        match process.wait().await {
            Ok(status) => assert_eq!(status, 137),
            Err(Error::StatusUnknown { .. }) => {
                shared.unknown.fetch_add(1, Ordering::SeqCst);
            }
            Err(error) => panic!("steady: {error}"),
        }
        if kernel_keeps_statuses() || Duration::from_millis(spacing) >= APART {
            assert_eq!(count(&shared.unknown), 0, "statuses are known");
        }
        client.destroy("steady").await.unwrap();
    });
    before.expect_again(&site.config);

    // The last daemon holds no more than the first, before and after more cycles.
    let holds_no_more = || {
        let deadline = Instant::now() + PATIENCE;
        while descriptors(site.daemon()).len() > open {
            assert!(Instant::now() < deadline, "{open}: {:?}", descriptors(site.daemon()));
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    holds_no_more();
    runtime.block_on(async {
        for _ in 0..10 {
            assert_eq!(cycle(&client, &shell("p", "exit 7")).await, Done::Destroyed);
        }
    });
    before.expect_again(&site.config);
    holds_no_more();
}

#[test]
fn what_is_written_while_no_daemon_lives_reaches_the_next_client() {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let mut site = Site::new(5);
        let client = site.client();
        site.start(None);
        site.wait_up().await;
        client.create(&named("box")).await.unwrap();
        let name = format!("writer-{}", std::process::id());
        let script = "trap 'echo late; exit 3' USR1; echo up; while :; do sleep 0.01; done";
        let mut spec = shell("writer", script);
        spec.args.push(name.clone());
        let stdout = || ProcessIo { stdout: true, ..ProcessIo::default() };
        let process = client.run("box", &spec, stdout()).await.unwrap();
        let mut output = process.take_stdout().unwrap();
        let mut heard = [0; 3];
        tokio::io::AsyncReadExt::read_exact(&mut output, &mut heard).await.unwrap();
        assert_eq!(&heard, b"up\n");
        site.kill();
        let pids = with_argument(&name);
        assert_eq!(pids.len(), 1);
        site::signal(pids[0], Number::USR1);
        let deadline = Instant::now() + PATIENCE;
        while !with_argument(&name).is_empty() {
            assert!(Instant::now() < deadline, "the process ends");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        site.start(None);
        site.wait_up().await;
        let process = client.attach("box", "writer", stdout()).await.unwrap();
        let share = share_of(&process);
        let (status, share) = tokio::join!(process.wait(), share);
        assert_eq!((status.unwrap(), share.as_str()), (3, "late\n"));
        client.destroy("box").await.unwrap();
    });
}

#[test]
fn a_daemon_that_is_stopped_lets_its_clients_go_and_the_next_one_takes_up() {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let mut site = Site::new(2);
        let client = site.client();
        site.start(None);
        site.wait_up().await;
        client.create(&named("kept")).await.unwrap();
        let tty = ProcessSpec {
            tty: Some(TtySpec { window_size: Some(WindowSize { columns: 100, rows: 30 }) }),
            ..shell("tty", "read line; stty size; exit 4")
        };
        let terminal = client.run("kept", &tty, ProcessIo::outputs()).await.unwrap();
        let reader = shell("reader", "read line; echo got $line; exit 5");
        let reader = client.run("kept", &reader, ProcessIo::outputs()).await.unwrap();
        assert!(site.stop().success(), "{}", site.log());
        // Both hear that the server is gone, and nobody's input has ended.
        terminal.wait().await.unwrap_err();
        reader.wait().await.unwrap_err();
        site.start(None);
        site.wait_up().await;
        let outputs = ProcessIo { stdout: true, ..ProcessIo::default() };
        let reader = client.attach("kept", "reader", outputs).await.unwrap();
        reader.write_stdin(b"this\n").await.unwrap();
        let mut output = reader.take_stdout().unwrap();
        assert_eq!(reader_text(&mut output).await, "got this\n");
        drop(output);
        assert_eq!(reader.wait().await.unwrap(), 5);
        let terminal = client.attach("kept", "tty", ProcessIo::default()).await.unwrap();
        terminal.write_stdin(b"\n").await.unwrap();
        assert_eq!(terminal.wait().await.unwrap(), 4);
        client.destroy("kept").await.unwrap();
    });
}

async fn reader_text(output: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    use tokio::io::AsyncReadExt;
    let mut text = String::new();
    output.read_to_string(&mut text).await.unwrap();
    text
}

//! Locks and presences through takeovers, silence and restarts of the server.

use std::time::Duration;

use locket::models::TypeCode;
use locket::{Client, Lock, Presence, Server, Timing};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use transport::{Address, Listener};

const PATIENCE: Duration = Duration::from_secs(60);

/// A short life, so that tests need not wait for long ones.
const TIMING: Timing = Timing { ttl: Duration::from_secs(2), interval: Duration::from_millis(100) };

struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

fn address(place: &TempDir) -> Address {
    Address::Unix(place.path().join("locket.sock"))
}

async fn serve(place: &TempDir) -> Running {
    let server = Server::open(&place.path().join("locket.sqlite")).await.unwrap();
    let listener = Listener::bind(&address(place), None).await.unwrap();
    let stop = CancellationToken::new();
    let task = tokio::spawn(server.serve(listener, stop.clone()));
    Running { stop, task }
}

impl Running {
    async fn stop(self) {
        self.stop.cancel();
        timeout(PATIENCE, self.task).await.unwrap().unwrap();
    }
}

fn client(place: &TempDir) -> Client {
    Client::new(&address(place), None).unwrap()
}

fn lock(place: &TempDir, owner: &str) -> Lock {
    Lock::new(client(place), "bbs", owner, TIMING)
}

async fn owner(place: &TempDir, key: &str) -> Option<String> {
    client(place).fetch(key, Some(PATIENCE)).await.ok().map(|resource| resource.owner)
}

#[tokio::test]
async fn a_released_lock_is_taken_at_once_and_a_dead_ones_when_its_time_ends() {
    let place = tempfile::tempdir().unwrap();
    let server = serve(&place).await;
    let first = lock(&place, "a").acquire().await;
    let second = tokio::spawn(lock(&place, "b").acquire());
    // Renewals hold it for longer than one time to live.
    tokio::time::sleep(TIMING.ttl + TIMING.ttl / 2).await;
    assert!(!second.is_finished());
    assert_eq!(owner(&place, "bbs").await.as_deref(), Some("a"));
    first.release().await;
    let second = timeout(PATIENCE, second).await.unwrap().unwrap();
    assert_eq!(owner(&place, "bbs").await.as_deref(), Some("b"));

    // As when killed: no release.
    let died = Instant::now();
    drop(second);
    let third = timeout(PATIENCE, lock(&place, "c").acquire()).await.unwrap();
    // The last renewal may have been an interval, and on a busy machine more, before.
    assert!(died.elapsed() > TIMING.ttl / 2, "{:?}", died.elapsed());
    assert_eq!(owner(&place, "bbs").await.as_deref(), Some("c"));
    drop(third);
    server.stop().await;
}

#[tokio::test]
async fn a_holder_gives_up_before_the_server_can_grant_its_lock_to_another() {
    let place = tempfile::tempdir().unwrap();
    let server = serve(&place).await;
    let mut held = lock(&place, "a").acquire().await;
    server.stop().await;
    let gone = Instant::now();
    let lost = timeout(PATIENCE, held.lost()).await.unwrap();
    assert_eq!(lost.to_string(), "the lock bbs is lost");
    assert!(gone.elapsed() > TIMING.ttl / 4, "{:?}", gone.elapsed());
}

#[tokio::test]
async fn a_stolen_lock_is_lost_at_the_next_renewal() {
    let place = tempfile::tempdir().unwrap();
    let server = serve(&place).await;
    let timing = Timing { ttl: Duration::from_secs(600), interval: Duration::from_millis(200) };
    let mut held = Lock::new(client(&place), "bbs", "a", timing).acquire().await;
    let client = client(&place);
    let ours = client.fetch("bbs", Some(PATIENCE)).await.unwrap();
    let stolen = locket::models::Resource { owner: "thief".into(), ..ours.clone() };
    loop {
        // A renewal between the two calls puts it back.
        client.release(ours.clone(), Some(PATIENCE)).await.unwrap();
        if client.lock(stolen.clone(), timing.ttl, Some(PATIENCE)).await.is_ok() {
            break;
        }
    }
    let lost = timeout(PATIENCE, held.lost()).await.unwrap();
    assert_eq!(lost.source.code(), tonic::Code::AlreadyExists);
    server.stop().await;
}

#[tokio::test]
async fn a_restarted_server_keeps_locks_and_their_holders_notice_nothing() {
    let place = tempfile::tempdir().unwrap();
    let mut server = serve(&place).await;
    let mut held = lock(&place, "a").acquire().await;
    // Together longer than the holder would bear without renewals between.
    for _ in 0..3 {
        server.stop().await;
        server = serve(&place).await;
        assert_eq!(owner(&place, "bbs").await.as_deref(), Some("a"));
        tokio::time::sleep(TIMING.ttl / 2).await;
    }
    assert!(timeout(Duration::ZERO, held.lost()).await.is_err());
    held.release().await;
    assert_eq!(owner(&place, "bbs").await, None);
    server.stop().await;
}

#[tokio::test]
async fn what_was_granted_is_on_disk_whenever_the_server_is_killed() {
    let place = tempfile::tempdir().unwrap();
    let server = serve(&place).await;
    let held = lock(&place, "a").acquire().await;
    // What a kill leaves behind is what the files hold now, with the server running.
    let copy = tempfile::tempdir().unwrap();
    for file in ["locket.sqlite", "locket.sqlite-wal"] {
        std::fs::copy(place.path().join(file), copy.path().join(file)).unwrap();
    }
    let successor = serve(&copy).await;
    assert_eq!(owner(&copy, "bbs").await.as_deref(), Some("a"));
    drop(held);
    server.stop().await;

    // It has the whole of its time again, and then it ends.
    let taken = timeout(PATIENCE, lock(&copy, "b").acquire()).await.unwrap();
    drop(taken);
    successor.stop().await;
}

#[tokio::test]
async fn two_servers_never_share_a_database() {
    let place = tempfile::tempdir().unwrap();
    let server = serve(&place).await;
    let error = Server::open(&place.path().join("locket.sqlite")).await.unwrap_err();
    assert!(error.to_string().contains("locket.sqlite"), "{error}");
    server.stop().await;
    let server = serve(&place).await;
    server.stop().await;
}

#[tokio::test]
async fn a_presence_returns_after_the_server_forgot_it() {
    let place = tempfile::tempdir().unwrap();
    let server = serve(&place).await;
    let presence = Presence::keep(client(&place), "cell-1", "a", "{}", TIMING);
    timeout(PATIENCE, presence.known()).await.unwrap();
    let all = client(&place).fetch_all(TypeCode::Presence, Some(PATIENCE)).await.unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].value, "{}");

    server.stop().await;
    for file in ["locket.sqlite", "locket.sqlite-wal", "locket.sqlite-shm"] {
        let _ = std::fs::remove_file(place.path().join(file));
    }
    let server = serve(&place).await;
    let deadline = Instant::now() + PATIENCE;
    while owner(&place, "cell-1").await.as_deref() != Some("a") {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    timeout(PATIENCE, presence.withdraw()).await.unwrap();
    assert_eq!(owner(&place, "cell-1").await, None);
    server.stop().await;
}

#[tokio::test]
async fn a_restarted_cell_goes_on_with_the_presence_it_left() {
    let place = tempfile::tempdir().unwrap();
    let server = serve(&place).await;
    let file = place.path().join("owner");
    let long = Timing { ttl: Duration::from_secs(600), interval: Duration::from_millis(100) };
    let keep = |owner: &str| Presence::keep(client(&place), "cell-1", owner, "{}", long);
    let first = keep(&locket::owner_kept_in(&file).unwrap());
    timeout(PATIENCE, first.known()).await.unwrap();
    // Killed: the presence stays for ten minutes.
    drop(first);
    let stranger = keep("stranger");
    assert!(timeout(Duration::from_millis(500), stranger.known()).await.is_err());
    let second = keep(&locket::owner_kept_in(&file).unwrap());
    timeout(PATIENCE, second.known()).await.unwrap();
    drop((stranger, second));
    server.stop().await;
}

//! kill -9 of the daemon while an archive is unpacked, on the host as an image or in a container for
//! a client: nothing half made is left, and the next attempt does it all.

mod site;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bloomery_garden::client::{Client, ProcessIo};
use garden_api::ContainerSpec;
use site::traces::{Traces, processes};
use site::{PATIENCE, Site, named, sh};
use tokio::io::AsyncWriteExt;
use tokio::runtime::Runtime;

/// Enough files that unpacking them takes much longer than noticing the first.
const FILES: usize = 3000;

async fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "in time: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).map(|entries| entries.flatten().collect());
    let entries: Vec<_> = entries.unwrap_or_default();
    entries.iter().map(|entry| entry.file_name().into_string().unwrap()).collect()
}

fn add_file(archive: &mut tar::Builder<Vec<u8>>, name: &str, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, name, content).unwrap();
}

/// The site's image as a tar, with many files behind the programs.
fn write_image(site: &Site) -> PathBuf {
    let mut archive = tar::Builder::new(Vec::new());
    archive.follow_symlinks(false);
    archive.append_dir_all(".", site.config.default_rootfs.as_ref().unwrap()).unwrap();
    for number in 0..FILES {
        add_file(&mut archive, &format!("many/{number}"), b"small");
    }
    let path = site.config.depot.with_file_name("image.tar");
    std::fs::write(&path, archive.into_inner().unwrap()).unwrap();
    path
}

async fn output_of(client: &Client, handle: &str, script: &str) -> String {
    use tokio::io::AsyncReadExt;
    let process = client.run(handle, &sh(script), ProcessIo::outputs()).await.unwrap();
    let mut text = String::new();
    process.take_stdout().unwrap().read_to_string(&mut text).await.unwrap();
    assert_eq!(process.wait().await.unwrap(), 0, "{script}");
    text
}

#[test]
fn an_image_that_was_being_unpacked_is_unpacked_anew() {
    Runtime::new().unwrap().block_on(async {
        let mut site = Site::new(0);
        let client = site.client();
        site.start(None);
        site.wait_up().await;
        let before = Traces::settled(&site.config, 0, 0);
        let spec = ContainerSpec {
            handle: "unpacked".into(),
            rootfs: write_image(&site).display().to_string(),
            ..ContainerSpec::default()
        };
        let layers = site.config.store.join("layers");
        let half_made = || names(&layers).into_iter().find(|name| name.starts_with('.'));
        let creating = tokio::spawn({
            let (client, spec) = (client.clone(), spec.clone());
            async move { client.create(&spec).await }
        });
        wait_until("files are unpacked", || {
            let many = half_made().map(|name| layers.join(name).join("root/many"));
            many.is_some_and(|many| !names(&many).is_empty())
        })
        .await;
        site.kill();
        creating.await.unwrap().unwrap_err();
        let half = half_made().expect("it was killed in the middle");
        assert!(names(&layers.join(half).join("root/many")).len() < FILES);

        site.start(None);
        site.wait_up().await;
        assert_eq!(half_made(), None);
        before.expect_again(&site.config);
        client.create(&spec).await.unwrap();
        let count = output_of(&client, "unpacked", "ls /many | wc -l; cat /many/2999").await;
        assert_eq!(count, format!("{FILES}\nsmall"));
        client.destroy("unpacked").await.unwrap();
        // The layer stays.
        let mut unpacked = before;
        *unpacked.files.get_mut("store/layers").unwrap() += 1;
        unpacked.expect_again(&site.config);
    });
}

/// Where a container's files are on the host.
fn volume(site: &Site, handle: &str) -> PathBuf {
    let record = std::fs::read(site.config.depot.join(handle).join("container.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    site.config.store.join("volumes").join(record["volume"].to_string())
}

/// Pids of what unpacks for clients in containers of this site.
fn unpackers(site: &Site) -> Vec<i32> {
    let (keeper, anchor) = site::traces::supervisor(&site.config.run);
    let unpacks = |pid: &i32| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.split(|byte| *byte == 0).any(|word| word == b"stream-in"))
    };
    let ours = processes().filter(|(_, parent)| [keeper, anchor].contains(parent));
    ours.map(|(pid, _)| pid).filter(unpacks).collect()
}

#[test]
fn an_archive_that_was_streamed_in_leaves_no_process_and_can_be_sent_again() {
    Runtime::new().unwrap().block_on(async {
        let mut site = Site::new(1);
        let client = site.client();
        site.start(None);
        site.wait_up().await;
        let empty = Traces::settled(&site.config, 0, 0);
        let spec = named("box");
        client.create(&spec).await.unwrap();
        let before = Traces::settled(&site.config, 1, 0);

        let mut archive = tar::Builder::new(Vec::new());
        for number in 0..50 {
            add_file(&mut archive, &format!("in/{number}"), b"content");
        }
        let archive = archive.into_inner().unwrap();
        let (mut ours, theirs) = tokio::io::duplex(1 << 20);
        let written = volume(&site, "box").join("upper/in/9");
        let killing = async {
            // Half of it, and the connection stays.
            ours.write_all(&archive[..archive.len() / 2]).await.unwrap();
            wait_until("some of it is there", || written.exists()).await;
            assert_eq!(unpackers(&site).len(), 1);
            site.kill();
        };
        let (sent, ()) = tokio::join!(client.stream_in("box", "", "/", theirs), killing);
        sent.unwrap_err();

        site.start(None);
        site.wait_up().await;
        before.expect_again(&site.config);
        assert!(unpackers(&site).is_empty());
        client.stream_in_bytes("box", "", "/", &archive).await.unwrap();
        let count = output_of(&client, "box", "cat /in/* | wc -c").await;
        assert_eq!(count.trim(), (50 * "content".len()).to_string());
        client.destroy("box").await.unwrap();
        empty.expect_again(&site.config);
    });
}

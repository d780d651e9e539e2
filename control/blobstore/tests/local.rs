//! A store in a directory: what is on disk, before and after.

use std::io;
use std::path::Path;

use blobstore::{Blobstore, Bucket, Key};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

fn key(name: &str) -> Key {
    Key::new(Bucket::Packages, name).unwrap()
}

fn chunks(chunks: Vec<Bytes>) -> impl futures_util::Stream<Item = io::Result<Bytes>> + Send {
    stream::iter(chunks).map(Ok)
}

async fn read(store: &Blobstore, key: &Key) -> Option<Vec<u8>> {
    let blob = store.get(key).await.unwrap()?;
    let bytes: Vec<Bytes> = blob.bytes.try_collect().await.unwrap();
    let bytes = bytes.concat();
    assert_eq!(bytes.len() as u64, blob.size);
    Some(bytes)
}

fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path.file_name().unwrap().to_string_lossy().into_owned()),
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn what_is_put_is_there_with_its_digests() {
    let dir = tempfile::tempdir().unwrap();
    let store = Blobstore::local(dir.path()).unwrap();
    let key = key("abcdef");
    assert_eq!(read(&store, &key).await, None);
    assert_eq!(store.size(&key).await.unwrap(), None);
    let digests = store.put(&key, chunks(vec!["hello ".into(), "world".into()])).await.unwrap();
    assert_eq!(digests.size, 11);
    assert_eq!(digests.sha1, "2aae6c35c94fcfb415dbe95f408b9ce91ee846ed");
    assert_eq!(digests.sha256, "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9");
    assert_eq!(std::fs::read(dir.path().join("cc-packages/ab/cd/abcdef")).unwrap(), b"hello world");
    assert_eq!(read(&store, &key).await.unwrap(), b"hello world");
    store.put(&key, chunks(vec!["new".into()])).await.unwrap();
    assert_eq!(read(&store, &key).await.unwrap(), b"new");
    let again = Blobstore::local(dir.path()).unwrap();
    assert_eq!(read(&again, &key).await.unwrap(), b"new");
}

#[tokio::test]
async fn large_blobs_stream_through() {
    let dir = tempfile::tempdir().unwrap();
    let store = Blobstore::local(dir.path()).unwrap();
    let chunk = Bytes::from(vec![7; 700_000]);
    let digests = store.put(&key("large1"), chunks(vec![chunk; 20])).await.unwrap();
    assert_eq!(digests.size, 14_000_000);
    let bytes = read(&store, &key("large1")).await.unwrap();
    assert!(bytes.len() == 14_000_000 && bytes.iter().all(|&byte| byte == 7));
    let file = dir.path().join("copy");
    let mut sink = tokio::fs::File::create(&file).await.unwrap();
    assert!(store.copy_to(&key("large1"), &mut sink).await.unwrap());
    let from_file = store.put_file(&key("large2"), &file).await.unwrap();
    assert_eq!(from_file, digests);
    assert!(!store.copy_to(&key("large3"), &mut sink).await.unwrap());
}

#[tokio::test]
async fn a_broken_upload_leaves_nothing_and_the_old_blob_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = Blobstore::local(dir.path()).unwrap();
    store.put(&key("abcdef"), chunks(vec!["old".into()])).await.unwrap();
    for before in [1, 6_000_000] {
        let first: io::Result<Bytes> = Ok(vec![1; before].into());
        let broken = stream::iter([first, Err(io::Error::other("connection lost"))]);
        store.put(&key("abcdef"), broken).await.unwrap_err();
    }
    assert_eq!(read(&store, &key("abcdef")).await.unwrap(), b"old");
    assert_eq!(files(dir.path()), ["abcdef"]);
}

#[tokio::test]
async fn an_upload_that_is_given_up_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Blobstore::local(dir.path()).unwrap();
    let first: io::Result<Bytes> = Ok(vec![1; 6_000_000].into());
    let endless = stream::iter([first]).chain(stream::pending());
    let key = key("abcdef");
    let put = store.put(&key, endless);
    assert!(tokio::time::timeout(std::time::Duration::from_secs(1), put).await.is_err());
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !files(dir.path()).is_empty() {
        assert!(std::time::Instant::now() < deadline, "{:?}", files(dir.path()));
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn what_a_killed_process_left_is_removed_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = Blobstore::local(dir.path()).unwrap();
    store.put(&key("abcdef"), chunks(vec!["old".into()])).await.unwrap();
    std::fs::write(dir.path().join("cc-packages/ab/cd/abcdef#1"), "half").unwrap();
    let store = Blobstore::local(dir.path()).unwrap();
    assert_eq!(files(dir.path()), ["abcdef"]);
    assert_eq!(read(&store, &key("abcdef")).await.unwrap(), b"old");
}

#[tokio::test]
async fn deletes_and_copies_can_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let store = Blobstore::local(dir.path()).unwrap();
    let cache = |name: &str| Key::new(Bucket::BuildpackCache, name).unwrap();
    let (one, two) = (cache("app-1/stack-1"), cache("app-1/stack-2"));
    store.put(&one, chunks(vec!["x".into()])).await.unwrap();
    for _ in 0..2 {
        assert!(store.copy(&one, &two).await.unwrap());
    }
    assert!(!store.copy(&cache("app-2/stack-1"), &two).await.unwrap());
    for _ in 0..2 {
        store.delete(&one).await.unwrap();
    }
    assert_eq!(read(&store, &one).await, None);
    assert_eq!(read(&store, &two).await.unwrap(), b"x");
    for _ in 0..2 {
        store.delete_below(&cache("app-1")).await.unwrap();
    }
    assert_eq!(read(&store, &two).await, None);
}

//! Files into containers and out of them.

use bbs_models::{Action, DownloadAction, SerialAction, UploadAction};

use crate::cell::files::Files;
use crate::cell::{Cell, Settings, instance, sh};

fn serial(actions: Vec<Action>) -> Action {
    let serial = SerialAction { actions, ..Default::default() };
    Action { serial_action: serial.into(), ..Default::default() }
}

fn download(source: &str, from: String) -> Action {
    let download = DownloadAction {
        artifact: "the app".into(),
        from,
        to: "/tmp/app".into(),
        cache_key: "app".into(),
        log_source: source.into(),
        user: "root".into(),
        ..Default::default()
    };
    Action { download_action: download.into(), ..Default::default() }
}

fn upload(source: &str, to: String) -> Action {
    let upload = UploadAction {
        artifact: "the droplet".into(),
        from: "/tmp/droplet".into(),
        to,
        log_source: source.into(),
        user: "root".into(),
        ..Default::default()
    };
    Action { upload_action: upload.into(), ..Default::default() }
}

/// Runs an action to its end; why it fails, if it does.
fn end(cell: &Cell, guid: &str, action: Action) -> String {
    cell.begin(guid, instance(guid, action));
    let completion = cell.until_completed(guid);
    assert_eq!(completion.failed, !completion.failure_reason.is_empty());
    completion.failure_reason
}

fn cell() -> (Cell, Files) {
    let settings = Settings { program: Some(crate::BLOOMERY), ..Settings::default() };
    let cell = Cell::with(settings);
    let files = Files::serve(&cell.runtime);
    (cell, files)
}

#[test]
fn a_download_is_unpacked_and_fetched_only_when_it_has_changed() {
    let (cell, files) = cell();
    let tree = serial(vec![
        download("first", files.url("/app.tar")),
        sh("look", "cat /tmp/app/file"),
        download("second", files.url("/app.tar")),
    ]);
    assert_eq!(end(&cell, "good", tree), "");
    assert_eq!(cell.lines("first"), ["Downloading the app...", "Downloaded the app (2K)"]);
    assert_eq!(cell.lines("look"), ["content", "Exit status 0"]);
    assert_eq!(cell.lines("second"), ["Downloading the app...", "Downloaded the app (cached)"]);

    let absent = download("absent", files.url("/absent.tar"));
    assert_eq!(end(&cell, "bad", absent), "Downloading failed");
    let failed = "Failed to download the app: Download failed: Status code 404";
    assert_eq!(cell.lines("absent"), ["Downloading the app...", failed]);
    assert!(cell.logs().iter().any(|log| log.is_error && log.message == failed.as_bytes()));
}

#[test]
fn an_upload_is_taken_or_refused() {
    let (cell, files) = cell();
    let tree = |source: &str, path: &str| {
        let made = sh("make", "echo droplet > /tmp/droplet");
        serial(vec![made, upload(source, files.url(path))])
    };
    assert_eq!(end(&cell, "good", tree("taken", "/taken")), "");
    assert_eq!(cell.lines("taken"), ["Uploading the droplet...", "Uploaded the droplet (8B)"]);
    assert_eq!(files.taken(), [b"droplet\n"]);

    assert_eq!(end(&cell, "bad", tree("refused", "/elsewhere")), "Uploading failed");
    let failed = "Failed to upload the droplet: Upload failed: Status code 404";
    assert_eq!(cell.lines("refused"), ["Uploading the droplet...", failed]);
    assert!(cell.logs().iter().any(|log| log.is_error && log.message == failed.as_bytes()));
}

//! What an earlier version has left in the directory of data is there again with this one.

use std::fs::File;

use flate2::read::GzDecoder;
use platform_tests::{Platform, Told, eventually, guid};

const STATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/state/before-stand-by.tar.gz");

#[test]
fn an_app_of_an_earlier_version_is_back() -> Told<()> {
    let platform = Platform::new(0);
    platform.put_stack();
    let mut state = tar::Archive::new(GzDecoder::new(File::open(STATE).unwrap()));
    state.set_preserve_ownerships(true);
    state.unpack(platform.data()).unwrap();

    let stack = platform.data().join("stack/base.tar");
    platform.up(&["--stack", &stack.to_string_lossy()]);
    let page = eventually("the app answers", || match platform.app("older", "/") {
        Ok(answer) if answer.status == 200 => Ok(answer.text()),
        Ok(answer) => Err(format!("{} {}", answer.status, answer.text())),
        Err(error) => Err(error.to_string()),
    });
    assert_eq!(page, "<h1>older</h1>\n");

    let api = platform.log_in()?;
    let app = api.one("/v3/apps?names=older")?;
    assert_eq!(app["state"], "STARTED");
    let route = api.one(&format!("/v3/apps/{}/routes", guid(&app)))?;
    assert_eq!(route["url"], "older.apps.bloomery.localhost");
    Ok(())
}

//! An installation that somebody else looks after, and one whose machine has lost its power.

use platform_tests::{Part, Platform, Told, eventually, guid};

#[test]
fn the_sample_is_there_while_up_stays_and_is_back_after_a_loss_of_power() -> Told<()> {
    let platform = Platform::new(0);
    platform.put_stack();
    let up = platform.up_in_foreground();
    eventually("the API answers", || platform.log_in().map(|_| ()));
    assert!(platform.part(Part::StandBy).is_none(), "who has started it starts it again");

    // The sample is pushed as anybody pushes, by a session that does not stay.
    for _ in 0..2 {
        let told = platform.up(&["--sample"]);
        assert!(told.contains("already running (process "), "{told}");
        assert!(told.contains("Sample    http://hello.apps.bloomery.localhost "), "{told}");
        expect_sample(&platform);
        assert!(!platform.run().join("sample.json").exists());
    }
    let app = guid(&platform.log_in()?.one("/v3/apps")?);
    assert_eq!(platform.running(1).len(), 1);

    let status = platform.end_foreground(up);
    assert!(status.success(), "{status}");
    assert_eq!(platform.bloomery(&["status"]).status.code(), Some(4));
    assert!(platform.world().processes().is_empty(), "{:?}", platform.world().processes());
    assert!(platform.cgroups().is_empty(), "{:?}", platform.cgroups());

    platform.up(&[]);
    expect_sample(&platform);
    let before = platform.running(1);
    platform.lose_power();
    assert_eq!(platform.bloomery(&["status"]).status.code(), Some(4));
    platform.up(&[]);
    expect_sample(&platform);
    let after = platform.running(1);
    assert_ne!(before, after);
    platform.containers_are(&after);
    assert_eq!(guid(&platform.log_in()?.one("/v3/apps")?), app);
    Ok(())
}

fn expect_sample(platform: &Platform) {
    let page = eventually("the sample answers", || match platform.app("hello", "/") {
        Ok(answer) if answer.status == 200 => Ok(answer.text()),
        Ok(answer) => Err(format!("{} {}", answer.status, answer.text())),
        Err(error) => Err(error.to_string()),
    });
    assert!(page.contains("<h1"), "{page}");
}

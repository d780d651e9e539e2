//! kill -9 of keeper and anchor while the daemon is at a named step: one after the other dies in the
//! middle of a create, a run, an end and a destroy, and the daemon goes on.

use bloomery_garden::client::{Client, Error, ProcessIo};
use bloomery_garden::fault;
use rustix::process::Signal as Number;
use tokio::runtime::Runtime;

use super::site::traces::{Traces, supervisor};
use super::site::waiting::{kernel_keeps_statuses, wait_until};
use super::site::{self, PATIENCE, Site};
use super::{everything, make_steady, named, shell, with_argument};

/// A whole life; at which call it failed.
async fn live(client: Client) -> Result<(), (&'static str, Error)> {
    client.create(&named("cycle")).await.map_err(|error| ("create", error))?;
    let script = shell("p", "echo written; exit 7");
    let started = client.run("cycle", &script, ProcessIo { stdout: true, ..ProcessIo::default() });
    let process = started.await.map_err(|error| ("run", error))?;
    let written = super::output::share_of(&process);
    let (status, written) = tokio::join!(process.wait(), written);
    match status {
        Ok(status) => assert_eq!((status, written.as_str()), (7, "written\n")),
        // Two kills within a second.
        Err(Error::StatusUnknown { .. }) if !kernel_keeps_statuses() => {}
        Err(error) => return Err(("wait", error)),
    }
    client.destroy("cycle").await.map_err(|error| ("destroy", error))
}

#[test]
fn a_supervisor_killed_while_the_daemon_is_at_any_step_breaks_no_call() {
    let runtime = Runtime::new().unwrap();
    let mut site = Site::new(4);
    let client = site.client();
    let held = site.place("held");
    std::fs::create_dir(&held).unwrap();
    site.start(None);
    let (argument, pids) = runtime.block_on(async {
        site.wait_up().await;
        make_steady(&client, 2).await
    });
    let before = Traces::settled(&site.config, 1, 1);
    let steps = fault::STEPS.iter().filter(|step| !super::is_a_peas(step));
    for (step, victim) in steps.flat_map(|step| [(step, "keeper"), (step, "anchor")]) {
        let hold = held.join(step.replace('/', "-"));
        let reached = hold.with_extension("reached");
        std::fs::write(&hold, "").unwrap();
        let living = runtime.spawn(live(client.clone()));
        wait_until(step, || reached.exists());
        let (keeper, anchor) = supervisor(&site.config.run);
        site::signal(if victim == "keeper" { keeper } else { anchor }, Number::KILL);
        wait_until("another one takes over", || supervisor(&site.config.run) != (keeper, anchor));
        std::fs::remove_file(&hold).unwrap();
        runtime.block_on(async {
            let lived = tokio::time::timeout(PATIENCE, living).await;
            let lived = lived.expect("the call ends").unwrap();
            lived.unwrap_or_else(|(call, error)| panic!("{victim} at {step}: {call}: {error}"));
            assert_eq!(everything(&client).await, ["steady"], "{victim} at {step}");
        });
        assert_eq!(with_argument(&argument), pids, "{victim} at {step}");
        std::fs::remove_file(&reached).unwrap();
        before.expect_again(&site.config);
    }
    runtime.block_on(client.destroy("steady")).unwrap();
}

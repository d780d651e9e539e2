//! Containers, through the gardener's own calls.

mod plot;

use garden_api::ContainerSpec;
use garden_sys::supervisor::Exit;
use plot::Plot;

#[test]
fn a_container_runs_a_process_and_is_gone_after_its_destroy() {
    let plot = Plot::new();
    assert_eq!(plot.create("a"), "a");
    let outcome = plot.sh("a", "echo out; echo err >&2; exit 3");
    assert_eq!(outcome.exit, Exit::Status(3));
    assert_eq!((outcome.output.as_str(), outcome.error.as_str()), ("out\n", "err\n"));
    plot.garden().destroy("a").unwrap();
    assert!(plot.garden().list(&Default::default()).is_empty());
    assert_eq!(std::fs::read_dir(&plot.config.depot).unwrap().count(), 0);
}

#[test]
fn what_is_inside_is_the_containers_own() {
    let plot = Plot::new();
    plot.create_as(ContainerSpec {
        handle: "inside".into(),
        env: vec!["COLOUR=red".into()],
        ..ContainerSpec::default()
    });
    let outcome = plot.sh(
        "inside",
        "hostname; id -u; echo $COLOUR $HOME $PATH; pwd; cat /proc/1/comm; ls /; touch /x && stat -c %u:%g /x; \
         cat /proc/self/status | grep -E '^(CapBnd|CapInh|CapEff|Seccomp|NoNewPrivs)'; ls /dev; ls /proc | grep -c '^[0-9]'; ls -A /proc/scsi /sys/firmware",
    );
    eprintln!("{outcome:?}");
    assert_eq!(outcome.exit, Exit::Status(0));
    plot.garden().destroy("inside").unwrap();
}

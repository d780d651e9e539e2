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
    let told = |script: &str| {
        let outcome = plot.sh("inside", script);
        assert_eq!((outcome.exit, outcome.error.as_str()), (Exit::Status(0), ""), "{script}");
        outcome.output
    };
    assert_eq!(told("hostname; id -u; pwd; echo $COLOUR $HOME"), "inside\n0\n/root\nred /root\n");
    assert_eq!(told("touch /x && stat -c %u:%g /x"), "0:0\n");
    assert_eq!(
        told("grep -E '^(CapInh|CapEff|CapBnd|CapAmb|Seccomp):' /proc/self/status"),
        "CapInh:\t0000000000000000\nCapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\n\
         CapAmb:\t0000000000000000\nSeccomp:\t2\n"
    );
    assert_eq!(
        told("ls /dev"),
        "fd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n"
    );
    assert_eq!(told("ls -A /sys/firmware; for f in /proc/k[ce]*; do cat $f; done"), "");
    plot.garden().destroy("inside").unwrap();
}

//! A daemon that may open no more descriptors. A program of its own: the limit is the process's.

mod plot;

use garden_api::ContainerSpec;
use garden_sys::supervisor::Exit;
use plot::Plot;
use plot::running::shell;
use plot::traces::descriptors;
use rustix::process::{Resource, getrlimit, setrlimit};

#[test]
fn without_descriptors_calls_fail_clearly_and_work_again_later() {
    let plot = Plot::new();
    let before = plot.settled();
    plot.create("old");
    let mut running = plot.start_sh("old", "echo up; read line; exit 5");
    running.hear("up\n");
    let usual = getrlimit(Resource::Nofile);
    let own = i32::try_from(std::process::id()).unwrap();
    for spare in 0..40 {
        // Numbers are what is limited, so the gaps below the highest count as well.
        let open = u64::try_from(descriptors(own).len()).unwrap();
        setrlimit(
            Resource::Nofile,
            rustix::process::Rlimit { current: Some(open + spare), ..usual },
        )
        .unwrap();
        let handle = format!("new-{spare}");
        let spec = ContainerSpec { handle: handle.clone(), ..ContainerSpec::default() };
        let created = plot.garden().create(spec);
        let ran = plot.garden().run("old", &shell("exit 0"));
        setrlimit(Resource::Nofile, usual).unwrap();
        match created {
            Ok(_) => plot.garden().destroy(&handle).unwrap(),
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("Too many open files"), "{spare}: {text}");
            }
        }
        match ran {
            Ok(process) => assert_eq!(plot.attach(process).end().0, Exit::Status(0)),
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("Too many open files"), "{spare}: {text}");
            }
        }
    }
    running.say("go\n");
    assert_eq!(running.end().0, Exit::Status(5));
    plot.garden().destroy("old").unwrap();
    plot.expect(&before);
    plot.create("after");
    assert_eq!(plot.sh("after", "exit 7").exit, Exit::Status(7));
    plot.garden().destroy("after").unwrap();
    plot.expect(&before);
}

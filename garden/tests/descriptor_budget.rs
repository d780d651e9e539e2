//! What a container with a process costs in descriptors. A program of its own: the daemon is the
//! test's process, and only its containers are to be counted.

mod plot;

use std::time::Instant;

use plot::running::shell;
use plot::traces::descriptors;
use plot::{PATIENCE, Plot};

/// Containers that are counted.
const SOME: usize = 20;
/// Per container with a process, in daemon, keeper and anchor. A thousand of these, with the pool and all
/// else that there is once, stay below the ten thousand that each may hold.
const MOST: [usize; 3] = [9, 5, 5];

#[test]
fn a_thousand_containers_with_a_process_each_would_fit_into_ten_thousand_descriptors() {
    let plot = Plot::new();
    let held = || {
        let (keeper, anchor) = plot.supervisor();
        let own = i32::try_from(std::process::id()).unwrap();
        [own, keeper, anchor].map(|pid| descriptors(pid).len())
    };
    plot.settled();
    let none = held();
    for number in 0..SOME {
        let handle = format!("box-{number}");
        plot.create(&handle);
        // Its client ends its input, as one without any does.
        drop(plot.garden().run(&handle, &shell("exec sleep 1000")).unwrap().attach());
    }
    // What is needed for a moment only is no cost, and inputs end a little later.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let some = held();
        let within = |at: usize| some[at] <= none[at] + MOST[at] * SOME;
        if (0..MOST.len()).all(within) {
            println!("none: {none:?}, {SOME}: {some:?}");
            break;
        }
        assert!(Instant::now() < deadline, "without any {none:?}, with {SOME} {some:?}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!((0..MOST.len()).all(|at| none[at] + MOST[at] * 1000 < 10_000), "{none:?}");
}

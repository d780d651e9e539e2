//! Children that do not outlive whoever started them (PR_SET_PDEATHSIG(2const)), and such as begin
//! in a cgroup.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::{LazyLock, mpsc};

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

type Order = (Command, mpsc::Sender<io::Result<Child>>);

/// The kernel sends the signal when the *thread* that forked ends, so one thread that never ends
/// starts all of these children.
static STARTER: LazyLock<mpsc::Sender<Order>> = LazyLock::new(|| {
    let (orders, received) = mpsc::channel::<Order>();
    std::thread::spawn(move || {
        for (mut command, reply) in received {
            // Nobody waits for the answer any more: the child is dropped, not killed.
            let _ = reply.send(command.spawn());
        }
    });
    orders
});

/// Starts a child that is killed when this process ends, however it ends.
pub fn spawn_bound(mut command: Command) -> io::Result<Child> {
    let parent = rustix::process::getpid();
    // SAFETY: the closure runs between fork and exec, in a copy of a process that may have other
    // threads, so it must neither allocate nor lock: it makes two system calls and compares two
    // numbers, and its error is a plain errno.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent may have died before that call.
            if getppid() == Some(parent) {
                Ok(())
            } else {
                Err(io::Error::from_raw_os_error(libc::ESRCH))
            }
        });
    }
    let (reply, answer) = mpsc::channel();
    let gone = || io::Error::other("the thread that starts children has ended");
    STARTER.send((command, reply)).map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}

/// Starts a child in the cgroup whose `cgroup.procs` is open as `door`: nothing that it does is
/// outside.
pub fn spawn_within(mut command: Command, door: OwnedFd) -> io::Result<Child> {
    // SAFETY: the closure runs between fork and exec, in a copy of a process that may have other
    // threads, so it must neither allocate nor lock: it makes one system call, on a descriptor that
    // it owns, and its error is a plain errno.
    unsafe {
        command.pre_exec(move || Ok(rustix::io::write(&door, b"0").map(drop)?));
    }
    command.spawn()
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;
    use std::time::{Duration, Instant};

    use super::*;

    /// Set in the process that plays the parent.
    const PART: &str = "GARDEN_SYS_BOUND_PARENT";

    fn is_alive(pid: &str) -> bool {
        // A zombie is nobody's concern; only its name is left.
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z"))
    }

    #[test]
    fn a_bound_child_outlives_threads_but_not_its_parent() {
        if std::env::var_os(PART).is_some() {
            let started = std::thread::spawn(|| {
                let mut sleep = Command::new("sleep");
                sleep.arg("600").stdin(Stdio::null()).stdout(Stdio::null());
                spawn_bound(sleep).unwrap()
            });
            println!("\nchild {}", started.join().unwrap().id());
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).unwrap();
            return;
        }
        let mut parent = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child::tests::a_bound_child_outlives_threads_but_not_its_parent"])
            .arg("--nocapture")
            .env(PART, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = std::io::BufRead::lines(std::io::BufReader::new(parent.stdout.take().unwrap()));
        let child = lines
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("child ").map(str::to_owned))
            .unwrap();
        assert!(is_alive(&child), "the thread that asked for it has ended");
        parent.kill().unwrap();
        parent.wait().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while is_alive(&child) {
            assert!(Instant::now() < deadline, "{child} lives on");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

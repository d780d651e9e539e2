//! The demonstration in the places that it has on everybody's host: its story, what it leaves on
//! purpose, and that nothing else of it stays, whenever Ctrl-C is pressed and however often.

#![forbid(unsafe_code)]

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use machine::{Command, Event, Kernel, Machine, Outcome, Process, Programs};

/// Longer than anything takes here, on the busiest host.
const PATIENCE: Duration = Duration::from_secs(120);
const PROGRAM: &str = "/opt/bloomery";
/// Between one Ctrl-C and the next.
const AGAIN: Duration = Duration::from_millis(50);
const INTERRUPT: i32 = 2;

/// All that is shared with others on a host: settings of the network, links, rules, cgroups, mounts,
/// programs that run, and files.
const EVERYTHING: &str = "
grep -rs . /proc/sys/net/ipv4 /proc/sys/net/ipv6 | sort
ls /sys/class/net
nft list ruleset
find /sys/fs/cgroup -type d | sort
cat /proc/mounts
ls -l /proc/[0-9]*/exe 2>/dev/null | sed -n 's/.* -> //p' | sort -u
find /run /tmp /var | sort
";

static BINARY: LazyLock<Programs> = LazyLock::new(|| Programs::binary("bloomery").unwrap());

/// A host before, during and after a demonstration.
struct Host {
    machine: Machine,
    before: String,
}

impl Host {
    fn on(kernel: Kernel) -> Self {
        let machine = Machine::start(kernel, "demonstration").unwrap();
        assert_eq!(BINARY.put(&machine, "cli", "bloomery").unwrap(), PROGRAM);
        // Machines forward as soon as they boot; few people's do.
        machine.sh("echo 0 >/proc/sys/net/ipv4/ip_forward").unwrap();
        let before = machine.sh(EVERYTHING).unwrap().output;
        assert!(before.contains("/proc/sys/net/ipv4/ip_forward:0\n"), "{before}");
        assert!(before.contains("\n/sys/fs/cgroup\n") && before.contains("\n/run\n"), "{before}");
        Self { machine, before }
    }

    /// What has been added to the host, or is gone from it.
    fn differences(&self) -> Vec<String> {
        let now = self.machine.sh(EVERYTHING).unwrap().output;
        let lacks = |text: &str, line: &str| !text.lines().any(|other| other == line);
        let new =
            now.lines().filter(|line| lacks(&self.before, line)).map(|line| format!("+{line}"));
        let gone = self.before.lines().filter(|line| lacks(&now, line));
        new.chain(gone.map(|line| format!("-{line}"))).collect()
    }

    fn is_as_before(&self, when: &str, told: &str) {
        assert_eq!(self.differences(), [""; 0], "{when}:\n{told}");
    }

    fn spawn(&self, words: &[&str]) -> Process {
        self.machine.spawn(&Command::new(words)).unwrap()
    }

    fn run(&self, words: &[&str]) -> Outcome {
        self.spawn(&[&[PROGRAM], words].concat()).outcome(PATIENCE).unwrap()
    }

    /// What `bloomery` says with these words; it must succeed.
    fn told(&self, words: &[&str]) -> String {
        let outcome = self.run(words);
        assert_eq!(outcome.status, 0, "{words:?}: {outcome}");
        outcome.output
    }
}

/// Waits until a process has said this.
fn hear(process: &Process, words: &str) -> String {
    let mut heard = String::new();
    while !heard.contains(words) {
        match process.next(PATIENCE).unwrap() {
            Event::Output(piece) => heard += &String::from_utf8_lossy(&piece),
            other => panic!("{other:?} before {words:?}, after\n{heard}"),
        }
    }
    heard
}

/// Presses Ctrl-C again and again until it ends; its status, and what it says until then.
fn interrupt_until_end(process: &Process) -> (i32, String) {
    let (mut said, deadline) = (String::new(), Instant::now() + PATIENCE);
    loop {
        process.signal(INTERRUPT).unwrap();
        match process.try_next(AGAIN).unwrap() {
            Some(Event::Output(piece) | Event::Error(piece)) => {
                said += &String::from_utf8_lossy(&piece);
            }
            Some(Event::Exit(status)) => return (status, said),
            None => assert!(Instant::now() < deadline, "it does not end; it said\n{said}"),
        }
    }
}

fn is_interrupted_and_leaves_nothing(host: &Host) {
    for chapter in ["serving after", "Its limits hold"] {
        let demonstration = host.spawn(&[PROGRAM, "demo"]);
        let heard = hear(&demonstration, chapter);
        let (status, said) = interrupt_until_end(&demonstration);
        let told = heard + &said;
        assert_eq!(status, 1, "{told}");
        assert!(told.contains("\ninterrupted\n"), "{told}");
        assert!(told.contains("bloomery: interrupted before the end\n"), "{told}");
        host.is_as_before(chapter, &told);
    }
    // Ctrl-C ends who reads what it says as well.
    let piped = host.spawn(&["sh", "-c", &format!("{PROGRAM} demo | cat")]);
    let heard = hear(&piped, "A port of it");
    let _ = interrupt_until_end(&piped);
    let deadline = Instant::now() + PATIENCE;
    while !host.differences().is_empty() {
        assert!(Instant::now() < deadline, "{:?}\n{heard}", host.differences());
    }
}

fn keeps_what_it_is_told_to_keep_until_down(host: &Host) {
    let told = host.told(&["demo", "--keep"]);
    for words in [
        "  sysctl net.ipv4.ip_forward = 1 (was 0)\n",
        "  nftables table ",
        "  cgroup bloomery-b (new)\n",
        "hello from inside, 3\n",
        "exit status 7\n",
        "events: [\"Out of memory\"]\n",
        "hello from outside, 198.51.100.1\n",
        "\nDestroyed\n",
        "\nThe daemon stays",
    ] {
        assert!(told.contains(words), "{words:?}: {told}");
    }
    host.told(&["ctl", "create", "--handle", "own"]);
    host.told(&["ctl", "run", "-d", "own", "--", "sleep", "1000"]);
    for second in ["demo", "up"] {
        let refused = host.run(&[second]);
        assert_eq!(refused.status, 1, "{refused}");
        assert!(refused.error.contains("`cargo xtask down` ends it"), "{refused}");
    }
    assert_eq!(host.told(&["ctl", "list"]), "own\n");

    let down = host.spawn(&[PROGRAM, "demo", "--down"]);
    let heard = hear(&down, "ending process");
    let (status, said) = interrupt_until_end(&down);
    assert_eq!(status, 0, "{heard}{said}");
    assert!(said.contains("sysctl net.ipv4.ip_forward = 0 (was 1)\n"), "{heard}{said}");
    host.is_as_before("down", &said);
    let again = host.told(&["demo", "--down"]);
    assert_eq!(again, "nothing of a demonstration is here\n");
    host.is_as_before("down again", &again);
}

fn ends_by_itself(host: &Host) {
    let told = host.told(&["demo"]);
    let end = "\nput back; what differs from before:\n  nothing differs from before\n";
    assert!(told.contains("\nDestroyed\n") && told.ends_with(end), "{told}");
    host.is_as_before("its end", &told);
}

#[test]
fn on_6_1_nothing_stays_but_what_is_kept_on_purpose() {
    let host = Host::on(Kernel::V6_1);
    is_interrupted_and_leaves_nothing(&host);
    keeps_what_it_is_told_to_keep_until_down(&host);
    ends_by_itself(&host);
}

#[test]
fn on_6_12_nothing_stays_but_what_is_kept_on_purpose() {
    let host = Host::on(Kernel::V6_12);
    is_interrupted_and_leaves_nothing(&host);
    keeps_what_it_is_told_to_keep_until_down(&host);
    ends_by_itself(&host);
}

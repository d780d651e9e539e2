//! Archives into containers and out of them, by the program itself.

#[path = "../../garden/tests/plot/mod.rs"]
mod plot;

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use bloomery_garden::gardener::Unpacking;
use bloomery_garden::server::Settings;
use garden_sys::supervisor::Exit;
use plot::traces::Traces;
use plot::{Plot, wait_until};
use tokio::io::AsyncWriteExt;

fn plot() -> Plot {
    Plot::with(|config| config.own_program = env!("CARGO_BIN_EXE_bloomery").into())
}

/// What GNU tar makes of a directory that `script` fills.
fn archive(script: &str, flags: &[&str]) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let mut shell = Command::new("sh");
    let filled = shell.args(["-ec", script]).current_dir(&directory).status().unwrap();
    assert!(filled.success(), "{script}");
    let mut tar = Command::new("tar");
    let made = tar.arg("-C").arg(directory.path()).args(["-cf", "-"]).args(flags).arg(".");
    let made = made.output().unwrap();
    assert!(made.status.success());
    made.stdout
}

/// What GNU tar lists of an archive: type, owner and name of each member.
fn listed(archive: &[u8]) -> Vec<String> {
    let mut tar = Command::new("tar")
        .args(["-tvf", "-", "--quoting-style=escape"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    tar.stdin.take().unwrap().write_all(archive).unwrap();
    let output = tar.wait_with_output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let line = |words: Vec<String>| format!("{} {} {}", words[0], words[1], words[5..].join(" "));
    text.lines().map(|text| line(words(text))).collect()
}

fn stream_in(plot: &Plot, user: &str, path: &str, archive: &[u8]) -> Result<(), String> {
    let begun = plot.garden().stream_in("box", user, path);
    let Unpacking { archive: mut feed, helper } = begun.map_err(|error| error.to_string())?;
    let done = plot.runtime.block_on(async move {
        // A helper that reads no more says why.
        let _ = feed.write_all(archive).await;
        drop(feed);
        helper.ended().await
    });
    done.map_err(|error| error.to_string())
}

fn stream_out(plot: &Plot, user: &str, path: &str) -> Result<Vec<u8>, String> {
    let begun = plot.garden().stream_out("box", user, path);
    let mut packing = begun.map_err(|error| error.to_string())?;
    let mut archive = Vec::new();
    let packed = plot.runtime.block_on(async {
        while let Some(piece) = packing.next().await? {
            archive.extend_from_slice(&piece);
        }
        Ok(())
    });
    packed.map_err(|error: bloomery_garden::Error| error.to_string()).map(|()| archive)
}

fn told(plot: &Plot, script: &str) -> String {
    let outcome = plot.sh("box", script);
    assert_eq!((outcome.exit, outcome.error.as_str()), (Exit::Status(0), ""), "{script}");
    outcome.output
}

#[test]
fn archives_come_in_as_the_user_who_was_named() {
    let plot = plot();
    plot.create("box");
    let simple = archive(
        "mkdir d; echo one > d/one; chmod 4777 d/one; chown 7:8 d/one; ln -s one d/link;
         ln d/one two; mkfifo pipe; touch -d @1000000000 d/one",
        &[],
    );
    stream_in(&plot, "", "/data/new", &simple).unwrap();
    let look = "stat -c '%A %u %g %n' /data /data/new /data/new/d /data/new/d/*; \
                stat -c %Y /data/new/d/one; cat /data/new/two";
    assert_eq!(
        told(&plot, look),
        "drwxr-xr-x 0 0 /data\ndrwxr-xr-x 0 0 /data/new\ndrwxr-xr-x 0 0 /data/new/d\n\
         lrwxrwxrwx 0 0 /data/new/d/link\n-rwxr-xr-x 0 0 /data/new/d/one\n1000000000\none\n"
    );
    // A relative path begins at the user's home.
    stream_in(&plot, "vcap", "rel/deep", &simple).unwrap();
    let look = "cd /home/vcap; stat -c '%A %u %g %n' rel rel/deep rel/deep/d/one rel/deep/pipe";
    assert_eq!(
        told(&plot, look),
        "drwxr-xr-x 2000 2000 rel\ndrwxr-xr-x 2000 2000 rel/deep\n\
         -rwxr-xr-x 2000 2000 rel/deep/d/one\nprw-r--r-- 2000 2000 rel/deep/pipe\n"
    );
    // Directories that are there stay whose and as they are.
    stream_in(&plot, "vcap", "/tmp", &simple).unwrap();
    assert_eq!(told(&plot, "stat -c '%a %u' /tmp; cat /tmp/d/one"), "1777 0\none\n");
    stream_in(&plot, "root", "/", &archive("mkdir srv; echo x > srv/x", &[])).unwrap();
    assert_eq!(told(&plot, "cat /srv/x"), "x\n");
}

#[test]
fn what_a_client_or_the_container_gets_wrong_is_an_error() {
    let plot = plot();
    plot.create("box");
    let simple = archive("echo hello > hello.txt", &["--format=ustar"]);
    let refused = |user: &str, path: &str, archive: &[u8], words: &str| {
        let said = stream_in(&plot, user, path, archive).unwrap_err();
        assert!(said.starts_with("error streaming in: exit status 1. Output: "), "{said}");
        assert!(said.contains(words), "{said}");
    };
    refused("nobodyhere", "/tmp", &simple, "getpwnam: Success");
    refused("2000", "/tmp", &simple, "getpwnam: Success");
    refused("root", "/etc/passwd/x", &simple, "mkdir_p_as 0 0: Not a directory");
    refused("root", "", &simple, "mkdir_p_as 0 0: No such file or directory");
    refused("vcap", "/etc", &simple, "Permission denied");
    refused("root", "/tmp", b"", "This does not look like a tar archive");
    refused("root", "/tmp", b"this is no tar at all", "This does not look like a tar archive");
    refused("root", "/tmp", &simple[..1100], "Unexpected EOF in archive");
    let devices = archive("mknod null c 1 3", &[]);
    refused("vcap", "/tmp", &devices, "Cannot mknod");
    refused("root", "/tmp", &devices, "Cannot mknod");
    // Links that the container's tenant has laid do not lead out of the destination.
    told(&plot, "mkdir /trap; ln -s /etc /trap/way; ln -s ../etc /trap/other");
    for way in ["way", "other"] {
        let through = archive(
            &format!("mkdir {way}; echo x > {way}/new"),
            &["--exclude", &format!("./{way}/"), "--no-recursion", &format!("{way}/new")],
        );
        refused("root", "/trap", &through, "leads out of the destination");
    }
    assert_eq!(told(&plot, "ls /etc"), "group\nhosts\npasswd\nresolv.conf\n");
}

#[test]
fn members_that_fail_do_not_keep_the_others_back() {
    let plot = plot();
    plot.create("box");
    told(&plot, "mkdir -p /data/hers; echo old > /data/b; chmod 777 /data; chmod 644 /data/b");
    let some = archive(
        "mkdir hers; echo x > hers/x; mknod c c 1 3; for f in a d e; do echo $f > $f; done",
        &["--sort=name"],
    );
    let said = stream_in(&plot, "vcap", "/data", &some).unwrap_err();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    assert!(lines[0].starts_with("error streaming in: exit status 1. Output: "), "{said}");
    assert!(lines[0].ends_with("c: Cannot mknod: devices are refused"), "{said}");
    assert!(lines[1].contains("hers/x: cannot open it: Permission denied"), "{said}");
    assert_eq!(lines[2], "Exiting with failure status due to previous errors");
    assert_eq!(told(&plot, "cd /data; cat a d e; ls; ls hers"), "a\nd\ne\na\nb\nd\ne\nhers\n");
    // Many failures are counted, and an archive that breaks off is one more.
    let many =
        archive("for i in $(seq 30); do mknod n$i c 1 3; done; echo z > z", &["--sort=name"]);
    let said = stream_in(&plot, "root", "/many", &many).unwrap_err();
    assert_eq!(said.matches("Cannot mknod").count(), 11, "{said}");
    assert!(said.contains("\nand 19 more\n"), "{said}");
    assert_eq!(told(&plot, "ls /many"), "z\n");
    let cut = archive("mknod a c 1 3; head -c 5000 /dev/zero > b", &["--sort=name"]);
    let said = stream_in(&plot, "root", "/cut", &cut[..2048]).unwrap_err();
    assert!(said.contains("a: Cannot mknod") && said.contains("\nUnexpected EOF"), "{said}");
}

#[test]
fn archives_go_out_as_gnu_tar_would_write_them() {
    let plot = plot();
    plot.create("box");
    told(
        &plot,
        "mkdir -p /data/d; cd /data/d; echo 1 > one; echo 22 > two; ln two twin; ln -s one link; \
         chown vcap:vcap one; chmod 600 two; mkfifo pipe",
    );
    let inside = |prefix: &str| {
        [
            "drwxr-xr-x root/root ",
            "lrwxrwxrwx root/root link -> one",
            "-rw-r--r-- vcap/vcap one",
            "prw-r--r-- root/root pipe",
            "-rw------- root/root twin",
            "hrw------- root/root two link to twin",
        ]
        .map(|line| {
            let (start, name) = line.split_at(21);
            format!("{start}{prefix}{}", name.replace(" to ", &format!(" to {prefix}")))
        })
    };
    let whole = stream_out(&plot, "", "/data/d").unwrap();
    assert_eq!(whole.len() % 10240, 0);
    assert_eq!(listed(&whole), inside("d/"));
    assert!(String::from_utf8_lossy(&whole).contains(" mtime="), "no pax times");
    assert_eq!(listed(&stream_out(&plot, "root", "/data/d/").unwrap()), inside("./"));
    let file = stream_out(&plot, "vcap", "/data/d/one").unwrap();
    assert_eq!(listed(&file), ["-rw-r--r-- vcap/vcap one"]);
    assert_eq!(
        listed(&stream_out(&plot, "root", "/data/d/link").unwrap()),
        ["lrwxrwxrwx root/root link -> one"]
    );
    let home = listed(&stream_out(&plot, "vcap", "").unwrap());
    assert_eq!(home, ["drwxr-xr-x vcap/vcap ./", "drwxr-xr-x vcap/vcap ./app/"]);
    told(&plot, "mkdir /copy");
    stream_in(&plot, "root", "/copy", &whole).unwrap();
    assert_eq!(told(&plot, "cat /copy/d/one /copy/d/twin; readlink /copy/d/link"), "1\n22\none\n");
}

#[test]
fn what_cannot_be_packed_is_an_error_and_nothing_is_made() {
    let plot = plot();
    plot.create("box");
    told(&plot, "mkdir -p /data/d; echo 1 > /data/d/a; echo 2 > /data/d/b; chmod 600 /data/d/b");
    for (user, path, words) in [
        ("root", "/etc/nope", "No such file"),
        ("root", "/no/such/dir/", "No such file"),
        ("root", "/etc/passwd/", "Not a directory"),
        ("vcap", "/data/d/b", "Permission denied"),
        ("nobodyhere", "/etc/passwd", "getpwnam: Success"),
        ("2000", "/etc/passwd", "getpwnam: Success"),
    ] {
        let said = stream_out(&plot, user, path).unwrap_err();
        assert!(said.contains("error streaming out: exit status 1. Output: "), "{said}");
        assert!(said.contains(words), "{path}: {said}");
    }
    // In the middle of an archive it is too late for a status; the archive must not end well.
    let said = stream_out(&plot, "vcap", "/data/d").unwrap_err();
    assert!(said.contains("d/b: cannot open it"), "{said}");
    assert_eq!(told(&plot, "ls -d /no 2>&1 || true"), "ls: /no: No such file or directory\n");
}

#[test]
fn a_stopped_container_still_streams_a_lot() {
    let plot = plot();
    plot.create("box");
    let large = archive("dd if=/dev/urandom of=large bs=1M count=40 2>/dev/null", &[]);
    plot.garden().stop("box", true).unwrap();
    stream_in(&plot, "vcap", ".", &large).unwrap();
    let out = stream_out(&plot, "vcap", "large").unwrap();
    let content = |archive: &[u8]| {
        let mut archive = tar::Archive::new(archive);
        for member in archive.entries().unwrap() {
            let mut member = member.unwrap();
            if member.path_bytes().ends_with(b"large") {
                let mut bytes = Vec::new();
                member.read_to_end(&mut bytes).unwrap();
                return bytes;
            }
        }
        panic!("large is missing");
    };
    assert!(content(&out) == content(&large));
    // A reader that goes away ends the packer.
    let before = Traces::settled(&plot.config, 1, 0);
    let mut packing = plot.garden().stream_out("box", "vcap", "large").unwrap();
    plot.runtime.block_on(packing.next()).unwrap().unwrap();
    drop(packing);
    plot.expect(&before);
}

/// Begins to send an archive into the container, and stops.
fn begin_stream_in(plot: &Plot, user: &str) -> plot::serving::Peer {
    let mut peer = plot.connect();
    peer.send(&format!(
        "PUT /containers/box/files?user={user}&destination=/in HTTP/1.1\r\nHost: api\r\n\
         Transfer-Encoding: chunked\r\n\r\n"
    ));
    let simple = archive("echo hello > hello.txt", &["--format=ustar"]);
    peer.send(&format!("200\r\n{}\r\n", str::from_utf8(&simple[..0x200]).unwrap()));
    peer
}

#[test]
fn clients_that_stop_in_an_archive_hold_nothing_for_long() {
    let mut plot = plot();
    plot.serve_as(Settings {
        body_patience: Duration::from_millis(500),
        connections: 2,
        ..Settings::default()
    });
    plot.create("box");
    // More than sockets and pipes hold on the way.
    told(&plot, "dd if=/dev/zero of=/large bs=1M count=8 2>/dev/null");
    let before = Traces::settled(&plot.config, 1, 0);
    let serves = || assert_eq!(plot.ask("GET", "/ping", ""), (200, "{}\n".into()));

    let senders = [(); 2].map(|()| begin_stream_in(&plot, "root"));
    // There is no third place before one of the two is given up.
    serves();
    for mut peer in senders {
        let (status, said) = peer.response();
        assert_eq!(status, 500);
        let words = "error streaming in: the archive ends early: 131072 bytes took the client more";
        assert!(said.contains(words), "{said}");
        assert_eq!(peer.rest(), "");
    }
    plot.expect(&before);

    let receivers = [(); 2].map(|()| {
        let mut peer = plot.connect();
        peer.request("GET", "/containers/box/files?user=root&source=/large", "");
        peer
    });
    serves();
    // Both are given up before anybody reads on.
    plot.expect(&before);
    for mut peer in receivers {
        let got = peer.rest();
        assert!(got.starts_with("HTTP/1.1 200 OK\r\n"), "{got:.100}");
        assert!(got.len() < 8 << 20 && !got.ends_with("\r\n0\r\n\r\n"), "{} bytes", got.len());
    }

    // Nobody keeps the container from being unused.
    plot.garden().set_grace_time("box", Duration::from_millis(1)).unwrap();
    wait_until("the grace time is over", || {
        plot.garden().reap_unused();
        plot.garden().list(&Default::default()).is_empty()
    });
}

#[test]
fn a_client_that_stops_in_an_archive_hears_what_became_of_it_meanwhile() {
    let mut plot = plot();
    plot.serve();
    plot.create("box");
    let (status, said) = begin_stream_in(&plot, "nobodyhere").response();
    assert_eq!(status, 500);
    assert!(said.contains("getpwnam: Success"), "{said}");
    let before = Traces::settled(&plot.config, 1, 0);
    let mut peer = begin_stream_in(&plot, "root");
    wait_until("the unpacker runs", || plot.traces().processes > before.processes);
    plot.garden().destroy("box").unwrap();
    let (status, said) = peer.response();
    assert_eq!(status, 500);
    assert!(said.contains("error streaming in: exit status 137"), "{said}");
}

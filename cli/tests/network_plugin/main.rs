//! A network plugin, a shell script, and what becomes of containers with it: connected, refused,
//! destroyed, and taken over by the next daemon.

#[path = "../site/mod.rs"]
mod site;

use std::fs;
use std::io::Read;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bloomery_garden::client::{Client, Error, ProcessIo};
use bloomery_garden::config::PluginConfig;
use bloomery_garden::fault;
use garden_api::{ContainerSpec, NetIn, NetOutRule, PortMapping, Properties};
use site::traces::{Traces, processes};
use site::{PATIENCE, Site, named, sh};
use tokio::io::AsyncReadExt;

const PLUGIN: &str = include_str!("plugin.sh");
/// Longer than the plugin takes, however busy the machine is.
const PLUGIN_PATIENCE: Duration = Duration::from_secs(30);

/// A daemon with the plugin.
struct Stage {
    site: Site,
    client: Client,
}

impl Stage {
    /// Up to 16 of these may be in one process at a time.
    fn new(number: u32, patience: Duration) -> Self {
        let mut site = Site::apart(number, &["--external-ip", "192.0.2.1"]);
        let state = site.place("plugin-state");
        fs::create_dir(&state).unwrap();
        let program = site.place("plugin");
        fs::write(&program, PLUGIN).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let state = state.to_str().unwrap().to_owned();
        for flag in [
            format!("--network-plugin={}", program.display()),
            format!("--network-plugin-extra-arg={state}"),
            format!("--network-plugin-timeout={}ms", patience.as_millis()),
        ] {
            site.add_flag(&flag);
        }
        let patience = PLUGIN_PATIENCE;
        site.config.network_plugin =
            Some(PluginConfig { program, arguments: vec![state], patience });
        let client = site.client();
        Self { site, client }
    }

    async fn serving(number: u32) -> Self {
        Self::serving_within(number, PLUGIN_PATIENCE).await
    }

    async fn serving_within(number: u32, patience: Duration) -> Self {
        let mut stage = Self::new(number, patience);
        stage.site.start(None);
        stage.site.wait_up().await;
        stage
    }

    async fn restart(&mut self) {
        self.site.kill();
        self.site.start(None);
        self.site.wait_up().await;
    }

    fn state(&self, name: &str) -> PathBuf {
        self.site.place("plugin-state").join(name)
    }

    fn noted(&self, name: &str) -> String {
        fs::read_to_string(self.state(name)).unwrap_or_default()
    }

    /// What it was asked since the last look, as `action handle input`.
    fn calls(&self) -> Vec<String> {
        let calls = self.noted("calls").lines().map(str::to_owned).collect();
        let _ = fs::remove_file(self.state("calls"));
        calls
    }

    fn is_up(&self, handle: &str) -> bool {
        self.state(&format!("up-{handle}")).exists()
    }

    /// Links of the host, but its loopback.
    fn links(&self) -> String {
        let links = self.site.host.as_ref().unwrap().run("ip -o link");
        links.lines().filter(|line| !line.contains(": lo:")).collect()
    }

    /// All that plugins do at this moment: their cgroups, and pids in these.
    fn runs(&self) -> Vec<String> {
        let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
        let places = roots.map(|root| format!("{root}/bloomery-{}/plugins", self.site.config.tag));
        let runs =
            places.iter().flat_map(|place| fs::read_dir(place).into_iter().flatten().flatten());
        let runs = runs.map(|entry| entry.path()).filter(|path| path.is_dir());
        let pids =
            |path: PathBuf| fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
        runs.map(pids).collect()
    }

    async fn output(&self, handle: &str, script: &str) -> String {
        let outputs = ProcessIo::outputs();
        let process = self.client.run(handle, &sh(script), outputs).await.unwrap();
        let mut text = String::new();
        process.take_stdout().unwrap().read_to_string(&mut text).await.unwrap();
        process.wait().await.unwrap();
        text
    }

    /// What a server says at the container's address, as soon as it listens.
    async fn hear(&self, address: &str) -> String {
        let address: Ipv4Addr = address.parse().unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(mut stream) = self.site.host.as_ref().unwrap().connect(address, 8080) {
                let mut heard = String::new();
                stream.read_to_string(&mut heard).unwrap();
                return heard;
            }
            assert!(Instant::now() < deadline, "the container listens");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn all(&self) -> Vec<String> {
        self.client.list(&Properties::from([("garden.state".into(), "all".into())])).await.unwrap()
    }

    async fn refused(&self, handle: &str) -> String {
        said(self.client.create(&named(handle)).await.unwrap_err())
    }
}

/// The server's own words.
fn said(error: Error) -> String {
    match error {
        Error::Plain(message) => message,
        error => panic!("{error}"),
    }
}

fn rule(address: &str) -> NetOutRule {
    let text =
        format!(r#"{{"protocol":1,"networks":[{{"start":"{address}","end":"{address}"}}]}}"#);
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn a_plugin_connects_a_container_and_is_told_of_all_changes() {
    let mut stage = Stage::serving(0).await;
    let properties = [
        ("network.app_id", "app-1"),
        ("network.ports", "8080,2222"),
        ("log_config", "{\"guid\":\"<app>\"}"),
        ("executor:owner", "nobody's business"),
    ];
    let spec = ContainerSpec {
        properties: properties.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        net_in: vec![NetIn { host_port: 0, container_port: 8080 }],
        net_out: vec![rule("8.8.8.8")],
        ..named("a")
    };
    stage.client.create(&spec).await.unwrap();

    let calls = stage.calls();
    let pid: i32 =
        calls[0].split("\"Pid\":").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
    assert_eq!(
        calls,
        [format!(
            "up a {{\"Pid\":{pid},\"Properties\":{{\"app_id\":\"app-1\",\"log_config\":\
             \"{{\\\"guid\\\":\\\"\\u003capp\\u003e\\\"}}\",\"ports\":\"8080,2222\"}},\
             \"netout_rules\":[{{\"protocol\":1,\"networks\":[{{\"start\":\"8.8.8.8\",\"end\":\"8.8.8.8\"}}]}}],\
             \"netin\":[{{\"host_port\":0,\"container_port\":8080}}]}}"
        )]
    );
    let state = stage.state("");
    let state = state.to_str().unwrap().trim_end_matches('/');
    assert_eq!(stage.noted("arguments"), format!("{state} --action up --handle a\n"));
    assert_eq!(
        stage.noted("descriptors").split_whitespace().collect::<Vec<_>>(),
        ["0", "1", "2", "3"]
    );
    let environment = stage.noted("environment");
    assert!(environment.contains("PATH=") && !environment.contains("BLOOMERY_"), "{environment}");
    // Nothing of ours was there before.
    assert_eq!(stage.noted("links-before-a"), "lo:");
    assert_eq!(
        stage.output("a", "ls /sys/class/net").await.split_whitespace().collect::<Vec<_>>(),
        ["eth0", "lo"]
    );

    for life in 0..2 {
        let info = stage.client.info("a").await.unwrap();
        let own = info.container_ip.clone();
        assert!(own.starts_with("10.99.") && own.ends_with(".2"), "{own}");
        assert_eq!(
            (info.host_ip.as_str(), info.external_ip.as_str()),
            ("255.255.255.255", "192.0.2.1")
        );
        assert_eq!(info.properties["garden.network.interface"], "eth0");
        assert_eq!(info.properties["a.plugins"], "own");
        let mut mapped = vec![PortMapping { host_port: 7001, container_port: 8080 }];
        mapped.extend((life > 0).then_some(PortMapping { host_port: 7002, container_port: 8081 }));
        assert_eq!(info.mapped_ports, Some(mapped));
        let names = stage.output("a", "cat /etc/hosts /etc/resolv.conf").await;
        assert_eq!(
            names,
            format!("127.0.0.1 localhost\n{own} a\nnameserver 169.254.0.2\nsearch apps.internal\n")
        );
        drop(
            stage
                .client
                .run("a", &sh("nc -l -p 8080 -e echo hello"), ProcessIo::default())
                .await
                .unwrap(),
        );
        assert_eq!(stage.hear(&own).await, "hello\n");

        assert_eq!(stage.calls(), [""; 0]);
        let ports = stage.client.net_in("a", 0, 8081).await.unwrap();
        assert_eq!((ports.host_port, ports.container_port), (7002, 8081));
        stage.client.net_out("a", &rule("1.1.1.1")).await.unwrap();
        stage.client.bulk_net_out("a", &[rule("1.1.1.1")]).await.unwrap();
        let one = "{\"protocol\":1,\"networks\":[{\"start\":\"1.1.1.1\",\"end\":\"1.1.1.1\"}]}";
        assert_eq!(
            stage.calls(),
            [
                format!(
                    "net-in a {{\"HostIP\":\"192.0.2.1\",\"HostPort\":0,\"ContainerIP\":\"{own}\",\
                     \"ContainerPort\":8081}}"
                ),
                format!("net-out a {{\"container_ip\":\"{own}\",\"netout_rule\":{one}}}"),
                format!("bulk-net-out a {{\"container_ip\":\"{own}\",\"netout_rules\":[{one}]}}"),
            ]
        );
        if life == 0 {
            stage.restart().await;
        }
    }
    assert_eq!(stage.client.capacity().await.unwrap().max_containers, u64::MAX);
    stage.client.destroy("a").await.unwrap();
    assert_eq!(stage.calls(), ["down a null"]);
    assert!(!stage.is_up("a"));
    assert_eq!(stage.links(), "");
}

#[tokio::test]
async fn a_plugin_that_fails_leaves_nothing_and_says_why() {
    let stage = Stage::serving_within(1, Duration::from_secs(2)).await;
    let before = Traces::settled(&stage.site.config, 0, 0);
    let failing = "external networker encountered an error running 'up' action: ";
    let strange = "unmarshaling result from external networker: ";
    // What it does when it is asked, what the client hears, what the log says.
    for (file, misbehaviour, why, log) in [
        (
            "before-up",
            "echo it is broken >&2; exit 3",
            format!("{failing}exit status 3"),
            "plugin=it is broken",
        ),
        ("amid-up", "kill -9 $$", format!("{failing}signal: killed"), "signal: killed"),
        ("amid-up", "kill -TERM $$", format!("{failing}signal: terminated"), "signal: terminated"),
        (
            "amid-up",
            "setsid sleep 1000 & sleep 1000",
            format!("{failing}killed, since it has not ended in 2s"),
            "has not ended in 2s",
        ),
        (
            "amid-up",
            "exec cat /dev/zero",
            format!("{failing}killed, since it has printed more than 4194304 bytes"),
            "has printed more than",
        ),
        (
            "amid-up",
            "exec 1>&2; exec yes flood",
            format!("{failing}killed, since it has not ended in 2s"),
            "has written too much for the log",
        ),
        (
            "answer",
            "no JSON",
            format!("{strange}invalid character 'o' in literal null (expecting 'u')"),
            "",
        ),
        ("answer", "{\"properties\":", format!("{strange}unexpected end of JSON input"), ""),
        (
            "answer",
            "{\"properties\":{\"garden.network.container-ip\":\"here\"}}",
            "the external networker answered \"here\", which is no IP address".into(),
            "",
        ),
    ] {
        fs::write(stage.state(file), misbehaviour).unwrap();
        assert_eq!(stage.refused("a").await, why, "{misbehaviour}\n{}", stage.site.log());
        fs::remove_file(stage.state(file)).unwrap();
        assert!(stage.all().await.is_empty(), "{misbehaviour}");
        assert_eq!(stage.calls().last().unwrap(), "down a null", "{misbehaviour}");
        assert!(!stage.is_up("a"), "{misbehaviour}");
        assert_eq!(stage.links(), "", "{misbehaviour}");
        assert_eq!(stage.runs(), [""; 0], "{misbehaviour}");
        assert!(stage.site.log().contains(log), "{misbehaviour}: {log}\n{}", stage.site.log());
    }
    before.expect_again(&stage.site.config);
    // What it leaves running goes with it, and does not hold anybody up.
    fs::write(stage.state("amid-up"), "setsid sh -c 'sleep 1000' left-behind &").unwrap();
    stage.client.create(&named("a")).await.unwrap();
    let left = |pid: &i32| {
        fs::read_to_string(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.contains("left-behind"))
    };
    assert_eq!(processes().map(|(pid, _)| pid).filter(left).count(), 0);
    // A silent one has connected it, for all that anybody knows.
    fs::write(stage.state("answer"), "").unwrap();
    stage.client.create(&named("b")).await.unwrap();
    let info = stage.client.info("b").await.unwrap();
    assert_eq!((info.container_ip.as_str(), info.mapped_ports), ("", Some(Vec::new())));
    assert_eq!(
        said(stage.client.net_in("b", 0, 1).await.unwrap_err()),
        "cannot find container [b]\n"
    );
    for handle in ["a", "b"] {
        stage.client.destroy(handle).await.unwrap();
    }
    before.expect_again(&stage.site.config);
}

#[tokio::test]
async fn a_container_is_there_until_its_network_is_down() {
    let mut stage = Stage::serving(2).await;
    let before = Traces::settled(&stage.site.config, 0, 0);
    stage.client.create(&named("a")).await.unwrap();
    fs::write(stage.state("before-down"), "exit 4").unwrap();
    let refused = "external networker encountered an error running 'down' action: exit status 4";
    assert_eq!(said(stage.client.destroy("a").await.unwrap_err()), refused);
    assert_eq!(stage.all().await, ["a"]);
    // Nor does a restart make it forget.
    stage.restart().await;
    assert_eq!(stage.all().await, ["a"]);
    assert_eq!(said(stage.client.destroy("a").await.unwrap_err()), refused);
    assert!(stage.is_up("a"));
    fs::remove_file(stage.state("before-down")).unwrap();
    stage.calls();
    stage.client.destroy("a").await.unwrap();
    assert_eq!(stage.calls(), ["down a null"]);
    assert!(!stage.is_up("a") && stage.all().await.is_empty());
    before.expect_again(&stage.site.config);
}

#[tokio::test]
async fn a_daemon_killed_at_any_step_has_the_network_taken_down() {
    let mut stage = Stage::serving(3).await;
    stage.client.create(&named("steady")).await.unwrap();
    let before = Traces::settled(&stage.site.config, 1, 0);
    stage.site.kill();
    let around =
        ["create/record-written", "create/limited", "create/networked", "create/committed"];
    let destroying = ["destroy/killed", "destroy/network-removed"];
    let plugins = fault::PLUGIN_STEPS
        .into_iter()
        .filter(|step| step.starts_with("plugin/up") || step.starts_with("plugin/down"));
    for step in around.into_iter().chain(destroying).chain(plugins) {
        // It must be running when the daemon dies.
        let action = step.strip_prefix("plugin/").and_then(|step| step.strip_suffix("-started"));
        let slow = action.map(|action| format!("before-{action}"));
        if let Some(slow) = &slow {
            fs::write(stage.state(slow), "sleep 1000").unwrap();
        }
        stage.site.start(Some(step));
        stage.site.wait_up().await;
        let created = stage.client.create(&named("cycle")).await;
        if created.is_ok() {
            stage.client.destroy("cycle").await.unwrap_err();
        }
        stage.site.expect_death(step);
        let running = stage.runs().iter().any(|pids| !pids.is_empty());
        assert_eq!(running, slow.is_some(), "{step}");
        if let Some(slow) = &slow {
            fs::remove_file(stage.state(slow)).unwrap();
        }
        stage.site.start(None);
        stage.site.wait_up().await;
        assert_eq!(stage.runs(), [""; 0], "{step}");
        if stage.all().await.contains(&"cycle".to_owned()) {
            panic!("{step}: nothing of it was acknowledged, or its destroy was under way");
        }
        assert!(!stage.is_up("cycle"), "{step}");
        assert!(stage.is_up("steady"), "{step}");
        before.expect_again(&stage.site.config);
        stage.site.kill();
    }
    stage.site.start(None);
    stage.site.wait_up().await;
    assert!(stage.links().contains(": v"), "the steady one has its link");
    stage.client.destroy("steady").await.unwrap();
    assert_eq!(stage.links(), "");
}

#[tokio::test]
async fn containers_keep_to_the_network_that_they_have() {
    let mut stage = Stage::serving(4).await;
    stage.client.create(&named("a")).await.unwrap();
    stage.site.kill();
    let flags = stage.site.take_flags();
    stage.site.start(None);
    assert!(!stage.site.ended().success());
    assert!(
        stage.site.log().contains("container a has its network from a network plugin"),
        "{}",
        stage.site.log()
    );
    stage.site.set_flags(flags.clone());
    stage.site.start(None);
    stage.site.wait_up().await;
    assert!(stage.is_up("a"));
    stage.client.destroy("a").await.unwrap();
    stage.site.kill();

    stage.site.take_flags();
    stage.site.start(None);
    stage.site.wait_up().await;
    stage.client.create(&named("b")).await.unwrap();
    stage.site.kill();
    stage.site.set_flags(flags);
    stage.site.start(None);
    assert!(!stage.site.ended().success());
    assert!(
        stage.site.log().contains("container b has the built-in network"),
        "{}",
        stage.site.log()
    );
    stage.site.take_flags();
    stage.site.config.network_plugin = None;
}

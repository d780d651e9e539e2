//! Image plugins, a shell script for each kind of container, and what becomes of containers with
//! them: made, refused, measured, destroyed, and taken over by the next daemon.

#[path = "../site/mod.rs"]
mod site;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::time::Duration;

use bloomery_garden::client::{Client, Error, ProcessIo};
use bloomery_garden::config::PluginConfig;
use bloomery_garden::fault;
use garden_api::{ContainerSpec, DiskLimitScope, DiskLimits, ImageRef, Limits, Properties};
use site::traces::Traces;
use site::{Site, sh};
use tokio::io::AsyncReadExt;

const PLUGIN: &str = include_str!("plugin.sh");
/// The host's id of a container's root.
const MAPPED_ROOT: u32 = 4_294_967_294;

/// A daemon with plugins.
struct Stage {
    site: Site,
    client: Client,
}

impl Stage {
    /// Up to 16 of these may be in one process at a time.
    async fn serving(number: u32, kinds: &[&str], patience: Duration) -> Self {
        let mut site = Site::apart(number, &["--external-ip", "192.0.2.1"]);
        let state = site.place("plugin-state");
        fs::create_dir(&state).unwrap();
        fs::create_dir(state.join("images")).unwrap();
        fs::create_dir(state.join("shown")).unwrap();
        fs::write(state.join("shown/file"), "of the host").unwrap();
        std::os::unix::fs::symlink(site.place("image"), state.join("source")).unwrap();
        let program = site.place("plugin");
        fs::write(&program, PLUGIN).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let state = state.to_str().unwrap().to_owned();
        site.add_flag(&format!("--image-plugin-timeout={}ms", patience.as_millis()));
        for &kind in kinds {
            let flag =
                if kind == "privileged" { "privileged-image-plugin" } else { "image-plugin" };
            site.add_flag(&format!("--{flag}={}", program.display()));
            site.add_flag(&format!("--{flag}-extra-arg={state}"));
            site.add_flag(&format!("--{flag}-extra-arg={kind}"));
            let arguments = vec![state.clone(), kind.to_owned()];
            let plugin = PluginConfig { program: program.clone(), arguments, patience };
            match kind {
                "privileged" => site.config.privileged_image_plugin = Some(plugin),
                _ => site.config.image_plugin = Some(plugin),
            }
        }
        let client = site.client();
        let mut stage = Self { site, client };
        stage.site.start(None);
        stage.site.wait_up().await;
        stage
    }

    fn state(&self, name: &str) -> PathBuf {
        self.site.place("plugin-state").join(name)
    }

    /// What they were asked since the last look, as `kind: arguments`.
    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.state("calls")).unwrap_or_default();
        let _ = fs::remove_file(self.state("calls"));
        calls.lines().map(str::to_owned).collect()
    }

    fn images(&self) -> Vec<String> {
        let entries = fs::read_dir(self.state("images")).unwrap().flatten();
        entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
    }

    async fn output(&self, handle: &str, script: &str) -> String {
        let process = self.client.run(handle, &sh(script), ProcessIo::outputs()).await.unwrap();
        let mut text = String::new();
        process.take_stdout().unwrap().read_to_string(&mut text).await.unwrap();
        process.wait().await.unwrap();
        text
    }

    async fn all(&self) -> Vec<String> {
        self.client.list(&Properties::from([("garden.state".into(), "all".into())])).await.unwrap()
    }

    async fn refused(&self, spec: &ContainerSpec) -> String {
        said(self.client.create(spec).await.unwrap_err())
    }
}

fn of_image(handle: &str, uri: &str) -> ContainerSpec {
    let image = ImageRef { uri: uri.into(), ..ImageRef::default() };
    ContainerSpec { handle: handle.into(), image, ..ContainerSpec::default() }
}

/// The server's own words.
fn said(error: Error) -> String {
    match error {
        Error::Plain(message) => message,
        error => panic!("{error}"),
    }
}

const BOTH: [&str; 2] = ["unprivileged", "privileged"];
/// Longer than a plugin takes, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn plugins_make_measure_and_delete_what_containers_stand_on() {
    let mut stage = Stage::serving(0, &BOTH, PATIENCE).await;
    let disk = DiskLimits { byte_hard: 5000, ..DiskLimits::default() };
    let spec = ContainerSpec {
        limits: Limits { disk, ..Limits::default() },
        image: ImageRef {
            uri: "docker:///some/image#tag#more".into(),
            username: "me".into(),
            password: "let-me-in".into(),
        },
        ..of_image("a", "")
    };
    stage.client.create(&spec).await.unwrap();
    let record = fs::read_to_string(stage.site.config.depot.join("a/container.json")).unwrap();
    assert!(record.contains("\"me\"") && !record.contains("let-me-in"), "{record}");
    let mut exclusive = of_image("b", "");
    exclusive.privileged = true;
    exclusive.limits.disk = DiskLimits { scope: DiskLimitScope::Exclusive, ..disk };
    stage.client.create(&exclusive).await.unwrap();
    let default = stage.site.place("image");
    assert_eq!(
        stage.calls(),
        [
            "unprivileged: create --disk-limit-size-bytes 5000 --username me --password let-me-in \
             docker:///some/image:tag#more a"
                .to_owned(),
            format!(
                "privileged: create --disk-limit-size-bytes 5000 --exclude-image-from-quota {} b",
                default.display()
            ),
        ]
    );
    let descriptors = fs::read_to_string(stage.state("descriptors")).unwrap();
    assert_eq!(descriptors.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);

    for (handle, kind, owner) in [("a", "unprivileged", MAPPED_ROOT), ("b", "privileged", 0)] {
        let told = "echo $OF; cat /of/host/file; echo; echo x > /of/host/new || echo no; \
                    stat -c %a /of/memory; echo mine > /written; id -u";
        let heard = stage.output(handle, told).await;
        assert_eq!(heard, "image\nof the host\nno\n700\n0\n", "{handle}");
        let written = stage.state("images").join(format!("{kind}-{handle}")).join("written");
        assert_eq!(fs::read_to_string(&written).unwrap(), "mine\n");
        assert_eq!(fs::metadata(&written).unwrap().uid(), owner);
    }
    // So it is in the next life.
    stage.site.kill();
    stage.site.start(None);
    stage.site.wait_up().await;
    assert_eq!(stage.output("a", "cat /written").await, "mine\n");
    assert_eq!(stage.calls(), [""; 0]);
    let used = stage.client.metrics("a").await.unwrap().disk;
    assert_eq!((used.total_bytes_used, used.exclusive_bytes_used), (7000, 300));
    stage.client.metrics("b").await.unwrap();
    assert_eq!(stage.client.capacity().await.unwrap().schedulable_disk_in_bytes, 123_456_789);
    assert_eq!(
        stage.calls(),
        ["unprivileged: stats a", "privileged: stats b", "unprivileged: capacity"]
    );
    let limits = stage.client.requested_disk_limits("a").await.unwrap();
    assert_eq!((limits.requested, limits.enforced), (Some(disk), true));

    stage.client.destroy("a").await.unwrap();
    assert_eq!(stage.calls(), ["unprivileged: delete a", "privileged: delete a"]);
    stage.client.destroy("b").await.unwrap();
    assert_eq!(stage.images(), [""; 0]);
}

#[tokio::test]
async fn a_raw_directory_is_used_as_it_is() {
    let stage = Stage::serving(1, &BOTH, PATIENCE).await;
    let directory = stage.site.place("image");
    let uri = format!("raw://{}", directory.display());
    for handle in ["a", "b"] {
        let spec = ContainerSpec { privileged: true, ..of_image(handle, &uri) };
        stage.client.create(&spec).await.unwrap();
    }
    stage.output("a", "echo shared > /written").await;
    assert_eq!(stage.output("b", "cat /written").await, "shared\n");
    assert_eq!(fs::read_to_string(directory.join("written")).unwrap(), "shared\n");
    for handle in ["a", "b"] {
        stage.client.metrics(handle).await.unwrap();
        stage.client.destroy(handle).await.unwrap();
    }
    assert_eq!(stage.calls(), [""; 0]);
}

#[tokio::test]
async fn a_base_with_a_layer_is_told_as_a_layout() {
    let stage = Stage::serving(5, &BOTH, PATIENCE).await;
    let base = stage.site.place("base.tar");
    fs::write(&base, "an archive").unwrap();
    let uri = format!(
        "preloaded+layer:{}?layer=http%3A%2F%2Fblobs%2Fdroplet&layer_path=%2Fhome%2Fvcap&layer_digest=1a2b",
        base.display()
    );
    stage.client.create(&of_image("a", &uri)).await.unwrap();
    let directory = stage.site.config.depot.join("a/image");
    assert_eq!(stage.calls(), [format!("unprivileged: create oci://{} a", directory.display())]);
    let index = fs::read_to_string(directory.join("index.json")).unwrap();
    assert!(index.contains("application/vnd.oci.image.manifest.v1+json"), "{index}");
    stage.client.destroy("a").await.unwrap();
    assert!(!stage.site.config.depot.join("a").exists());
}

#[tokio::test]
async fn a_plugin_that_fails_leaves_nothing_and_says_why() {
    let stage = Stage::serving(2, &["unprivileged"], Duration::from_secs(3)).await;
    let before = Traces::settled(&stage.site.config, 0, 0);
    let running = "running image plugin create: ";
    for (file, misbehaviour, why) in [
        ("before-create", "echo no such image; echo why >&2; exit 5", format!("{running}no such image\n: exit status 5")),
        ("before-create", "kill -9 $$", format!("{running}: signal: killed")),
        (
            "before-create",
            "setsid sleep 1000 & sleep 1000",
            format!("{running}: killed, since it has not ended in 3s"),
        ),
        ("answer", "oops", "parsing image plugin create: oops: invalid character 'o' looking for beginning of value".into()),
        ("answer", "{}", "the image plugin answered \"\" as the root of a, which is no absolute path".into()),
        ("answer", "{\"root\":{\"path\":\"/no/such\"}}", "cannot mount the image /no/such: No such file or directory (os error 2)".into()),
        (
            "answer",
            "{\"root\":{\"path\":\"/\"},\"mounts\":[{\"destination\":\"/a\",\"type\":\"overlay\"}]}",
            "the image plugin wants a mount at \"/a\" of type \"overlay\"; only bind and tmpfs are supported".into(),
        ),
    ] {
        fs::write(stage.state(file), misbehaviour).unwrap();
        assert_eq!(stage.refused(&of_image("a", "")).await, why, "{}", stage.site.log());
        fs::remove_file(stage.state(file)).unwrap();
        assert!(stage.all().await.is_empty(), "{misbehaviour}");
        assert_eq!(stage.calls().last().unwrap(), "unprivileged: delete a", "{misbehaviour}");
        assert_eq!(stage.images(), [""; 0], "{misbehaviour}");
    }
    assert!(stage.site.log().contains("plugin=why"), "{}", stage.site.log());
    // What would be taken for an option does not come near it.
    for (handle, uri) in [("a", "--store=/"), ("-a", "")] {
        let why = stage.refused(&of_image(handle, uri)).await;
        assert!(why.contains("neither may begin with '-'"), "{why}");
    }
    let privileged = ContainerSpec { privileged: true, ..of_image("a", "") };
    let none = "creating create command: no privileged_image_plugin provided";
    assert_eq!(stage.refused(&privileged).await, none);

    stage.client.create(&of_image("a", "")).await.unwrap();
    fs::write(stage.state("before-stats"), "echo half; exit 1").unwrap();
    let why = said(stage.client.metrics("a").await.unwrap_err());
    assert_eq!(why, "running image plugin metrics: half\n: exit status 1");
    fs::write(stage.state("before-capacity"), "exit 1").unwrap();
    let capacity = stage.client.capacity().await.unwrap();
    assert_eq!(capacity.schedulable_disk_in_bytes, capacity.disk_in_bytes);
    stage.client.destroy("a").await.unwrap();
    before.expect_again(&stage.site.config);
}

#[tokio::test]
async fn a_container_is_there_until_its_image_is_deleted() {
    let mut stage = Stage::serving(3, &BOTH, PATIENCE).await;
    let before = Traces::settled(&stage.site.config, 0, 0);
    stage.client.create(&of_image("a", "")).await.unwrap();
    fs::write(stage.state("before-delete"), "echo busy; exit 4").unwrap();
    let refused = "running image plugin destroy: busy\n: exit status 4";
    assert_eq!(said(stage.client.destroy("a").await.unwrap_err()), refused);
    let flags = stage.site.take_flags();
    stage.site.kill();
    stage.site.start(None);
    assert!(!stage.site.ended().success());
    let log = stage.site.log();
    assert!(log.contains("container a has its root from an image plugin"), "{log}");
    stage.site.set_flags(flags);
    stage.site.start(None);
    stage.site.wait_up().await;
    assert_eq!(stage.all().await, ["a"]);
    fs::remove_file(stage.state("before-delete")).unwrap();
    stage.client.destroy("a").await.unwrap();
    assert!(stage.all().await.is_empty());
    assert_eq!(stage.images(), [""; 0]);
    before.expect_again(&stage.site.config);
}

#[tokio::test]
async fn a_daemon_killed_at_any_step_has_the_image_deleted() {
    let mut stage = Stage::serving(4, &BOTH, PATIENCE).await;
    stage.client.create(&of_image("steady", "")).await.unwrap();
    let before = Traces::settled(&stage.site.config, 1, 0);
    stage.site.kill();
    let around = ["create/record-written", "create/image-ready", "create/root-built"];
    let destroying = ["destroy/killed", "destroy/network-removed"];
    let plugins = fault::PLUGIN_STEPS
        .into_iter()
        .filter(|step| step.starts_with("plugin/create") || step.starts_with("plugin/delete"));
    for step in around.into_iter().chain(destroying).chain(plugins) {
        // It must be running when the daemon dies.
        let action = step.strip_prefix("plugin/").and_then(|step| step.strip_suffix("-started"));
        let slow = action.map(|action| stage.state(&format!("before-{action}")));
        if let Some(slow) = &slow {
            fs::write(slow, "sleep 1000").unwrap();
        }
        stage.site.start(Some(step));
        stage.site.wait_up().await;
        if stage.client.create(&of_image("cycle", "")).await.is_ok() {
            stage.client.destroy("cycle").await.unwrap_err();
        }
        stage.site.expect_death(step);
        if let Some(slow) = &slow {
            fs::remove_file(slow).unwrap();
        }
        stage.site.start(None);
        stage.site.wait_up().await;
        assert_eq!(stage.all().await, ["steady"], "{step}");
        assert_eq!(stage.images(), ["unprivileged-steady"], "{step}");
        before.expect_again(&stage.site.config);
        stage.site.kill();
    }
    stage.site.start(None);
    stage.site.wait_up().await;
    assert_eq!(stage.output("steady", "echo $OF").await, "image\n");
    stage.client.destroy("steady").await.unwrap();
    assert_eq!(stage.images(), [""; 0]);
}

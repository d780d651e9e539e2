//! Flags of the original server that this one has no use for.
//!
//! Start scripts and INI files have them. Where a flag chose how the original did something, it is
//! accepted, with a warning; where it chose what a container has or may, silence would be a lie, and
//! it is an error unless it has the value by which it chooses nothing.

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

#[derive(Clone, Copy)]
enum Foreign {
    /// Without a value.
    Switch(&'static str),
    Setting(&'static str),
    /// An error, for this reason.
    Refused(&'static str, &'static str),
}
use Foreign::{Refused, Setting, Switch};

const FIXED_IDS: &str =
    "an unprivileged container's root is the highest id, and all its other ids are themselves";
const KERNELS_TCP: &str = "containers have the kernel's own settings of TCP";
const NO_IO_LIMIT: &str = "reading and writing are not limited";

const FLAGS: [Foreign; 39] = [
    Switch("skip-setup"),
    Switch("use-containerd-for-processes"),
    Switch("no-image-plugin"),
    Setting("properties-path"),
    Setting("console-sockets-path"),
    Setting("port-pool-properties-path"),
    Setting("assets-dir"),
    Setting("dadoo-bin"),
    Setting("nstar-bin"),
    Setting("tar-bin"),
    Setting("init-bin"),
    Setting("iptables-bin"),
    Setting("iptables-restore-bin"),
    Setting("runtime-plugin"),
    Setting("runtime-plugin-extra-arg"),
    Setting("containerd-socket"),
    Setting("docker-registry"),
    Setting("insecure-docker-registry"),
    Setting("default-container-blockio-weight"),
    Setting("cpu-throttling-check-interval"),
    Setting("tcp-memory-limit"),
    Setting("persistent-image"),
    Setting("graph"),
    Setting("graph-cleanup-threshold-in-megabytes"),
    Refused("uid-map-start", FIXED_IDS),
    Refused("uid-map-length", FIXED_IDS),
    Refused("gid-map-start", FIXED_IDS),
    Refused("gid-map-length", FIXED_IDS),
    Refused("enable-cpu-throttling", "containers are not slowed down to their CPU entitlement"),
    Refused("device-cgroup-rule", "what devices privileged containers may use is fixed"),
    Refused("container-io-max-read-bps", NO_IO_LIMIT),
    Refused("container-io-max-read-iops", NO_IO_LIMIT),
    Refused("container-io-max-write-bps", NO_IO_LIMIT),
    Refused("container-io-max-write-iops", NO_IO_LIMIT),
    Refused("tcp-keepalive-time", KERNELS_TCP),
    Refused("tcp-keepalive-interval", KERNELS_TCP),
    Refused("tcp-keepalive-probes", KERNELS_TCP),
    Refused("tcp-retries1", KERNELS_TCP),
    Refused("tcp-retries2", KERNELS_TCP),
];

/// By which a flag chooses nothing.
fn is_nothing(value: &str) -> bool {
    matches!(value, "" | "0" | "false")
}

impl Foreign {
    fn name(self) -> &'static str {
        match self {
            Switch(name) | Setting(name) | Refused(name, _) => name,
        }
    }

    fn argument(self) -> Arg {
        let argument = Arg::new(self.name()).long(self.name()).hide(true).action(ArgAction::Append);
        match self {
            Switch(_) => {
                argument.num_args(0..=1).require_equals(true).default_missing_value("true")
            }
            Setting(_) => argument.num_args(1).allow_hyphen_values(true),
            Refused(_, reason) => {
                let nothing = move |value: &str| {
                    if is_nothing(value) { Ok(value.to_owned()) } else { Err(reason) }
                };
                argument
                    .num_args(0..=1)
                    .default_missing_value("true")
                    .value_parser(ValueParser::new(nothing))
            }
        }
    }
}

/// Names of those that were given, and mean something to the original.
#[derive(Debug)]
pub struct Ignored(pub Vec<&'static str>);

impl Args for Ignored {
    fn augment_args(command: Command) -> Command {
        command.args(FLAGS.map(Foreign::argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Ignored {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |name: &&str| {
            let mut values = matches.get_many::<String>(name).into_iter().flatten();
            values.any(|value| !is_nothing(value))
        };
        Ok(Self(FLAGS.map(Foreign::name).into_iter().filter(given).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

//! Failed calls in words that say what to do about them.

use std::io;

use anyhow::anyhow;
use bloomery_garden::client::{Address, Error};

/// Texts of Garden's errors that never change, and what helps.
const REMEDIES: [(&str, &str); 5] = [
    (
        "invalid container ID format",
        "A handle is made of letters, digits, `.`, `_` and `-`, 200 of them at most.",
    ),
    (
        "max containers reached",
        "Destroy a container, or start the server with a larger --max-containers.",
    ),
    (
        "insufficient subnets remaining in the pool",
        "Destroy a container, or start the server with a larger --network-pool.",
    ),
    (
        "port pool is exhausted",
        "Destroy a container that has mapped ports, or start the server with a larger \
         --port-pool-size.",
    ),
    ("Handle '", "Choose another --handle, or destroy the container that has this one."),
];

/// A failed call, as the operator shall read it.
pub fn explain(error: Error) -> anyhow::Error {
    match &error {
        Error::Unreachable { address, source, .. } => anyhow!(unreachable(address, source)),
        Error::ContainerNotFound(handle) => {
            anyhow!("there is no container {handle:?}; `bloomery ctl list` shows those there are")
        }
        Error::ProcessNotFound(process) => {
            anyhow!("there is no process {process:?} in this container")
        }
        Error::Plain(text) => match REMEDIES.iter().find(|(begin, _)| text.starts_with(begin)) {
            Some((_, remedy)) => anyhow!("{text}\n{remedy}"),
            None => error.into(),
        },
        _ => error.into(),
    }
}

fn unreachable(address: &Address, source: &io::Error) -> String {
    let why = match (source.kind(), address) {
        (io::ErrorKind::PermissionDenied, Address::Unix(path)) => {
            return format!(
                "you may not use {}; be root, or have the server started with a wider \
                 --bind-socket-mode",
                path.display()
            );
        }
        (io::ErrorKind::NotFound, _) => "there is no such socket".to_owned(),
        (io::ErrorKind::ConnectionRefused, _) => "nobody listens there".to_owned(),
        (io::ErrorKind::TimedOut, _) => "it did not answer within two seconds".to_owned(),
        _ => source.to_string(),
    };
    format!(
        "no Garden server at {address}: {why}\n\
         Start one as root with `bloomery garden serve`, or say where it is with --socket, \
         --address or BLOOMERY_GARDEN."
    )
}

//! `bloomery inside …`: what the daemon runs of itself inside a container, for its streams. Not for
//! people; there are no flags, so that nothing in a client's words can become one.

use std::ffi::OsString;
use std::process::ExitCode;

use rootfs::inside::{self, Error};

/// Runs `stream-in USER PATH` (an archive comes by stdin) or `stream-out USER PATH` (it goes to
/// stdout). What is wrong goes to stderr. The process must still be single-threaded.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<_> = arguments.map(|argument| argument.into_string()).collect();
    let outcome = match arguments.as_slice() {
        [Ok(what), Ok(user), Ok(path)] if what == "stream-in" => {
            inside::stream_in(user, path, std::io::stdin())
        }
        [Ok(what), Ok(user), Ok(path)] if what == "stream-out" => {
            inside::stream_out(user, path, std::io::stdout())
        }
        _ => {
            eprintln!("usage: bloomery inside stream-in|stream-out USER PATH");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", in_full(&error));
            ExitCode::FAILURE
        }
    }
}

fn in_full(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

//! Process 1 of a test machine: boots it, then does what its harness asks for.

#![forbid(unsafe_code)]

mod boot;
mod execution;
mod files;
mod identity;
mod port;
mod reaper;

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;

use execution::Execution;
use files::Incoming;
use machine_agent::wire::{Reply, Request};
use port::Port;
use rustix::system::{RebootCommand, reboot};

fn main() {
    let Err(err) = boot::boot().and_then(|()| serve());
    eprintln!("machine-agent: {err}");
    // Process 1 must not end. The harness sees that the machine does, and has the console's text.
    let _ = reboot(RebootCommand::PowerOff);
}

/// Serves for as long as the machine runs.
fn serve() -> io::Result<Infallible> {
    let port = Port::open()?;
    port.send(0, &Reply::Ready)?;
    let mut executions: HashMap<u32, Execution> = HashMap::new();
    let mut files: HashMap<u32, Incoming> = HashMap::new();
    let mut requests = port.requests();
    loop {
        let (number, request) = Request::read(&mut requests)?;
        executions.retain(|_, execution| !execution.is_over());
        let done = |result: io::Result<()>| {
            port.send(number, &Reply::Done(result.map_err(|err| err.to_string())))
        };
        match request {
            Request::Identify(identity) => done(identity::become_(&identity))?,
            Request::Execute(command) => match execution::start(number, &command, &port) {
                Ok(execution) => {
                    executions.insert(number, execution);
                }
                Err(err) => done(Err(err))?,
            },
            Request::Input(bytes) => match executions.get(&number) {
                Some(execution) => {
                    if let Err(err) = execution.input(bytes) {
                        done(Err(err))?;
                    }
                }
                None => done(Err(io::ErrorKind::BrokenPipe.into()))?,
            },
            Request::EndInput => {
                if let Some(execution) = executions.get_mut(&number) {
                    execution.end_input();
                }
            }
            // Both may cross with the process's end.
            Request::Signal(signal) => {
                if let Some(execution) = executions.get(&number) {
                    execution.signal(signal);
                }
            }
            Request::Window(window) => {
                if let Some(execution) = executions.get(&number) {
                    execution.resize(window);
                }
            }
            Request::Put(file) => {
                files.insert(number, Incoming::begin(file));
            }
            Request::Content(bytes) => {
                if let Some(file) = files.get_mut(&number) {
                    file.append(&bytes);
                }
            }
            Request::EndPut => {
                let file = files.remove(&number);
                done(file.map_or(Err(io::ErrorKind::NotFound.into()), Incoming::finish))?;
            }
        }
    }
}

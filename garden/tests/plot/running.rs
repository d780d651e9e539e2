//! A process that a test talks to while it runs.

use std::sync::Arc;

use bloomery_garden::process::{Attachment, Output, Process};
use garden_api::ProcessSpec;
use garden_sys::supervisor::Exit;
use tokio::runtime::Handle;

use super::{PATIENCE, Plot};

/// One client of a process, and all it has heard.
pub struct Running {
    runtime: Handle,
    pub process: Arc<Process>,
    pub attachment: Attachment,
    streams: [Output; 2],
    pub heard: [Vec<u8>; 2],
}

impl Plot {
    pub fn start(&self, handle: &str, spec: &ProcessSpec) -> Running {
        let process = self.garden().run(handle, spec).unwrap();
        self.attach(process)
    }

    /// Starts a shell script.
    pub fn start_sh(&self, handle: &str, script: &str) -> Running {
        self.start(handle, &shell(script))
    }

    pub fn attach(&self, process: Arc<Process>) -> Running {
        let mut attachment = process.attach();
        let (output, error) = attachment.take_outputs().unwrap();
        let heard = Default::default();
        Running {
            runtime: self.runtime.handle().clone(),
            process,
            attachment,
            streams: [output, error],
            heard,
        }
    }
}

pub fn shell(script: &str) -> ProcessSpec {
    ProcessSpec {
        path: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        ..ProcessSpec::default()
    }
}

impl Running {
    /// Listens until stdout holds `text`.
    pub fn hear(&mut self, text: &str) {
        let heard = &mut self.heard[0];
        let output = &mut self.streams[0];
        let listening = async {
            while !String::from_utf8_lossy(heard).contains(text) {
                let piece = output.recv().await.expect("the stream has not ended");
                heard.extend_from_slice(&piece);
            }
        };
        let in_time = self
            .runtime
            .block_on(async { tokio::time::timeout(PATIENCE, listening).await.is_ok() });
        assert!(in_time, "{text:?} in {:?}", String::from_utf8_lossy(&self.heard[0]));
    }

    pub fn say(&self, text: &str) {
        self.runtime.block_on(self.attachment.write(text.as_bytes()));
    }

    /// Waits for the end; answers it with all that was written to both streams.
    pub fn end(mut self) -> (Exit, String, String) {
        self.attachment.end_input();
        self.end_open()
    }

    /// The same, without ending its input.
    pub fn end_open(self) -> (Exit, String, String) {
        let Self { runtime, process, attachment, streams: [mut output, mut error], heard } = self;
        let [mut out, mut err] = heard;
        let ending = async {
            let all = async |from: &mut Output, into: &mut Vec<u8>| {
                while let Some(piece) = from.recv().await {
                    into.extend_from_slice(&piece);
                }
            };
            let (_, _, exit) =
                tokio::join!(all(&mut output, &mut out), all(&mut error, &mut err), process.wait());
            exit
        };
        let exit =
            runtime.block_on(async { tokio::time::timeout(PATIENCE, ending).await }).unwrap();
        drop(attachment);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (exit, text(out), text(err))
    }
}

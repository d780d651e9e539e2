//! Finds where a replay and its recording differ.

use std::fmt;

use crate::message::{self, Message, Spoken};
use crate::recording::{Recording, Side};
use crate::vary::{self, Vary};

/// A place where both differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Line of the recording.
    pub line: usize,
    /// What is compared, for the reader.
    pub what: String,
    /// The recorded text.
    pub expected: String,
    /// Ours.
    pub ours: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, what, expected, ours } = self;
        write!(f, "line {line}, {what}:\n  recorded: {expected:?}\n  ours:     {ours:?}")
    }
}

/// One connection of a replay.
#[derive(Clone, Copy, Debug)]
pub struct Replayed<'a> {
    /// Its number in the recording.
    pub connection: usize,
    /// What the other side sent, the same in both but for substitutions.
    pub asked: &'a [u8],
    /// What our side sent.
    pub sent: &'a [u8],
    /// Our side has closed it.
    pub closed: bool,
}

impl Replayed<'_> {
    /// Compares what our server answered.
    pub fn as_server(&self, recording: &Recording) -> Vec<Difference> {
        let recorded = recording.sent(self.connection, Side::Server, recording.events.len());
        let end = recording.end(self.connection);
        let requests = message::requests(self.asked).messages;
        let expected = message::answers(&requests, &recorded, end != Some(false));
        let mut ours = message::answers(&requests, self.sent, self.closed);
        if end.is_none() && expected.messages.len() < requests.len() {
            // The client did not wait for this answer; ours may have been quicker.
            ours.messages.truncate(expected.messages.len());
            ours.rest.clear();
        }
        if let (None, Some(expected), Some(ours)) = (end, &expected.raw, &mut ours.raw)
            && ours.bytes.starts_with(&expected.bytes)
        {
            // The client went first; what was on its way to it then depends on the moment.
            ours.bytes.truncate(expected.bytes.len());
        }
        let mut differences = self.compare(recording, Side::Server, &expected, &ours);
        if let Some(closed) = end
            && closed != self.closed
        {
            let word = |closed| if closed { "closed" } else { "open" }.to_owned();
            differences.push(Difference {
                line: recording.line_of_end(self.connection),
                what: format!("connection {} at the end", self.connection),
                expected: word(closed),
                ours: word(self.closed),
            });
        }
        differences
    }

    /// Compares what our client asked.
    pub fn as_client(&self, recording: &Recording) -> Vec<Difference> {
        let recorded = recording.sent(self.connection, Side::Client, recording.events.len());
        let expected = message::requests(&recorded);
        let ours = message::requests(self.sent);
        self.compare(recording, Side::Client, &expected, &ours)
    }

    fn compare(
        &self,
        recording: &Recording,
        side: Side,
        expected: &Spoken,
        ours: &Spoken,
    ) -> Vec<Difference> {
        let vary = Vary::new(&recording.head.vary);
        let c = self.connection;
        let mut differences = Vec::new();
        let mut note = |offset: usize, what: String, expected: Vec<u8>, ours: Vec<u8>| {
            if expected != ours {
                let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
                let line = recording.line_of(c, side, offset);
                differences.push(Difference {
                    line: line.unwrap_or_else(|| recording.line_of_end(c)),
                    what,
                    expected: text(expected),
                    ours: text(ours),
                });
            }
        };
        for index in 0..expected.messages.len().max(ours.messages.len()) {
            let (expected, ours) = (expected.messages.get(index), ours.messages.get(index));
            let words = expected.is_some_and(|message| vary::foreign(&message.body));
            let text = |message: Option<&Message>| {
                message.map_or(b"<nothing>".to_vec(), |message| vary.message(message, words))
            };
            let what = format!("message {} on connection {c}", index + 1);
            note(expected.map_or(usize::MAX, |m| m.offset), what, text(expected), text(ours));
        }
        let offset = expected.raw.as_ref().map_or(usize::MAX, |raw| raw.offset);
        let raw = |spoken: &Spoken| {
            spoken.raw.as_ref().map_or(b"<not hijacked>".to_vec(), |raw| vary.raw(raw))
        };
        note(offset, format!("raw bytes on connection {c}"), raw(expected), raw(ours));
        let what = format!("bytes that are no message on connection {c}");
        note(usize::MAX, what, expected.rest.clone(), ours.rest.clone());
        differences
    }
}

//! What is gone is said more than once: a router that missed it would send requests astray.

use std::collections::HashMap;

use crate::message::{Identity, Notice, Verb};

/// Unregistrations that are still to be repeated.
#[derive(Debug, Default)]
pub(crate) struct Unregistrations(HashMap<Identity, (Notice, u32)>);

impl Unregistrations {
    /// Takes what was just said. What is registered again is not gone.
    pub(crate) fn note(&mut self, notice: &Notice, times: u32) {
        let identity = notice.message.identity(notice.audience);
        match notice.verb {
            Verb::Register => drop(self.0.remove(&identity)),
            Verb::Unregister => drop(self.0.insert(identity, (notice.clone(), times))),
        }
    }

    /// What is to be said now.
    pub(crate) fn repeat(&mut self) -> Vec<Notice> {
        self.0.retain(|_, (_, left)| *left > 0);
        self.0
            .values_mut()
            .map(|(notice, left)| {
                *left -= 1;
                notice.clone()
            })
            .collect()
    }
}

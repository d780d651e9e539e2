//! The operator's terminal.

use std::io;

use garden_api::WindowSize;
use rustix::termios::{self, OptionalActions, Termios};

/// The size of the terminal on standard input or output, if either is one.
pub fn size() -> Option<WindowSize> {
    let size =
        termios::tcgetwinsize(io::stdin()).or_else(|_| termios::tcgetwinsize(io::stdout())).ok()?;
    Some(WindowSize { columns: size.ws_col, rows: size.ws_row })
}

/// Standard input as a terminal that passes every key on; dropping it restores what it was.
#[derive(Debug)]
pub struct Raw {
    before: Termios,
}

impl Raw {
    /// `None` if standard input is no terminal.
    pub fn enter() -> io::Result<Option<Self>> {
        if !termios::isatty(io::stdin()) {
            return Ok(None);
        }
        let before = termios::tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

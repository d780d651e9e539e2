//! Words for who watches.

/// As `println!`, for commands that have to come to their end though nobody watches any more, as
/// when Ctrl-C has ended the other end of a pipe.
macro_rules! say {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($words)*);
    }};
}

pub(crate) use say;

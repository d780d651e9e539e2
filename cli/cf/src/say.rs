//! Tables, sizes and times as the cf CLI prints them.

use std::io::{BufRead as _, Write as _};

use jiff::{SignedDuration, Timestamp};

use crate::error::Error;

/// Columns by width, three blanks between them. The first line is the head.
pub(crate) fn table(rows: &[Vec<String>], indent: &str) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| Some(row.get(column)?.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let last = row.len().saturating_sub(1);
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let width = if column == last { 0 } else { widths[column] + 3 };
            format!("{cell:width$}")
        });
        println!("{indent}{}", cells.collect::<String>().trim_end());
    }
}

/// `name:   value` lines whose values stand below each other.
pub(crate) fn fields(fields: &[(&str, String)]) {
    let width = fields.iter().map(|(name, _)| name.len() + 4).max().unwrap_or(0);
    for (name, value) in fields {
        println!("{}", format!("{:width$}{value}", format!("{name}:")).trim_end());
    }
}

/// `1G`, `64M`, `128K`, `7B`; a fraction with one digit.
pub(crate) fn size(bytes: u64) -> String {
    for (unit, shift) in [("T", 40), ("G", 30), ("M", 20), ("K", 10)] {
        let one = 1_u64 << shift;
        if bytes >= one {
            let (whole, tenths) = (bytes / one, bytes % one * 10 / one);
            return if tenths == 0 {
                format!("{whole}{unit}")
            } else {
                format!("{whole}.{tenths}{unit}")
            };
        }
    }
    format!("{bytes}B")
}

/// Mebibytes of `64M`, `1G`, `1GB`, …
pub(crate) fn mebibytes(text: &str) -> Result<u64, Error> {
    let bad = || {
        Error::said(format!(
            "Byte quantity must be an integer with a unit of measurement like M, MB, G, or GB, not {text:?}"
        ))
    };
    let upper = text.to_uppercase();
    let digits = upper.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| bad())?;
    let factor = match &upper[digits.len()..] {
        "M" | "MB" => 1,
        "G" | "GB" => 1024,
        "T" | "TB" => 1024 * 1024,
        _ => return Err(bad()),
    };
    number.checked_mul(factor).ok_or_else(bad)
}

/// When it was, `seconds` ago.
pub(crate) fn since(seconds: i64) -> String {
    let then = Timestamp::now().saturating_sub(SignedDuration::from_secs(seconds));
    then.map(|then| then.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()).unwrap_or_default()
}

/// A time of the API as people write it.
pub(crate) fn date(text: &str) -> String {
    let time = text.parse::<Timestamp>();
    time.map(|time| time.strftime("%a %d %b %H:%M:%S UTC %Y").to_string()).unwrap_or_default()
}

/// Asks for a line. At the end of the input there is none.
pub(crate) fn ask(what: &str) -> Result<String, Error> {
    print!("{what}: ");
    let mut line = String::new();
    let read =
        std::io::stdout().flush().and_then(|()| std::io::stdin().lock().read_line(&mut line));
    match read {
        Ok(0) | Err(_) => Err(Error::said(format!("{what} is needed."))),
        Ok(_) => Ok(line.trim_end_matches(['\r', '\n']).to_owned()),
    }
}

/// Asks for a line that does not show while it is typed.
pub(crate) fn ask_secretly(what: &str) -> Result<String, Error> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let stdin = std::io::stdin();
    let Ok(shown) = tcgetattr(&stdin) else { return ask(what) };
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    let hiding = tcsetattr(&stdin, OptionalActions::Now, &hidden);
    let answer = ask(what);
    if hiding.is_ok() {
        // Whether it works or not, there is nothing else to be done.
        let _ = tcsetattr(&stdin, OptionalActions::Now, &shown);
        println!();
    }
    answer
}

/// Whether the user says yes.
pub(crate) fn confirm(question: &str) -> Result<bool, Error> {
    let answer = ask(&format!("{question} [yN]"))?;
    Ok(["y", "yes"].contains(&answer.to_lowercase().as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        for (text, mebibytes_) in [("64M", 64), ("1g", 1024), ("2GB", 2048), ("1T", 1 << 20)] {
            assert_eq!(mebibytes(text).unwrap(), mebibytes_);
        }
        for text in ["", "M", "64", "64K", "1.5G", "-1M", "99999999999999T"] {
            assert!(mebibytes(text).is_err(), "{text}");
        }
        for (bytes, text) in [(0, "0B"), (1 << 30, "1G"), (19 << 20, "19M"), (1536, "1.5K")] {
            assert_eq!(size(bytes), text);
        }
    }
}

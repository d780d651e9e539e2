//! What may differ from run to run is made the same: dates, ids, times, ports.

use std::collections::HashMap;

/// Ports of back ends, ours to the recorded ones.
pub type Ports = HashMap<u16, u16>;

/// Bytes of a connection. Fields are sorted: their order is Go's and says nothing.
pub fn bytes(bytes: &[u8], ports: &Ports) -> String {
    let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
    let pieces: Vec<String> = text.split("\r\n\r\n").map(sort).collect();
    let text = pieces.join("\r\n\r\n");
    let text = values(&text, "X-Vcap-Request-Id: ", |value| value.len() == 36, "ID");
    let text = values(&text, "X-Request-Start: ", |value| value.len() == 13, "START");
    let text = values(&text, "Date: ", |value| value.ends_with("GMT"), "DATE");
    self::ports(&text, ports)
}

/// A line of the access log.
pub fn log(line: &str, ports: &Ports) -> String {
    let line = match (line.find(" - ["), line.find("] ")) {
        (Some(from), Some(to)) => format!("{}{}", &line[..from], &line[to + 1..]),
        _ => line.to_owned(),
    };
    let words = line.split(' ').filter(|word| {
        !["response_time:", "gorouter_time:"].iter().any(|name| word.starts_with(name))
    });
    let words: Vec<String> = words
        .map(|word| match word.strip_prefix("vcap_request_id:\"") {
            Some(id) if id.len() == 37 => "vcap_request_id".to_owned(),
            _ => word.to_owned(),
        })
        .collect();
    self::ports(&words.join(" "), ports)
}

fn sort(piece: &str) -> String {
    let mut lines: Vec<&str> = piece.split("\r\n").collect();
    if let Some(first) = lines.iter().position(|line| line.contains("HTTP/1.")) {
        lines[first + 1..].sort_by_key(|line| line.split(':').next());
    }
    lines.join("\r\n")
}

fn values(text: &str, name: &str, varies: impl Fn(&str) -> bool, instead: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(name) {
        let (before, value) = rest.split_at(at + name.len());
        let end = value.find("\r\n").unwrap_or(value.len());
        out += before;
        out += if varies(&value[..end]) { instead } else { &value[..end] };
        rest = &value[end..];
    }
    out + rest
}

fn ports(text: &str, ports: &Ports) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(':') {
        let (before, after) = rest.split_at(at + 1);
        let end = after.find(|char: char| !char.is_ascii_digit()).unwrap_or(after.len());
        out += before;
        match after[..end].parse::<u16>() {
            Ok(port) if ports.contains_key(&port) => out += &ports[&port].to_string(),
            Ok(port) if port >= 20_000 && before.ends_with("127.0.0.1:") => out += "*",
            _ => out += &after[..end],
        }
        rest = &after[end..];
    }
    out + rest
}

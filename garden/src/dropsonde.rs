//! Metrics for a platform's own collector: dropsonde's envelopes by UDP, as the original sends them.
//!
//! | name | unit | when |
//! |---|---|---|
//! | `DepotDirs`, `UnkillableContainers` | `Metric` | each interval |
//! | `MetricsReporting` | `nanos` | each interval: how long it took to find these out |
//! | `ContainerCreationDuration`, `StreamInDuration` | `nanos` | with each call |
//!
//! A collector that is not there is no reason to say anything.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where envelopes go, and from whom.
#[derive(Debug)]
struct Emitter {
    socket: UdpSocket,
    origin: String,
}

/// This daemon's; absent until it is started.
static EMITTER: OnceLock<Emitter> = OnceLock::new();

/// From now on envelopes go to `destination`. Once per process; later calls change nothing.
pub fn start(destination: SocketAddr, origin: String) -> io::Result<()> {
    let any: SocketAddr = match destination {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.set_nonblocking(true)?;
    socket.connect(destination)?;
    let _ = EMITTER.set(Emitter { socket, origin });
    Ok(())
}

/// Tells a number.
pub(crate) fn tell(name: &str, value: f64, unit: &str) {
    if let Some(emitter) = EMITTER.get() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        // Nobody there, or no room in the queue: the next one will do.
        let _ = emitter.socket.send(&envelope(&emitter.origin, now, name, value, unit));
    }
}

/// Tells how long something took.
#[expect(clippy::cast_precision_loss, reason = "the protocol has nothing else")]
pub(crate) fn tell_time(name: &str, took: Duration) {
    tell(name, took.as_nanos() as f64, "nanos");
}

/// Tells what `look` finds, and how long that took.
pub(crate) fn report(look: impl FnOnce() -> [(&'static str, f64); 2]) {
    let begun = Instant::now();
    for (name, value) in look() {
        tell(name, value, "Metric");
    }
    tell_time("MetricsReporting", begun.elapsed());
}

/// `events.Envelope` of dropsonde-protocol with a ValueMetric, in protobuf's encoding.
fn envelope(origin: &str, nanoseconds: u64, name: &str, value: f64, unit: &str) -> Vec<u8> {
    const VALUE_METRIC: u64 = 6;
    let mut metric = Vec::new();
    put_text(&mut metric, 1, name);
    // Field 2, eight bytes.
    metric.push(2 << 3 | 1);
    metric.extend(value.to_le_bytes());
    put_text(&mut metric, 3, unit);
    let mut envelope = Vec::new();
    put_text(&mut envelope, 1, origin);
    put_number(&mut envelope, 2, VALUE_METRIC);
    put_number(&mut envelope, 6, nanoseconds);
    put_bytes(&mut envelope, 9, &metric);
    envelope
}

fn put_varint(message: &mut Vec<u8>, mut number: u64) {
    loop {
        let low = number.to_le_bytes()[0] & 0x7f;
        number >>= 7;
        if number == 0 {
            return message.push(low);
        }
        message.push(low | 0x80);
    }
}

fn put_number(message: &mut Vec<u8>, field: u8, number: u64) {
    message.push(field << 3);
    put_varint(message, number);
}

fn put_bytes(message: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    message.push(field << 3 | 2);
    put_varint(message, bytes.len() as u64);
    message.extend_from_slice(bytes);
}

fn put_text(message: &mut Vec<u8>, field: u8, text: &str) {
    put_bytes(message, field, text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written down by hand from the protocol's definition.
    #[test]
    fn an_envelope_is_dropsondes() {
        let expected = [
            &b"\x0a\x0cgarden-linux"[..],
            b"\x10\x06",
            b"\x30\xac\x02",
            b"\x4a\x1c",
            b"\x0a\x09DepotDirs",
            b"\x11\x00\x00\x00\x00\x00\x00\xf0\x3f",
            b"\x1a\x06Metric",
        ]
        .concat();
        assert_eq!(envelope("garden-linux", 300, "DepotDirs", 1.0, "Metric"), expected);
    }
}

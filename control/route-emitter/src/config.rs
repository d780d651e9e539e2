//! The emitter's settings, with the names of the original's configuration file.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// Settings that are missing have the original's defaults; unknown ones are ignored. Durations are texts
/// in seconds or minutes, such as `30s` and `1m`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The cell whose instances are told of; all of them if it is empty.
    pub cell_id: String,
    /// Between comparisons with the BBS's lists.
    #[serde(deserialize_with = "duration")]
    pub sync_interval: Duration,
    /// Routers that start are told everything after up to so much of their interval.
    pub jitter_factor: f64,
    /// Where an instance does not say by which address it is reached: by its own, not the cell's.
    pub register_direct_instance_routes: bool,
    /// Tell service discovery of internal routes.
    pub enable_internal_emitter: bool,
    /// Between repetitions of what is gone.
    #[serde(deserialize_with = "duration")]
    pub unregistration_interval: Duration,
    /// How often it is repeated.
    pub unregistration_send_count: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cell_id: String::new(),
            sync_interval: Duration::from_secs(60),
            jitter_factor: 0.2,
            register_direct_instance_routes: false,
            enable_internal_emitter: true,
            unregistration_interval: Duration::from_secs(30),
            unregistration_send_count: 20,
        }
    }
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    let (digits, unit) = match text.strip_suffix('m') {
        Some(digits) => (digits, 60),
        None => (text.strip_suffix('s').unwrap_or(""), 1),
    };
    let number: Option<u64> = digits.parse().ok();
    number
        .and_then(|number| number.checked_mul(unit))
        .filter(|seconds| *seconds > 0)
        .map(Duration::from_secs)
        .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no duration such as 30s")))
}

#[cfg(test)]
mod tests {
    use super::Config;

    #[test]
    fn settings_are_read() {
        let config: Config = serde_json::from_str(
            r#"{"cell_id":"cell-1","sync_interval":"2m","unregistration_interval":"5s","bbs_address":"x"}"#,
        )
        .unwrap();
        assert_eq!((config.cell_id.as_str(), config.sync_interval.as_secs()), ("cell-1", 120));
        assert_eq!((config.unregistration_interval.as_secs(), config.jitter_factor), (5, 0.2));
        for bad in ["0s", "s", "5", "1h"] {
            let text = format!(r#"{{"sync_interval":"{bad}"}}"#);
            assert!(serde_json::from_str::<Config>(&text).is_err(), "{bad}");
        }
    }
}

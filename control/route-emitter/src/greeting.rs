//! How often routers want to be told, which they say when they start and when they are greeted.

use std::time::Duration;

use bus::{Bus, Subscription};
use serde::Deserialize;
use tokio::time::{Instant, sleep_until};

use crate::message::Audience;

/// Between greetings until somebody answers.
const GREETING: Duration = Duration::from_secs(1);

/// One audience's wishes.
#[derive(Debug)]
pub(crate) struct Rounds {
    starts: Subscription,
    interval: Option<Duration>,
    next: Instant,
    jitter: f64,
}

#[derive(Deserialize)]
struct Start {
    #[serde(rename = "minimumRegisterIntervalInSeconds")]
    interval: u64,
}

impl Rounds {
    pub(crate) async fn begin(
        bus: &Bus,
        audience: Audience,
        jitter: f64,
    ) -> Result<Self, bus::Error> {
        let starts = bus.subscribe(subjects(audience).0).await?;
        Ok(Self { starts, interval: None, next: Instant::now(), jitter })
    }

    /// Waits until everything is to be told again. May be given up and called again.
    pub(crate) async fn due(&mut self, bus: &Bus, audience: Audience) {
        loop {
            tokio::select! {
                Some(start) = self.starts.next() => self.started(&start.payload),
                () = sleep_until(self.next) => match self.interval {
                    Some(interval) => {
                        self.next = Instant::now() + interval;
                        return;
                    }
                    None => {
                        self.next = Instant::now() + GREETING;
                        // The answer may take as long as the next greeting.
                        if let Ok(answer) = bus.request(subjects(audience).1, "", GREETING).await {
                            self.started(&answer.payload);
                        }
                    }
                },
            }
        }
    }

    /// A new router knows nothing; not all emitters are to tell it at the same moment.
    fn started(&mut self, payload: &[u8]) {
        let Ok(start) = serde_json::from_slice::<Start>(payload) else { return };
        let interval = Duration::from_secs(start.interval.max(1));
        let wait = interval.mul_f64(self.jitter.clamp(0.0, 1.0) * rand::random::<f64>());
        self.interval = Some(interval);
        self.next = Instant::now() + wait;
    }
}

/// Where an audience says that it has started, and where it is greeted.
fn subjects(audience: Audience) -> (&'static str, &'static str) {
    match audience {
        Audience::Router => ("router.start", "router.greet"),
        Audience::ServiceDiscovery => ("service-discovery.start", "service-discovery.greet"),
    }
}

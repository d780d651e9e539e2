//! What operators and load balancers ask of the router.

use std::sync::atomic::Ordering;

use base64::Engine as _;

use crate::head::Request;
use crate::proxy::Proxy;
use crate::refusal::Refusal;

/// Whether to send requests here, and whether the process is alive.
pub(crate) fn health(proxy: &Proxy, request: &Request) -> (Refusal, bool) {
    let answer = match path(request) {
        "/health" => proxy.health(),
        "/is-process-alive-do-not-use-for-loadbalancing" => ok(),
        _ => return (not_found(), false),
    };
    (typed(answer), false)
}

/// The table, for who knows the password.
pub(crate) fn routes(proxy: &Proxy, request: &Request) -> (Refusal, bool) {
    match path(request) {
        // As on the original: it knows this path too, and says nothing there.
        "/health" => return (not_found(), false),
        _ if !is_allowed(proxy, request) => {
            let mut refusal = typed(Refusal::bare(401, None));
            refusal.fields.add("Www-Authenticate", "Basic");
            refusal.body = "401 Unauthorized\n".to_owned();
            return (refusal, false);
        }
        "/routes" => {}
        _ => return (not_found(), false),
    }
    let mut answer = Refusal::bare(200, None);
    answer.fields.add("Content-Type", "application/json");
    answer.body = format!("{}\n", proxy.table.to_json());
    (answer, true)
}

fn is_allowed(proxy: &Proxy, request: &Request) -> bool {
    let status = &proxy.config.status;
    let given = request.fields.get("Authorization").and_then(|value| {
        let encoded = value.strip_prefix(b"Basic ")?;
        base64::engine::general_purpose::STANDARD.decode(encoded).ok()
    });
    let wanted = format!("{}:{}", status.user, status.pass).into_bytes();
    // Without a password nobody may; with one, the time it takes tells nothing of it.
    !status.pass.is_empty()
        && given.is_some_and(|given| {
            let differ = given.iter().zip(&wanted).fold(0, |sum, (one, other)| sum | (one ^ other));
            given.len() == wanted.len() && differ == 0
        })
}

fn path(request: &Request) -> &str {
    let path = std::str::from_utf8(&request.path).unwrap_or_default();
    path.split('?').next().unwrap_or_default()
}

fn ok() -> Refusal {
    let mut answer = Refusal::bare(200, None);
    answer.body = "ok\n".to_owned();
    answer
}

fn typed(mut answer: Refusal) -> Refusal {
    if !answer.body.is_empty() || answer.status == 401 {
        answer.fields.set("Content-Type", "text/plain; charset=utf-8");
    }
    answer
}

fn not_found() -> Refusal {
    let mut answer = Refusal::bare(404, None);
    answer.fields.add("Content-Type", "text/plain; charset=utf-8");
    answer.fields.add("X-Content-Type-Options", "nosniff");
    answer.body = "404 page not found\n".to_owned();
    answer
}

impl Proxy {
    pub(crate) fn health(&self) -> Refusal {
        let healthy = self.healthy.load(Ordering::Relaxed);
        let mut answer = if healthy { ok() } else { Refusal::bare(503, None) };
        answer.fields.add("Cache-Control", "private, max-age=0");
        answer.fields.add("Expires", "0");
        answer
    }
}

//! One probe from the cell.

use std::time::{Duration, Instant};

use bbs_models::Check;
use http::Request;
use http::header::{CONNECTION, HOST, LOCATION, USER_AGENT};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Where an app is asked, and how.
#[derive(Debug)]
pub(super) struct Probe {
    address: String,
    pub(super) port: u32,
    pub(super) timeout: Duration,
    pub(super) interval: Option<Duration>,
    pub(super) target: Target,
}

#[derive(Debug)]
pub(super) enum Target {
    Tcp,
    Http { path: String },
}

const TIMEOUT: Duration = Duration::from_secs(1);
const REDIRECTS: usize = 10;

impl Probe {
    pub(super) fn new(check: &Check, address: String) -> Self {
        let (port, timeout, interval, target) = match check.http_check.as_option() {
            Some(http) => {
                let path = if http.path.is_empty() { "/" } else { &http.path };
                let target = Target::Http { path: path.to_owned() };
                (http.port, http.request_timeout_ms, http.interval_ms, target)
            }
            None => {
                let tcp = &check.tcp_check;
                (tcp.port, tcp.connect_timeout_ms, tcp.interval_ms, Target::Tcp)
            }
        };
        let given = |ms: u64| (ms > 0).then(|| Duration::from_millis(ms));
        Self {
            address,
            port,
            timeout: given(timeout).unwrap_or(TIMEOUT),
            interval: given(interval),
            target,
        }
    }

    /// Asks once. What is wrong is in the original helper's words (diego.md 13.4).
    pub(super) async fn attempt(&self) -> Result<(), String> {
        let begun = Instant::now();
        let asked = async {
            match &self.target {
                Target::Tcp => self.connect().await.map(|_| None),
                Target::Http { path } => self.status(path).await.map(Some),
            }
        };
        let result = match tokio::time::timeout(self.timeout, asked).await {
            Ok(Ok(None | Some(200))) => return Ok(()),
            Ok(Ok(Some(status))) => {
                format!("received status code {status} in {}ms", begun.elapsed().as_millis())
            }
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                "connection refused".into()
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("timed out after {:.2} seconds", self.timeout.as_secs_f64()),
        };
        let port = self.port;
        Err(match &self.target {
            Target::Tcp => {
                format!("failed to make TCP connection to {}:{port}: {result}", self.address)
            }
            Target::Http { path } => {
                format!("failed to make HTTP request to '{path}' on port {port}: {result}")
            }
        })
    }

    async fn connect(&self) -> std::io::Result<TcpStream> {
        let port = u16::try_from(self.port).map_err(std::io::Error::other)?;
        TcpStream::connect((self.address.as_str(), port)).await
    }

    async fn status(&self, path: &str) -> std::io::Result<u16> {
        let mut path = path.to_owned();
        for _ in 0..=REDIRECTS {
            let stream = TokioIo::new(self.connect().await?);
            let (mut sender, connection) = hyper::client::conn::http1::handshake(stream)
                .await
                .map_err(std::io::Error::other)?;
            let request = Request::get(&path)
                .header(HOST, format!("{}:{}", self.address, self.port))
                .header(USER_AGENT, "diego-healthcheck")
                .header("X-Forwarded-Proto", "https")
                .header(CONNECTION, "close")
                .body(transport::empty())
                .map_err(std::io::Error::other)?;
            let answer = sender.send_request(request);
            tokio::pin!(answer, connection);
            // The connection is driven here, and dropped with the answer's body unread. It may end
            // together with the answer.
            let answer = tokio::select! {
                biased;
                answer = &mut answer => answer,
                _ = &mut connection => answer.await,
            };
            let answer = answer.map_err(std::io::Error::other)?;
            let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            match location.filter(|_| answer.status().is_redirection()) {
                Some(location) => path = self.same_app(location)?,
                None => return Ok(answer.status().as_u16()),
            }
        }
        Err(std::io::Error::other(format!("stopped after {REDIRECTS} redirects")))
    }

    /// Only this app is probed: a redirect to another host is a failure.
    fn same_app(&self, location: &str) -> std::io::Result<String> {
        let own = format!("http://{}:{}", self.address, self.port);
        let path = location.strip_prefix(&own).unwrap_or(location);
        if path.is_empty() {
            return Ok("/".into());
        }
        if path.starts_with('/') && !path.starts_with("//") {
            return Ok(path.to_owned());
        }
        Err(std::io::Error::other(format!("it redirects to another host: {location}")))
    }
}

#[cfg(test)]
mod tests {
    use bbs_models::{Check, HTTPCheck, TCPCheck};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::Probe;

    fn http(port: u16) -> Probe {
        let check = HTTPCheck { port: port.into(), path: "/up".into(), ..Default::default() };
        Probe::new(&Check { http_check: check.into(), ..Default::default() }, "127.0.0.1".into())
    }

    fn tcp(port: u16) -> Probe {
        let check = TCPCheck { port: port.into(), connect_timeout_ms: 500, ..Default::default() };
        Probe::new(&Check { tcp_check: check.into(), ..Default::default() }, "127.0.0.1".into())
    }

    async fn server(answers: &'static [&'static str]) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = [0; 2048];
                let read = stream.read(&mut head).await.unwrap();
                assert!(String::from_utf8_lossy(&head[..read]).contains("diego-healthcheck"));
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        port
    }

    #[tokio::test]
    async fn only_200_passes() {
        let ok = server(&["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]).await;
        assert_eq!(http(ok).attempt().await, Ok(()));
        let other = server(&["HTTP/1.1 204 No Content\r\n\r\n"]).await;
        let detail = http(other).attempt().await.unwrap_err();
        assert!(
            detail.starts_with(&format!(
                "failed to make HTTP request to '/up' on port {other}: received status code 204 in "
            )),
            "{detail}"
        );
    }

    #[tokio::test]
    async fn redirects_within_the_app_are_followed() {
        let port = server(&[
            "HTTP/1.1 302 Found\r\nLocation: /in\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        ])
        .await;
        assert_eq!(http(port).attempt().await, Ok(()));
        let away =
            server(&["HTTP/1.1 302 Found\r\nLocation: http://x/\r\nContent-Length: 0\r\n\r\n"])
                .await;
        assert!(http(away).attempt().await.unwrap_err().contains("another host"));
    }

    #[tokio::test]
    async fn nobody_there_is_said_so() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(tcp(port).attempt().await, Ok(()));
        drop(listener);
        assert_eq!(
            tcp(port).attempt().await.unwrap_err(),
            format!("failed to make TCP connection to 127.0.0.1:{port}: connection refused")
        );
    }
}

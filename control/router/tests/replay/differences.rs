//! Where our router differs from the original on purpose: scenario, note of the step, reason. The step is
//! left out. A scenario's name alone with an empty note stands for the steps before its first note.

pub const DIFFERENCES: &[(&str, &str, &str)] = &[
    (
        "smuggling",
        "Content-Length and Transfer-Encoding",
        "refused with 400: whoever reads the length would see another end of the request",
    ),
    ("smuggling", "the same, TE first, whole chunked body", "as above"),
    ("smuggling", "GET with both, then a second request inside the body", "as above"),
    (
        "smuggling",
        "plain request on the TLS port",
        "the connection is closed without a word in plain text",
    ),
    (
        "http-1.0",
        "HTTP/1.2",
        "refused with 505 like other unknown versions, and not in the log as a request without status",
    ),
    (
        "headers",
        "Connection lists protected headers (job list)",
        "a client cannot take away X-Vcap-Request-Id, by which a request is found in logs",
    ),
    (
        "expect-100",
        "back end answers at once without 100",
        "the client is not told to send a body that nobody will read",
    ),
    (
        "retry",
        "first endpoint closes after reading the request, second is good (cookie sends to the first); \
         PUT with Idempotency-Key",
        "the second attempt goes to the other endpoint, not to the one that has just failed",
    ),
    (
        "timeouts",
        "back end answers and closes before the body came",
        "responses are always passed on while the request is still being sent, as by the original's \
         option enable_http1_concurrent_read_write: the client hears at once",
    ),
    ("timeouts", "nothing more from the router within 2 s", "as above"),
    ("limits", "URI of 60,000 bytes", "the request is in the log"),
    (
        "websocket",
        "POST upgrade",
        "no Content-Length in an interim response (RFC 9110, 8.6): the original sends the request's back",
    ),
    ("bad-responses", "status 0", "the request is in the log"),
];

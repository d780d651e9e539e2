//! The original's exchanges, with our router in the middle.

#![allow(missing_docs)]

mod authority;
mod replay {
    pub mod conversation;
    pub mod differences;
    pub mod normal;
    pub mod stage;
}

macro_rules! scenarios {
    ($($name:ident: $file:literal;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                replay::conversation::replay($file, include_str!(concat!("recordings/", $file, ".jsonl")))
                    .await;
            }
        )*
    };
}

scenarios! {
    lookup: "lookup";
    paths: "paths";
    methods: "methods";
    bodies: "bodies";
    http_1_0: "http-1.0";
    keep_alive: "keep-alive";
    keep_alive_off: "keep-alive-off";
    expect_100: "expect-100";
    expect_100_keep: "expect-100-keep";
    full_duplex: "full-duplex";
    smuggling: "smuggling";
    headers: "headers";
    xfp_force: "xfp-force";
    xfp_sanitize: "xfp-sanitize";
    app_instance: "app-instance";
    sticky: "sticky";
    sticky_secure: "sticky-secure";
    sticky_names: "sticky-names";
    lb_round_robin: "lb-round-robin";
    lb_least_connection: "lb-least-connection";
    websocket: "websocket";
    retry: "retry";
    retry_attempts: "retry-attempts";
    retry_attempts_5: "retry-attempts-5";
    empty_pool_404: "empty-pool-404";
    empty_pool_503: "empty-pool-503";
    nats_bad: "nats-bad";
    nats_register: "nats-register";
    nats_unregister: "nats-unregister";
    limits: "limits";
    limits_set: "limits-set";
    limits_conns: "limits-conns";
    timeouts: "timeouts";
    endpoint_timeout_off: "endpoint-timeout-off";
    bad_responses: "bad-responses";
    access_log_private: "access-log-private";
    status: "status";
}

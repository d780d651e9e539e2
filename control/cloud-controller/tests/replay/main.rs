//! The cf CLI's commands, as recorded, against a whole Cloud Controller: every request gets the
//! recorded status and every field that the recording names, and has its effect. What of the
//! recordings is left out, and why, is said in `tests/recordings/left-out.txt`.

mod cell;
mod effects;
mod platform;
mod recording;
mod rules;

use recording::{check_completeness, replay_all};

/// Tests, and the files that each of them replays.
macro_rules! replays {
    ($($test:ident: $($file:literal),+;)+) => {
        $(
            #[tokio::test]
            async fn $test() {
                $(replay_all($file).await;)+
            }
        )+

        #[test]
        fn nothing_is_left_out_without_a_reason() {
            check_completeness(&[$($($file),+),+]);
        }
    };
}

replays! {
    api: "api";
    authentication: "auth";
    login_and_target: "login", "target";
    orgs_and_spaces: "orgs", "spaces";
    routes_and_domains: "routes", "domains";
    buildpacks_and_stacks: "buildpacks", "stacks";
    environment_and_events: "env", "events";
    showing_apps: "app", "apps";
    logs: "logs";
    scaling_starting_and_stopping: "scale", "start-stop";
    deleting: "delete";
    pushing: "push";
    pushing_what_fails: "push-failures";
}

//! The cf CLI's commands, as recorded, against a whole Cloud Controller: every request gets the
//! recorded status and every field that the recording names, and has its effect.

mod cell;
mod effects;
mod platform;
mod recording;
mod rules;

use recording::{replay, replay_all};

#[tokio::test]
async fn api() {
    replay_all("api").await;
}

#[tokio::test]
async fn login_and_target() {
    replay_all("login").await;
    replay_all("target").await;
}

#[tokio::test]
async fn orgs_and_spaces() {
    replay_all("orgs").await;
    replay_all("spaces").await;
}

#[tokio::test]
async fn routes_and_domains() {
    replay_all("routes").await;
    replay_all("domains").await;
}

#[tokio::test]
async fn buildpacks_and_stacks() {
    replay_all("buildpacks").await;
    replay_all("stacks").await;
}

#[tokio::test]
async fn environment_and_events() {
    replay_all("env").await;
    replay_all("events").await;
}

#[tokio::test]
async fn showing_apps() {
    replay_all("app").await;
    replay_all("apps").await;
}

#[tokio::test]
async fn scaling_starting_and_stopping() {
    replay_all("scale").await;
    replay_all("start-stop").await;
}

#[tokio::test]
async fn deleting() {
    replay_all("delete").await;
}

#[tokio::test]
async fn pushing() {
    for case in ["push-manifest", "push-nomanifest"] {
        replay("push", case).await;
    }
    replay("push-failures", "push-staging-failed").await;
}

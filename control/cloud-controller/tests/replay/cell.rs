//! A runtime that keeps its state in memory: what is desired runs at once, what is staged becomes a
//! droplet, and both can be made to fail.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use cloud_controller::recipe::{BuildpackRecipe, RunRecipe, StagingRecipe};
use cloud_controller::{
    Desired, Instance, InstancePort, InstanceState, Runtime, RuntimeError, Staging, StagingAuth,
};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::Request;
use serde_json::json;
use tokio::sync::Semaphore;
use transport::Target;
use uaa::{Peer, Secret};

#[derive(Debug, Default)]
pub struct State {
    pub desired: HashMap<String, RunRecipe>,
    pub staged: Vec<StagingRecipe>,
    pub staging: Vec<String>,
    /// Instances that were asked to stop.
    pub stopped: Vec<(String, u32)>,
    pub fresh: u32,
    /// How often somebody asked for instances.
    pub looks: u32,
    /// When a build was about to be told that it has ended.
    pub staged_at: Option<Instant>,
}

/// What a controller's configuration has to say for its cell.
pub fn staging() -> Staging {
    let auth = StagingAuth { user: "cell".into(), password: Secret("p@ss".into()) };
    Staging { auth, ..Staging::default() }
}

#[derive(Clone, Debug)]
pub struct Cell {
    pub state: Arc<Mutex<State>>,
    /// What becomes of instances.
    pub become_: Arc<Mutex<InstanceState>>,
    /// Exit code of the builder.
    pub builder: Arc<Mutex<u32>>,
    /// One that a build takes and gives back; who holds it holds builds up.
    pub builds: Arc<Semaphore>,
    /// What a droplet has, with commands.
    pub process_types: Arc<Mutex<serde_json::Value>>,
    /// The controller's internal routes.
    pub internal: Arc<Mutex<Option<Peer>>>,
}

impl Cell {
    pub fn new() -> Self {
        Self {
            state: Arc::default(),
            become_: Arc::new(Mutex::new(InstanceState::Running)),
            builder: Arc::default(),
            builds: Arc::new(Semaphore::new(1)),
            process_types: Arc::new(Mutex::new(json!({"web": "$HOME/boot.sh"}))),
            internal: Arc::default(),
        }
    }

    /// Posts to the controller; where it is counts for nothing.
    pub async fn post(&self, url: &str, body: Vec<u8>) -> http::StatusCode {
        let Target { path, credentials, .. } = url.parse().unwrap();
        let request = Request::post(path)
            .header("content-type", "application/json")
            .header("authorization", credentials.unwrap());
        let request = request.body(Bytes::from(body)).unwrap();
        let peer = self.internal.lock().unwrap().clone().unwrap();
        peer.send(request).await.unwrap().status()
    }

    /// What a cell does with a staging task.
    async fn build(self, recipe: StagingRecipe) {
        let _turn = self.builds.acquire().await.unwrap();
        let code = *self.builder.lock().unwrap();
        let completion = if code == 0 {
            assert_eq!(self.post(&recipe.droplet_upload, b"droplet".to_vec()).await, 201);
            assert_eq!(self.post(&recipe.cache_upload, b"cache".to_vec()).await, 200);
            let BuildpackRecipe::Admin { key, .. } = &recipe.buildpacks[0] else {
                panic!("{:?} is not installed", recipe.buildpacks[0]);
            };
            let result = json!({
                "lifecycle_type": "buildpack",
                "lifecycle_metadata": {
                    "buildpack_key": key,
                    "detected_buildpack": "staticfile",
                    "buildpacks": [{"key": key, "name": "staticfile_buildpack", "version": "1.6.0"}],
                },
                "process_types": *self.process_types.lock().unwrap(),
                "execution_metadata": "",
            });
            json!({"task_guid": recipe.build_guid, "failed": false, "result": result.to_string()})
        } else {
            let reason = format!("Exited with status {code}");
            json!({"task_guid": recipe.build_guid, "failed": true, "failure_reason": reason})
        };
        {
            let mut state = self.state.lock().unwrap();
            state.staging.retain(|guid| *guid != recipe.build_guid);
            state.staged_at = Some(Instant::now());
        }
        assert_eq!(self.post(&recipe.completion, completion.to_string().into_bytes()).await, 200);
    }
}

impl Runtime for Cell {
    fn desire<'a>(&'a self, recipe: &'a RunRecipe) -> BoxFuture<'a, Result<(), RuntimeError>> {
        let mut state = self.state.lock().unwrap();
        state.desired.insert(recipe.process_guid.clone(), recipe.clone());
        async { Ok(()) }.boxed()
    }

    fn update<'a>(&'a self, recipe: &'a RunRecipe) -> BoxFuture<'a, Result<bool, RuntimeError>> {
        let mut state = self.state.lock().unwrap();
        let known = match state.desired.get_mut(&recipe.process_guid) {
            Some(known) => {
                known.instances = recipe.instances;
                known.routes = recipe.routes.clone();
                known.annotation = recipe.annotation.clone();
                true
            }
            None => false,
        };
        async move { Ok(known) }.boxed()
    }

    fn stop<'a>(&'a self, process_guid: &'a str) -> BoxFuture<'a, Result<(), RuntimeError>> {
        self.state.lock().unwrap().desired.remove(process_guid);
        async { Ok(()) }.boxed()
    }

    fn stop_instance<'a>(
        &'a self,
        process_guid: &'a str,
        index: u32,
    ) -> BoxFuture<'a, Result<bool, RuntimeError>> {
        let mut state = self.state.lock().unwrap();
        let known = state.desired.get(process_guid).is_some_and(|recipe| index < recipe.instances);
        if known {
            state.stopped.push((process_guid.to_owned(), index));
        }
        async move { Ok(known) }.boxed()
    }

    fn instances<'a>(
        &'a self,
        process_guid: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Instance>, RuntimeError>> {
        let mut now = self.state.lock().unwrap();
        now.looks += 1;
        let wanted = now.desired.get(process_guid).map(|one| one.instances);
        drop(now);
        let state = *self.become_.lock().unwrap();
        let port = InstancePort {
            external: 61001,
            internal: 8080,
            external_tls_proxy: 61002,
            internal_tls_proxy: 61443,
        };
        let instances = (0..wanted.unwrap_or(0))
            .map(|index| Instance {
                index,
                state,
                details: (state == InstanceState::Crashed).then(|| "exit 1".to_owned()),
                routable: state == InstanceState::Running,
                instance_guid: format!("instance-{index}"),
                host: "10.0.0.1".into(),
                internal_ip: "10.255.0.1".into(),
                ports: vec![port],
                since: 0,
            })
            .collect();
        async move { Ok(instances) }.boxed()
    }

    fn desired(&self) -> BoxFuture<'_, Result<Vec<Desired>, RuntimeError>> {
        let state = self.state.lock().unwrap();
        let all = state.desired.values().map(|recipe| Desired {
            process_guid: recipe.process_guid.clone(),
            annotation: recipe.annotation.clone(),
        });
        let all = all.collect();
        async move { Ok(all) }.boxed()
    }

    fn bump_freshness(&self) -> BoxFuture<'_, Result<(), RuntimeError>> {
        self.state.lock().unwrap().fresh += 1;
        async { Ok(()) }.boxed()
    }

    fn stage<'a>(&'a self, recipe: &'a StagingRecipe) -> BoxFuture<'a, Result<(), RuntimeError>> {
        let mut state = self.state.lock().unwrap();
        state.staging.push(recipe.build_guid.clone());
        state.staged.push(recipe.clone());
        tokio::spawn(self.clone().build(recipe.clone()));
        async { Ok(()) }.boxed()
    }

    fn cancel<'a>(&'a self, task_guid: &'a str) -> BoxFuture<'a, Result<(), RuntimeError>> {
        self.state.lock().unwrap().staging.retain(|guid| guid != task_guid);
        async { Ok(()) }.boxed()
    }

    fn staging(&self) -> BoxFuture<'_, Result<Vec<String>, RuntimeError>> {
        let staging = self.state.lock().unwrap().staging.clone();
        async move { Ok(staging) }.boxed()
    }
}

//! Routes, and what every answer has.

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{delete, get, patch, post, put};
use http::{HeaderValue, Uri};
use tower::ServiceExt;

use crate::CloudController;
use crate::error::ApiError;
use crate::resources::{
    app_actions, app_env, apps, buildpacks, builds, collections, destinations, domains, droplets,
    events, flags, internal, jobs, manifests, orgs, packages, processes, quotas, roles, root,
    routes, security_groups, spaces, stacks, stats, users,
};

/// The most that a JSON or YAML body may hold, in bytes. Uploads have limits of their own.
const BODY_LIMIT: usize = 16 << 20;

impl CloudController {
    /// What answers the public API.
    pub fn routes(&self) -> Router {
        finish(self.root_routes().merge(self.platform_routes()).merge(self.app_routes()), self)
    }

    /// What answers cells and the BBS. These show a password; without one there are buildpacks, the
    /// droplet whose digest somebody knows, and what a user's token allows.
    pub fn internal_routes(&self) -> Router {
        let routes = Router::new()
            .route("/internal/v3/staging/{build}/build_completed", post(internal::build_completed))
            .route("/v1/droplet/{build}", post(internal::upload_droplet))
            .route("/v1/build_artifacts/{app}", post(internal::upload_cache))
            .route("/staging/packages/{guid}", get(internal::download_package))
            .route("/staging/v3/droplets/{guid}/download", get(internal::download_droplet))
            .route(
                "/staging/v3/buildpack_cache/{stack}/{app}/download",
                get(internal::download_cache),
            )
            .route("/internal/v2/buildpacks/{guid}/download", get(internal::download_buildpack))
            .route(
                "/internal/v2/droplets/{app}/{checksum}/download",
                get(internal::download_app_droplet),
            )
            .route(
                "/internal/v4/droplets/{app}/{checksum}/download",
                get(internal::download_app_droplet),
            )
            .route("/internal/v4/apps/{process}/crashed", post(internal::crashed))
            .route("/internal/v4/log_access/{app}", get(internal::log_access));
        finish(routes, self)
    }

    fn root_routes(&self) -> Router<Self> {
        Router::new()
            .route("/", get(root::root))
            .route("/v3", get(root::v3))
            .route("/v3/info", get(root::info))
            .route("/v3/jobs/{guid}", get(jobs::show))
            .route("/v3/audit_events", get(events::list))
            .route("/v3/audit_events/{guid}", get(events::show))
            .route("/v3/feature_flags", get(flags::list))
            .route("/v3/feature_flags/{name}", get(flags::show).patch(flags::update))
            .route(
                "/v3/environment_variable_groups/{name}",
                get(flags::group).patch(flags::update_group),
            )
            .route("/v3/isolation_segments", get(collections::isolation_segments))
            .route("/v3/service_instances", get(collections::empty))
            .route("/v3/service_credential_bindings", get(collections::empty))
            .route("/v3/service_route_bindings", get(collections::empty))
            .route("/v3/service_brokers", get(collections::empty))
            .route("/v3/service_offerings", get(collections::empty))
            .route("/v3/service_plans", get(collections::empty))
            .route("/v3/deployments", get(collections::empty))
    }

    fn platform_routes(&self) -> Router<Self> {
        Router::new()
            .route("/v3/organizations", get(orgs::list).post(orgs::create))
            .route(
                "/v3/organizations/{guid}",
                get(orgs::show).patch(orgs::update).merge(delete(orgs::remove)),
            )
            .route("/v3/organizations/{guid}/domains", get(domains::of_org))
            .route("/v3/organizations/{guid}/domains/default", get(domains::default_of_org))
            .route("/v3/organizations/{guid}/users", get(users::of_org))
            .route(
                "/v3/organizations/{guid}/relationships/default_isolation_segment",
                get(collections::org_isolation_segment),
            )
            .route("/v3/organization_quotas", get(quotas::list))
            .route("/v3/organization_quotas/{guid}", get(quotas::show))
            .route("/v3/spaces", get(spaces::list).post(spaces::create))
            .route(
                "/v3/spaces/{guid}",
                get(spaces::show).patch(spaces::update).merge(delete(spaces::remove)),
            )
            .route("/v3/spaces/{guid}/features/ssh", get(spaces::ssh).patch(spaces::set_ssh))
            .route("/v3/spaces/{guid}/users", get(users::of_space))
            .route(
                "/v3/spaces/{guid}/relationships/isolation_segment",
                get(collections::space_isolation_segment),
            )
            .route("/v3/spaces/{guid}/running_security_groups", get(security_groups::running))
            .route("/v3/spaces/{guid}/staging_security_groups", get(security_groups::staging))
            .route("/v3/spaces/{guid}/routes", delete(routes::remove_unmapped))
            .route("/v3/spaces/{guid}/actions/apply_manifest", post(manifests::apply))
            .route("/v3/spaces/{guid}/manifest_diff", post(manifests::diff))
            .route("/v3/security_groups", get(security_groups::list))
            .route("/v3/roles", get(roles::list).post(roles::create))
            .route("/v3/roles/{guid}", get(roles::show).merge(delete(roles::remove)))
            .route("/v3/users", get(users::list).post(users::create))
            .route("/v3/users/{guid}", get(users::show).merge(delete(users::remove)))
            .route("/v3/domains", get(domains::list).post(domains::create))
            .route(
                "/v3/domains/{guid}",
                get(domains::show).patch(domains::update).merge(delete(domains::remove)),
            )
            .route("/v3/domains/{guid}/route_reservations", get(routes::reservations))
            .route("/v3/domains/{guid}/relationships/shared_organizations", post(domains::share))
            .route("/v3/stacks", get(stacks::list))
            .route("/v3/stacks/{guid}", get(stacks::show))
            .route("/v3/stacks/{guid}/apps", get(apps::of_stack))
            .route("/v3/buildpacks", get(buildpacks::list).post(buildpacks::create))
            .route(
                "/v3/buildpacks/{guid}",
                get(buildpacks::show).patch(buildpacks::update).merge(delete(buildpacks::remove)),
            )
            .route(
                "/v3/buildpacks/{guid}/upload",
                post(buildpacks::upload).layer(DefaultBodyLimit::disable()),
            )
            .route("/v3/routes", get(routes::list).post(routes::create))
            .route(
                "/v3/routes/{guid}",
                get(routes::show).patch(routes::update).merge(delete(routes::remove)),
            )
            .route(
                "/v3/routes/{guid}/destinations",
                get(destinations::list).post(destinations::add).patch(destinations::replace),
            )
            .route("/v3/routes/{guid}/destinations/{destination}", delete(destinations::remove))
    }

    fn app_routes(&self) -> Router<Self> {
        Router::new()
            .route("/v3/apps", get(apps::list).post(apps::create))
            .route(
                "/v3/apps/{guid}",
                get(apps::show).patch(apps::update).merge(delete(apps::remove)),
            )
            .route("/v3/apps/{guid}/actions/start", post(app_actions::start))
            .route("/v3/apps/{guid}/actions/stop", post(app_actions::stop))
            .route("/v3/apps/{guid}/actions/restart", post(app_actions::restart))
            .route("/v3/apps/{guid}/builds", get(builds::of_app))
            .route("/v3/apps/{guid}/droplets", get(droplets::of_app))
            .route("/v3/apps/{guid}/droplets/current", get(droplets::current))
            .route("/v3/apps/{guid}/env", get(app_env::show))
            .route(
                "/v3/apps/{guid}/environment_variables",
                get(app_env::variables).patch(app_env::set_variables),
            )
            .route("/v3/apps/{guid}/features", get(apps::features))
            .route("/v3/apps/{guid}/features/{name}", get(apps::feature).patch(apps::set_feature))
            .route("/v3/apps/{guid}/manifest", get(manifests::of_app))
            .route("/v3/apps/{guid}/packages", get(packages::of_app))
            .route("/v3/apps/{guid}/permissions", get(apps::permissions))
            .route("/v3/apps/{guid}/processes", get(processes::of_app))
            .route(
                "/v3/apps/{guid}/processes/{type}",
                get(processes::show_of_app).patch(processes::update_of_app),
            )
            .route("/v3/apps/{guid}/processes/{type}/actions/scale", post(processes::scale_of_app))
            .route("/v3/apps/{guid}/processes/{type}/stats", get(stats::of_app))
            .route("/v3/apps/{guid}/processes/{type}/instances/{index}", delete(stats::stop_of_app))
            .route(
                "/v3/apps/{guid}/relationships/current_droplet",
                get(app_actions::current_droplet).patch(app_actions::set_current_droplet),
            )
            .route("/v3/apps/{guid}/routes", get(routes::of_app))
            .route("/v3/apps/{guid}/sidecars", get(processes::sidecars_of_app))
            .route("/v3/apps/{guid}/ssh_enabled", get(apps::ssh_enabled))
            .route("/v3/processes", get(processes::list))
            .route("/v3/processes/{guid}", get(processes::show).patch(processes::update))
            .route("/v3/processes/{guid}/actions/scale", post(processes::scale))
            .route("/v3/processes/{guid}/sidecars", get(processes::sidecars))
            .route("/v3/processes/{guid}/stats", get(stats::show))
            .route("/v3/processes/{guid}/process_instances", get(stats::instances))
            .route("/v3/processes/{guid}/instances/{index}", delete(stats::stop))
            .route("/v3/packages", get(packages::list).post(packages::create))
            .route(
                "/v3/packages/{guid}",
                get(packages::show).patch(packages::update).merge(delete(packages::remove)),
            )
            .route("/v3/packages/{guid}/droplets", get(droplets::of_package))
            .route("/v3/packages/{guid}/download", get(packages::download))
            .route(
                "/v3/packages/{guid}/upload",
                post(packages::upload).layer(DefaultBodyLimit::disable()),
            )
            .route("/v3/resource_matches", post(packages::resource_matches))
            .route("/v3/builds", get(builds::list).post(builds::create))
            .route("/v3/builds/{guid}", get(builds::show).patch(builds::update))
            .route("/v3/droplets", get(droplets::list))
            .route(
                "/v3/droplets/{guid}",
                get(droplets::show).patch(droplets::update).merge(delete(droplets::remove)),
            )
            .route("/v3/droplets/{guid}/download", get(droplets::download))
            .route("/healthz", get(|| async { "OK\n" }).merge(put(unknown)).merge(patch(unknown)))
    }
}

async fn unknown() -> ApiError {
    ApiError::unknown_request()
}

/// Adds what every answer has, and answers what no route matches.
fn finish(routes: Router<CloudController>, controller: &CloudController) -> Router {
    let routes = routes
        .fallback(unknown)
        .method_not_allowed_fallback(unknown)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(from_fn(request_id))
        .with_state(controller.clone());
    // Some clients end an address with a slash, which the router takes for another one.
    Router::new().fallback(move |mut request: Request| async move {
        if let Some(uri) = without_slash(request.uri()) {
            *request.uri_mut() = uri;
        }
        routes.oneshot(request).await
    })
}

fn without_slash(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    if path.len() < 2 || !path.ends_with('/') {
        return None;
    }
    let path = path.trim_end_matches('/');
    let path = if path.is_empty() { "/" } else { path };
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    format!("{path}{query}").parse().ok()
}

/// Names the request, by the client's name for it and one of ours, as the original does.
async fn request_id(request: Request, next: Next) -> Response {
    const HEADER: &str = "x-vcap-request-id";
    let own = uuid::Uuid::new_v4();
    let given = request.headers().get(HEADER).and_then(|value| value.to_str().ok());
    let plain =
        |id: &&str| id.len() <= 128 && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    let id = match given.filter(plain) {
        Some(given) => format!("{given}::{own}"),
        None => own.to_string(),
    };
    let mut response = next.run(request).await;
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HEADER, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_at_the_end_does_not_count() {
        let strip = |uri: &str| without_slash(&uri.parse().unwrap()).map(|uri| uri.to_string());
        assert_eq!(strip("/v3/apps/?a=b%2C").as_deref(), Some("/v3/apps?a=b%2C"));
        assert_eq!(strip("/v3/apps"), None);
        assert_eq!(strip("/"), None);
        assert_eq!(strip("//").as_deref(), Some("/"));
    }
}

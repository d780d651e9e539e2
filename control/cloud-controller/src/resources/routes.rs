//! Routes.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use http::StatusCode;
use serde_json::{Map, Value, json};
use sqlx::SqliteConnection;

use super::{Answer, App, apps, destinations, find, flags, link, spaces::show_space, to_one};
use crate::CloudController;
use crate::body::Fields;
use crate::caller::{Caller, SpaceAccess};
use crate::error::{ApiError, is_taken};
use crate::job::{self, Work};
use crate::metadata::Metadata;
use crate::page::{self, Paging};
use crate::query::Query;
use crate::running;
use crate::store::domains::{self, Domain};
use crate::store::events::{Party, Place, record};
use crate::store::orgs::Space;
use crate::store::processes;
use crate::store::routes::{self, Route};
use crate::store::select::{Select, by_guid};
use crate::store::set_metadata;
use crate::time;

pub(crate) async fn show_route(
    controller: &CloudController,
    conn: &mut SqliteConnection,
    route: &Route,
) -> Result<Value, ApiError> {
    let guid = &route.guid;
    let path = format!("/v3/routes/{guid}");
    let domain: Option<Domain> = by_guid(conn, "domains", &route.domain_guid).await?;
    let domain = domain.ok_or_else(|| ApiError::not_found("Route"))?;
    let leads_to = routes::destinations(conn, guid).await?;
    let leads_to: Vec<Value> = leads_to.iter().map(destinations::show_destination).collect();
    Ok(json!({
        "guid": guid,
        "protocol": "http",
        "created_at": time::show(route.created_at),
        "updated_at": time::show(route.updated_at),
        "host": route.host,
        "path": route.path,
        "port": null,
        "url": route.url(&domain.name),
        "destinations": leads_to,
        "options": route.options(),
        "metadata": Metadata::read(&route.labels, &route.annotations).show(),
        "relationships": {
            "space": to_one(Some(&route.space_guid)),
            "domain": to_one(Some(&route.domain_guid)),
        },
        "links": {
            "self": link(controller, &path),
            "space": link(controller, &format!("/v3/spaces/{}", route.space_guid)),
            "domain": link(controller, &format!("/v3/domains/{}", route.domain_guid)),
            "destinations": link(controller, &format!("{path}/destinations")),
        },
    }))
}

async fn page_of(
    controller: &CloudController,
    path: &str,
    query: &Query,
    mut select: Select,
) -> Answer {
    query.allow(&[
        "app_guids",
        "space_guids",
        "organization_guids",
        "domain_guids",
        "hosts",
        "paths",
        "ports",
        "service_instance_guids",
    ])?;
    let include = query.include(&["domain", "space", "space.organization"])?;
    select.filter(query, "space_guids", "routes.space_guid");
    select.filter(query, "domain_guids", "routes.domain_guid");
    // `hosts=` means the empty host, not any.
    select.filter(query, "hosts", "routes.host");
    select.filter(query, "paths", "routes.path").common_filters(query)?;
    if query.list("ports").is_some() || query.list("service_instance_guids").is_some() {
        // Only TCP routes have ports, and nothing is bound to a route yet.
        select.only("FALSE", [""; 0]);
    }
    if let Some(apps) = query.list("app_guids") {
        let mut of = Select::from("destinations");
        of.any("destinations.app_guid", &apps);
        select.within("routes.guid", "route_guid", &of);
    }
    if let Some(orgs) = query.list("organization_guids") {
        let mut spaces = Select::from("spaces");
        spaces.any("spaces.org_guid", &orgs);
        select.within("routes.space_guid", "guid", &spaces);
    }
    select.labels(query)?.order(query, &[])?;
    let paging = Paging::of(query)?;
    let mut conn = controller.store.read().await?;
    let (found, total) = select.page::<Route>(&mut conn, paging).await?;
    let mut shown = Vec::with_capacity(found.len());
    for route in &found {
        shown.push(show_route(controller, &mut conn, route).await?);
    }
    let included = included(controller, &mut conn, &found, &include).await?;
    Ok(Json(page::document(&controller.url(path), query, paging, total, shown, included)))
}

async fn included(
    controller: &CloudController,
    conn: &mut SqliteConnection,
    found: &[Route],
    include: &[String],
) -> Result<Option<Value>, ApiError> {
    if include.is_empty() {
        return Ok(None);
    }
    let unique = |guid: fn(&Route) -> &String| {
        let mut guids: Vec<String> = found.iter().map(|route| guid(route).clone()).collect();
        guids.sort_unstable();
        guids.dedup();
        guids
    };
    let mut included = json!({});
    if include.iter().any(|name| name == "domain") {
        let mut select = Select::from("domains");
        let found = select.any("domains.guid", &unique(|route| &route.domain_guid));
        let mut shown = Vec::new();
        for domain in found.all::<Domain>(conn).await? {
            shown.push(super::domains::show_domain(controller, conn, &domain).await?);
        }
        included["domains"] = shown.into();
    }
    if include.iter().any(|name| name.starts_with("space")) {
        let mut select = Select::from("spaces");
        let found = select.any("spaces.guid", &unique(|route| &route.space_guid));
        let spaces: Vec<Space> = found.all(conn).await?;
        included["spaces"] =
            spaces.iter().map(|space| show_space(controller, space, false)).collect();
    }
    Ok(Some(included))
}

/// `GET /v3/routes`.
pub(crate) async fn list(
    State(controller): App,
    caller: Caller,
    RawQuery(raw): RawQuery,
) -> Answer {
    let mut select = Select::from("routes");
    caller.only_visible_spaces(&mut select, "routes.space_guid");
    page_of(&controller, "/v3/routes", &Query::parse(raw.as_deref()), select).await
}

/// `GET /v3/apps/:guid/routes`.
pub(crate) async fn of_app(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
    RawQuery(raw): RawQuery,
) -> Answer {
    let mut conn = controller.store.read().await?;
    apps::access(&mut conn, &caller, &guid).await?;
    drop(conn);
    let mut of = Select::from("destinations");
    of.only("destinations.app_guid = ?", [&*guid]);
    let mut select = Select::from("routes");
    select.within("routes.guid", "route_guid", &of);
    let path = format!("/v3/apps/{guid}/routes");
    page_of(&controller, &path, &Query::parse(raw.as_deref()), select).await
}

/// A route that the caller sees, and what they may do in its space.
pub(crate) async fn access(
    conn: &mut SqliteConnection,
    caller: &Caller,
    guid: &str,
) -> Result<(Route, SpaceAccess), ApiError> {
    let route: Route = find(conn, "routes", "Route", guid, |select| {
        caller.only_visible_spaces(select, "routes.space_guid");
    })
    .await?;
    let space = caller.space(conn, &route.space_guid).await?;
    Ok((route, space))
}

/// `GET /v3/routes/:guid`.
pub(crate) async fn show(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
) -> Answer {
    let mut conn = controller.store.read().await?;
    let (route, _) = access(&mut conn, &caller, &guid).await?;
    Ok(Json(show_route(&controller, &mut conn, &route).await?))
}

/// What is wrong with a host, for one that is not empty.
pub(crate) fn host_fault(host: &str) -> Option<&'static str> {
    if host.len() > 63 {
        return Some("Host is too long (maximum is 63 characters)");
    }
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    (host != "*" && !host.chars().all(good)).then_some(
        "Host must be either \"*\" or contain only alphanumeric characters, \"_\", or \"-\"",
    )
}

/// What is wrong with a path, for one that is not empty.
pub(crate) fn path_fault(path: &str) -> Option<&'static str> {
    if path.len() > 128 {
        return Some("Path must be a maximum of 128 characters");
    }
    if !path.starts_with('/') {
        return Some("Path must begin with a /");
    }
    if path == "/" {
        return Some("Path cannot be a single slash");
    }
    if path.contains(['?', '#', '\0']) || path.chars().any(char::is_whitespace) {
        return Some("Path cannot contain a question mark");
    }
    None
}

/// What is wrong with options, of those that gorouter knows.
pub(crate) fn options_faults(options: &Map<String, Value>) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, value) in options {
        match (&**name, value) {
            (_, Value::Null) => {}
            ("loadbalancing", Value::String(kind))
                if ["round-robin", "least-connection"].contains(&&**kind) => {}
            ("loadbalancing", _) => faults.push(
                "Options Loadbalancing must be one of 'round-robin, least-connection' if present"
                    .to_owned(),
            ),
            _ => faults.push(format!("Options contains unknown option '{name}'")),
        }
    }
    faults
}

/// What a new route is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewRoute<'a> {
    pub space: &'a Space,
    pub domain: &'a Domain,
    pub host: &'a str,
    pub path: &'a str,
    pub options: &'a Map<String, Value>,
    pub metadata: &'a Metadata,
}

/// Checks that a new route may exist, and adds it.
pub(crate) async fn insert(
    controller: &CloudController,
    conn: &mut SqliteConnection,
    new: &NewRoute<'_>,
    actor: &Party,
    is_admin: bool,
) -> Result<String, ApiError> {
    let NewRoute { space, domain, host, path, options, metadata } = *new;
    let usable = domains::usable_by(conn, &space.org_guid).await?;
    if !usable.iter().any(|usable| usable.guid == domain.guid) {
        return Err(ApiError::unprocessable(format!(
            "Invalid domain. Domain '{}' is not available in organization.",
            domain.name
        )));
    }
    if let Some(fault) = (!host.is_empty()).then(|| host_fault(host)).flatten() {
        return Err(ApiError::unprocessable(fault));
    }
    if let Some(fault) = (!path.is_empty()).then(|| path_fault(path)).flatten() {
        return Err(ApiError::unprocessable(fault));
    }
    if domain.internal && !path.is_empty() {
        return Err(ApiError::unprocessable("Paths are not supported for internal domains."));
    }
    if domain.internal && host == "*" {
        return Err(ApiError::unprocessable(
            "Wildcard hosts are not supported for internal domains.",
        ));
    }
    let shared = domain.org_guid.is_none();
    if host.is_empty() && shared {
        return Err(ApiError::unprocessable(
            "Missing host. Routes in shared domains must have a host defined.",
        ));
    }
    if host == "*" && shared && !is_admin {
        return Err(ApiError::unprocessable("Wildcard host must be \"*\" with a private domain."));
    }
    let full = match host {
        "" => domain.name.clone(),
        host => format!("{host}.{}", domain.name),
    };
    if controller.config.is_reserved(&full) {
        return Err(ApiError::unprocessable("Route conflicts with a reserved system route."));
    }
    if !host.is_empty() && domains::exists(conn, &full).await? {
        return Err(ApiError::unprocessable(format!("Route conflicts with domain '{full}'.")));
    }
    let guid = routes::insert(conn, &space.guid, &domain.guid, host, path, options, metadata).await;
    let guid = guid.map_err(|err| match is_taken(&err) {
        true => taken(host, path, &domain.name),
        false => err.into(),
    })?;
    let target = Party::new("route", &guid, host);
    let place = Place { space_guid: Some(&space.guid), org_guid: None };
    let data = json!({"request": {"host": host, "path": path}});
    record(conn, "audit.route.create", actor, &target, place, &data).await?;
    Ok(guid)
}

/// Clients look for the first words.
fn taken(host: &str, path: &str, domain: &str) -> ApiError {
    let detail = match (host, path) {
        ("", "") => format!("Route already exists for domain '{domain}'."),
        (host, "") => format!("Route already exists with host '{host}' for domain '{domain}'."),
        ("", path) => format!("Route already exists with path '{path}' for domain '{domain}'."),
        (host, path) => format!(
            "Route already exists with host '{host}' and path '{path}' for domain '{domain}'."
        ),
    };
    ApiError::unprocessable(detail)
}

/// `POST /v3/routes`.
pub(crate) async fn create(
    State(controller): App,
    caller: Caller,
    mut fields: Fields,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let host = fields.string("host").unwrap_or_default();
    let path = fields.string("path").unwrap_or_default();
    if fields.integer("port", 0).is_some() {
        fields.fault("Port: TCP routes are not served yet");
    }
    let options = take_options(&mut fields);
    let change = fields.metadata();
    let (mut space_guid, mut domain_guid) = (None, None);
    if let Some(mut relationships) = fields.object("relationships") {
        space_guid = relationships.guid("space");
        domain_guid = relationships.guid("domain");
        fields.absorb(relationships);
    }
    if space_guid.is_none() || domain_guid.is_none() {
        fields.fault("Relationships must include a space and a domain");
    }
    fields.finish()?;
    let metadata = Metadata::default().merge(&change).map_err(ApiError::unprocessable_all)?;
    let mut tx = controller.store.begin().await?;
    let access = caller.space(&mut tx, &space_guid.unwrap_or_default()).await;
    let access = access.map_err(|err| match err.status {
        StatusCode::NOT_FOUND => ApiError::unprocessable(
            "Invalid space. Ensure that the space exists and you have access to it.",
        ),
        _ => err,
    })?;
    access.require_supporter()?;
    flags::require(&mut tx, &caller, "route_creation").await?;
    let domain: Option<Domain> =
        by_guid(&mut tx, "domains", &domain_guid.unwrap_or_default()).await?;
    let domain = domain.ok_or_else(|| {
        ApiError::unprocessable(
            "Invalid domain. Ensure that the domain exists and you have access to it.",
        )
    })?;
    let new = NewRoute {
        space: &access.space,
        domain: &domain,
        host: &host,
        path: &path,
        options: &options,
        metadata: &metadata,
    };
    let guid = insert(&controller, &mut tx, &new, &caller.party(), caller.is_admin()).await?;
    let route: Option<Route> = by_guid(&mut tx, "routes", &guid).await?;
    let route = route.ok_or_else(|| ApiError::not_found("Route"))?;
    let shown = show_route(&controller, &mut tx, &route).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(shown)))
}

/// `options` without those that are null.
fn take_options(fields: &mut Fields) -> Map<String, Value> {
    match fields.take("options") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(options)) => {
            options_faults(&options).into_iter().for_each(|fault| fields.fault(fault));
            options
        }
        Some(_) => {
            fields.fault("Options must be an object");
            Map::new()
        }
    }
}

/// `PATCH /v3/routes/:guid`: options, labels and annotations.
pub(crate) async fn update(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
    mut fields: Fields,
) -> Answer {
    let change = take_options(&mut fields);
    let metadata = fields.metadata();
    fields.finish()?;
    let mut tx = controller.store.begin().await?;
    let (route, space) = access(&mut tx, &caller, &guid).await?;
    space.require_supporter()?;
    let own = Metadata::read(&route.labels, &route.annotations);
    let own = own.merge(&metadata).map_err(ApiError::unprocessable_all)?;
    set_metadata(&mut tx, "routes", &guid, &own).await?;
    let mut options = route.options();
    for (name, value) in change {
        match value {
            Value::Null => drop(options.shift_remove(&name)),
            value => drop(options.insert(name, value)),
        }
    }
    routes::set_options(&mut tx, &guid, &options).await?;
    touch_apps(&mut tx, &guid).await?;
    let route: Option<Route> = by_guid(&mut tx, "routes", &guid).await?;
    let route = route.ok_or_else(|| ApiError::not_found("Route"))?;
    let leads_to = routes::destinations(&mut tx, &guid).await?;
    let shown = show_route(&controller, &mut tx, &route).await?;
    tx.commit().await?;
    for destination in leads_to {
        running::settle(&controller, &destination.app_guid, &[]).await;
    }
    Ok(Json(shown))
}

/// Processes that a route leads to have changed, as the runtime sees them.
pub(crate) async fn touch_apps(
    conn: &mut SqliteConnection,
    route_guid: &str,
) -> Result<(), sqlx::Error> {
    for destination in routes::destinations(conn, route_guid).await? {
        touch(conn, &destination.app_guid, &destination.process_type).await?;
    }
    Ok(())
}

/// A process has changed, as the runtime sees it.
pub(crate) async fn touch(
    conn: &mut SqliteConnection,
    app_guid: &str,
    kind: &str,
) -> Result<(), sqlx::Error> {
    if let Some(mut process) = processes::by_type(conn, app_guid, kind).await? {
        processes::update(conn, &mut process).await?;
    }
    Ok(())
}

/// `DELETE /v3/routes/:guid`.
pub(crate) async fn remove(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
) -> Result<Response, ApiError> {
    let mut tx = controller.store.begin().await?;
    let (_, space) = access(&mut tx, &caller, &guid).await?;
    space.require_supporter()?;
    job::accept(&controller, tx, Work::DeleteRoute { guid }, caller.party()).await
}

/// `DELETE /v3/spaces/:guid/routes?unmapped=true`.
pub(crate) async fn remove_unmapped(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
    RawQuery(raw): RawQuery,
) -> Result<Response, ApiError> {
    if Query::parse(raw.as_deref()).get("unmapped") != Some("true") {
        return Err(ApiError::unprocessable(
            "Mass delete not supported for routes. Use 'unmapped' parameter to delete all \
             unmapped routes.",
        ));
    }
    let mut tx = controller.store.begin().await?;
    caller.space(&mut tx, &guid).await?.require_supporter()?;
    let work = Work::DeleteUnmappedRoutes { space_guid: guid };
    job::accept(&controller, tx, work, caller.party()).await
}

/// `GET /v3/domains/:guid/route_reservations`: whether a route exists, in whatever space.
pub(crate) async fn reservations(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
    RawQuery(raw): RawQuery,
) -> Answer {
    let query = Query::parse(raw.as_deref());
    query.allow(&["host", "path", "port"])?;
    super::domains::require_visible(&controller, &caller, &guid).await?;
    let mut conn = controller.store.read().await?;
    let (host, path) = (query.get("host").unwrap_or(""), query.get("path").unwrap_or(""));
    let found = routes::find(&mut conn, &guid, host, path).await?;
    let matching = found.is_some() && query.get("port").is_none();
    Ok(Json(json!({"matching_route": matching})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_paths_have_rules() {
        for host in ["a", "a-b", "a_b", "*", "A1"] {
            assert_eq!(host_fault(host), None, "{host}");
        }
        for host in ["a b", "a/b", "a.b", "*.a", "a..b", ".", &"x".repeat(64)] {
            assert!(host_fault(host).is_some(), "{host}");
        }
        assert_eq!(path_fault("/p/q"), None);
        for path in ["p", "/", "/a?b", "/a b", &format!("/{}", "x".repeat(128))] {
            assert!(path_fault(path).is_some(), "{path}");
        }
    }
}

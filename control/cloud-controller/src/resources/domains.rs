//! Domains.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};
use sqlx::SqliteConnection;

use super::{Answer, App, link, to_one};
use crate::CloudController;
use crate::body::Fields;
use crate::caller::Caller;
use crate::config::Config;
use crate::error::{ApiError, is_taken};
use crate::job::{self, Work};
use crate::metadata::Metadata;
use crate::page::{self, Paging};
use crate::query::Query;
use crate::store::domains::{self, Domain};
use crate::store::events::{Party, Place, record};
use crate::store::orgs::Org;
use crate::store::select::{Select, by_guid};
use crate::store::set_metadata;
use crate::time;

pub(crate) async fn show_domain(
    controller: &CloudController,
    conn: &mut SqliteConnection,
    domain: &Domain,
) -> Result<Value, ApiError> {
    let guid = &domain.guid;
    let path = format!("/v3/domains/{guid}");
    let shared: Vec<Value> =
        domains::shares(conn, guid).await?.into_iter().map(|guid| json!({"guid": guid})).collect();
    let mut links = json!({
        "self": link(controller, &path),
        "route_reservations": link(controller, &format!("{path}/route_reservations")),
    });
    if let Some(org) = &domain.org_guid {
        links["organization"] = link(controller, &format!("/v3/organizations/{org}"));
        let shares = format!("{path}/relationships/shared_organizations");
        links["shared_organizations"] = link(controller, &shares);
    }
    Ok(json!({
        "guid": guid,
        "created_at": time::show(domain.created_at),
        "updated_at": time::show(domain.updated_at),
        "name": domain.name,
        "internal": domain.internal,
        "router_group": null,
        "supported_protocols": ["http"],
        "relationships": {
            "organization": to_one(domain.org_guid.as_deref()),
            "shared_organizations": {"data": shared},
        },
        "metadata": Metadata::read(&domain.labels, &domain.annotations).show(),
        "links": links,
    }))
}

/// Shared by all, of an org that the caller sees, or shared with one.
fn visible(caller: &Caller, select: &mut Select) {
    if caller.reads_all() {
        return;
    }
    let mut shared = Select::from("domain_shares");
    caller.only_visible_orgs(&mut shared, "domain_shares.org_guid");
    let mut with_org = Select::from("domains");
    with_org.within("domains.guid", "domain_guid", &shared);
    let mut own = Select::from("domains");
    caller.only_visible_orgs(&mut own, "domains.org_guid");
    let mut private = Select::from("domains");
    private.either(own, with_org);
    let mut open = Select::from("domains");
    open.only("domains.org_guid IS NULL", [""; 0]);
    select.either(open, private);
}

async fn page_of(
    controller: &CloudController,
    path: &str,
    query: &Query,
    select: &mut Select,
) -> Answer {
    query.allow(&["names", "organization_guids"])?;
    select.filter(query, "names", "domains.name");
    select.filter(query, "organization_guids", "domains.org_guid").common_filters(query)?;
    select.labels(query)?.order(query, &[])?;
    let paging = Paging::of(query)?;
    let mut conn = controller.store.read().await?;
    let (found, total) = select.page::<Domain>(&mut conn, paging).await?;
    let mut shown = Vec::with_capacity(found.len());
    for domain in &found {
        shown.push(show_domain(controller, &mut conn, domain).await?);
    }
    Ok(Json(page::document(&controller.url(path), query, paging, total, shown, None)))
}

/// `GET /v3/domains`.
pub(crate) async fn list(
    State(controller): App,
    caller: Caller,
    RawQuery(raw): RawQuery,
) -> Answer {
    let mut select = Select::from("domains");
    visible(&caller, &mut select);
    page_of(&controller, "/v3/domains", &Query::parse(raw.as_deref()), &mut select).await
}

/// `GET /v3/organizations/:guid/domains`: those that the org may use.
pub(crate) async fn of_org(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
    RawQuery(raw): RawQuery,
) -> Answer {
    let mut conn = controller.store.read().await?;
    caller.org(&mut conn, &guid).await?;
    drop(conn);
    let mut select = Select::from("domains");
    select.only(
        "domains.org_guid IS NULL OR domains.org_guid = ? OR domains.guid IN \
         (SELECT domain_guid FROM domain_shares WHERE org_guid = ?)",
        [&*guid, &*guid],
    );
    let path = format!("/v3/organizations/{guid}/domains");
    page_of(&controller, &path, &Query::parse(raw.as_deref()), &mut select).await
}

/// `GET /v3/organizations/:guid/domains/default`.
pub(crate) async fn default_of_org(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
) -> Answer {
    let mut conn = controller.store.read().await?;
    caller.org(&mut conn, &guid).await?;
    let usable = domains::usable_by(&mut conn, &guid).await?;
    let default = usable.into_iter().find(|domain| !domain.internal);
    let default = default.ok_or_else(|| ApiError::not_found("Domain"))?;
    Ok(Json(show_domain(&controller, &mut conn, &default).await?))
}

/// `GET /v3/domains/:guid`.
pub(crate) async fn show(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
) -> Answer {
    let mut conn = controller.store.read().await?;
    let domain: Domain =
        super::find(&mut conn, "domains", "Domain", &guid, |select| visible(&caller, select))
            .await?;
    Ok(Json(show_domain(&controller, &mut conn, &domain).await?))
}

/// Refuses callers that do not see a domain.
pub(crate) async fn require_visible(
    controller: &CloudController,
    caller: &Caller,
    guid: &str,
) -> Result<(), ApiError> {
    let mut conn = controller.store.read().await?;
    let _: Domain =
        super::find(&mut conn, "domains", "Domain", guid, |select| visible(caller, select)).await?;
    Ok(())
}

/// Two labels at least, of letters, digits and hyphens.
pub(crate) fn is_domain(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.contains('.') && name.split('.').all(label)
}

/// `POST /v3/domains`.
pub(crate) async fn create(
    State(controller): App,
    caller: Caller,
    mut fields: Fields,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let name = fields.required("name").to_ascii_lowercase();
    let internal = fields.flag("internal").unwrap_or(false);
    let change = fields.metadata();
    if fields.take("router_group").is_some_and(|group| !group.is_null()) {
        fields.fault("Router group: TCP routes are not served yet");
    }
    let (mut org_guid, mut shares) = (None, Vec::new());
    if let Some(mut relationships) = fields.object("relationships") {
        org_guid = relationships.guid("organization");
        if let Some(with) = relationships.take("shared_organizations") {
            let with = with["data"].as_array().cloned().unwrap_or_default();
            shares.extend(with.iter().filter_map(|org| org["guid"].as_str()).map(str::to_owned));
        }
        fields.absorb(relationships);
    }
    if !name.is_empty() && !is_domain(&name) {
        fields.fault("Name does not comply with RFC 1035 standards");
    }
    if internal && org_guid.is_some() {
        fields.fault("Can not associate an internal domain with an organization");
    }
    if org_guid.is_none() && !shares.is_empty() {
        fields.fault(
            "Relationships can not contain shared_organizations without an owning organization.",
        );
    }
    fields.finish()?;
    let metadata = Metadata::default().merge(&change).map_err(ApiError::unprocessable_all)?;
    let mut tx = controller.store.begin().await?;
    match &org_guid {
        None => caller.require_admin()?,
        Some(guid) => {
            let access = caller.org(&mut tx, guid).await.map_err(|err| match err.status {
                StatusCode::NOT_FOUND => ApiError::unprocessable(format!(
                    "Organization with guid '{guid}' does not exist or you do not have access to it."
                )),
                _ => err,
            })?;
            access.require_manager()?;
        }
    }
    if org_guid.is_some() {
        check_not_the_system_s(&controller.config, &name)?;
    }
    check_free(&mut tx, &name, org_guid.as_deref()).await?;
    let guid = domains::insert(&mut tx, &name, internal, org_guid.as_deref(), &metadata).await;
    let guid = guid.map_err(|err| match is_taken(&err) {
        true => in_use(&name),
        false => err.into(),
    })?;
    for org in &shares {
        caller.org(&mut tx, org).await?.require_manager()?;
        domains::share(&mut tx, &guid, org).await?;
    }
    let target = Party::new("domain", &guid, &name);
    let place = Place { space_guid: None, org_guid: org_guid.as_deref() };
    let data = json!({"request": {"name": name}});
    record(&mut tx, "audit.domain.create", &caller.party(), &target, place, &data).await?;
    let domain: Option<Domain> = by_guid(&mut tx, "domains", &guid).await?;
    let domain = domain.ok_or_else(|| ApiError::not_found("Domain"))?;
    let shown = show_domain(&controller, &mut tx, &domain).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(shown)))
}

fn in_use(name: &str) -> ApiError {
    ApiError::unprocessable(format!("The domain name \"{name}\" is already in use"))
}

/// Where the platform's own hosts are, no org has routes: passwords and tokens are sent there.
fn check_not_the_system_s(config: &Config, name: &str) -> Result<(), ApiError> {
    if name.eq_ignore_ascii_case(&config.system_domain) || config.is_reserved(name) {
        return Err(ApiError::unprocessable(format!(
            "The domain name \"{name}\" cannot be created because \"{name}\" is already reserved \
             by the system"
        )));
    }
    Ok(())
}

/// A domain may not lie above or below another org's, nor be the address of a route. An org's may not
/// lie above a shared one either, which is everybody's.
async fn check_free(
    conn: &mut SqliteConnection,
    name: &str,
    org_guid: Option<&str>,
) -> Result<(), ApiError> {
    let all: Vec<Domain> = sqlx::query_as("SELECT * FROM domains").fetch_all(&mut *conn).await?;
    let below = |inner: &str, outer: &str| {
        inner.strip_suffix(outer).is_some_and(|rest| rest.ends_with('.'))
    };
    for other in &all {
        let foreign = other.org_guid.as_deref() != org_guid;
        let private = other.org_guid.is_some();
        if foreign && (private && below(name, &other.name) || below(&other.name, name)) {
            return Err(ApiError::unprocessable(format!(
                "The domain name \"{name}\" cannot be created because \"{}\" is already reserved \
                 by another domain",
                other.name
            )));
        }
    }
    let taken: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM routes JOIN domains ON domains.guid = routes.domain_guid \
         WHERE routes.host <> '' AND routes.host || '.' || domains.name = ?)",
    )
    .bind(name)
    .fetch_one(conn)
    .await?;
    match taken {
        true => Err(ApiError::unprocessable(format!(
            "The domain name \"{name}\" cannot be created because \"{name}\" is already reserved \
             by a route"
        ))),
        false => Ok(()),
    }
}

/// `PATCH /v3/domains/:guid`: labels and annotations.
pub(crate) async fn update(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
    mut fields: Fields,
) -> Answer {
    let change = fields.metadata();
    fields.finish()?;
    let mut tx = controller.store.begin().await?;
    let domain = writable(&mut tx, &caller, &guid).await?;
    let metadata = Metadata::read(&domain.labels, &domain.annotations);
    let metadata = metadata.merge(&change).map_err(ApiError::unprocessable_all)?;
    set_metadata(&mut tx, "domains", &guid, &metadata).await?;
    let domain: Option<Domain> = by_guid(&mut tx, "domains", &guid).await?;
    let domain = domain.ok_or_else(|| ApiError::not_found("Domain"))?;
    let shown = show_domain(&controller, &mut tx, &domain).await?;
    tx.commit().await?;
    Ok(Json(shown))
}

async fn writable(
    conn: &mut SqliteConnection,
    caller: &Caller,
    guid: &str,
) -> Result<Domain, ApiError> {
    let domain: Domain =
        super::find(conn, "domains", "Domain", guid, |select| visible(caller, select)).await?;
    match &domain.org_guid {
        None => caller.require_admin()?,
        Some(org) => caller.org(conn, org).await?.require_manager()?,
    }
    Ok(domain)
}

/// `POST /v3/domains/:guid/relationships/shared_organizations`.
pub(crate) async fn share(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
    mut fields: Fields,
) -> Answer {
    let orgs = fields.take("data").and_then(|data| data.as_array().cloned()).unwrap_or_default();
    fields.finish()?;
    let mut tx = controller.store.begin().await?;
    let domain = writable(&mut tx, &caller, &guid).await?;
    if domain.org_guid.is_none() {
        return Err(ApiError::unprocessable(
            "Domains can not be shared with other organizations unless they are scoped to an organization.",
        ));
    }
    for org in &orgs {
        let org = org["guid"].as_str().unwrap_or_default();
        let known: Option<Org> = by_guid(&mut tx, "organizations", org).await?;
        if known.is_none() {
            return Err(ApiError::unprocessable(format!(
                "Organization with guid '{org}' does not exist, or you do not have access to it."
            )));
        }
        caller.org(&mut tx, org).await?.require_manager()?;
        domains::share(&mut tx, &guid, org).await?;
    }
    let shared = domains::shares(&mut tx, &guid).await?;
    tx.commit().await?;
    let shared: Vec<Value> = shared.into_iter().map(|guid| json!({"guid": guid})).collect();
    Ok(Json(json!({"data": shared})))
}

/// `DELETE /v3/domains/:guid`.
pub(crate) async fn remove(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
) -> Result<Response, ApiError> {
    let mut tx = controller.store.begin().await?;
    writable(&mut tx, &caller, &guid).await?;
    job::accept(&controller, tx, Work::DeleteDomain { guid }, caller.party()).await
}

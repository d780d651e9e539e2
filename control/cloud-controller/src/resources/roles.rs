//! Roles of users in orgs and spaces.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};
use sqlx::SqliteConnection;

use super::{Answer, App, link, orgs::show_org, spaces::show_space, to_one, users};
use crate::CloudController;
use crate::body::Fields;
use crate::caller::Caller;
use crate::error::{ApiError, is_taken};
use crate::job::{self, Work};
use crate::page::{self, Paging};
use crate::query::Query;
use crate::store::events::{Party, Place, record};
use crate::store::orgs::{Org, Space};
use crate::store::roles::{self, Role};
use crate::store::select::{Select, by_guid};
use crate::time;

const ORG_ROLES: [&str; 4] = [
    "organization_user",
    "organization_auditor",
    "organization_manager",
    "organization_billing_manager",
];
const SPACE_ROLES: [&str; 4] =
    ["space_auditor", "space_developer", "space_manager", "space_supporter"];

fn show_role(controller: &CloudController, role: &Role) -> Value {
    let guid = &role.guid;
    let mut links = json!({
        "self": link(controller, &format!("/v3/roles/{guid}")),
        "user": link(controller, &format!("/v3/users/{}", role.user_guid)),
    });
    if let Some(org) = &role.org_guid {
        links["organization"] = link(controller, &format!("/v3/organizations/{org}"));
    }
    if let Some(space) = &role.space_guid {
        links["space"] = link(controller, &format!("/v3/spaces/{space}"));
    }
    json!({
        "guid": guid,
        "created_at": time::show(role.created_at),
        "updated_at": time::show(role.updated_at),
        "type": role.r#type,
        "relationships": {
            "user": to_one(Some(&role.user_guid)),
            "space": to_one(role.space_guid.as_deref()),
            "organization": to_one(role.org_guid.as_deref()),
        },
        "links": links,
    })
}

/// Roles in what the caller sees.
fn visible(caller: &Caller, select: &mut Select) {
    if caller.reads_all() {
        return;
    }
    let mut spaces = Select::from("roles");
    caller.only_visible_spaces(&mut spaces, "roles.space_guid");
    let mut orgs = Select::from("roles");
    caller.only_visible_orgs(&mut orgs, "roles.org_guid");
    select.either(spaces, orgs);
}

/// `GET /v3/roles`.
pub(crate) async fn list(
    State(controller): App,
    caller: Caller,
    RawQuery(raw): RawQuery,
) -> Answer {
    let query = Query::parse(raw.as_deref());
    query.allow(&["organization_guids", "space_guids", "user_guids", "types"])?;
    let include = query.include(&["user", "organization", "space"])?;
    let mut select = Select::from("roles");
    visible(&caller, &mut select);
    select.filter(&query, "organization_guids", "roles.org_guid");
    select.filter(&query, "space_guids", "roles.space_guid");
    select.filter(&query, "user_guids", "roles.user_guid");
    select.filter(&query, "types", "roles.type").common_filters(&query)?.order(&query, &[])?;
    let paging = Paging::of(&query)?;
    let mut conn = controller.store.read().await?;
    let (found, total) = select.page::<Role>(&mut conn, paging).await?;
    let included = included(&controller, &mut conn, &found, &include).await?;
    let shown = found.iter().map(|role| show_role(&controller, role)).collect();
    let address = controller.url("/v3/roles");
    Ok(Json(page::document(&address, &query, paging, total, shown, included)))
}

async fn included(
    controller: &CloudController,
    conn: &mut SqliteConnection,
    found: &[Role],
    include: &[String],
) -> Result<Option<Value>, ApiError> {
    if include.is_empty() {
        return Ok(None);
    }
    let unique = |guid: fn(&Role) -> Option<&String>| {
        let mut guids: Vec<String> = found.iter().filter_map(guid).cloned().collect();
        guids.sort_unstable();
        guids.dedup();
        guids
    };
    let mut included = json!({});
    let wants = |name: &str| include.iter().any(|wanted| wanted == name);
    if wants("user") {
        let guids = unique(|role| Some(&role.user_guid));
        let mut select = Select::from("users");
        let found = select.any("users.guid", &guids).all(conn).await?;
        included["users"] = users::show_users(controller, &found).await?.into();
    }
    if wants("organization") {
        let guids = unique(|role| role.org_guid.as_ref());
        let mut select = Select::from("organizations");
        let found: Vec<Org> = select.any("organizations.guid", &guids).all(conn).await?;
        included["organizations"] = found.iter().map(|org| show_org(controller, org)).collect();
    }
    if wants("space") {
        let guids = unique(|role| role.space_guid.as_ref());
        let mut select = Select::from("spaces");
        let found: Vec<Space> = select.any("spaces.guid", &guids).all(conn).await?;
        let shown = found.iter().map(|space| show_space(controller, space, false));
        included["spaces"] = shown.collect();
    }
    Ok(Some(included))
}

/// `GET /v3/roles/:guid`.
pub(crate) async fn show(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
) -> Answer {
    let mut conn = controller.store.read().await?;
    let role = super::find(&mut conn, "roles", "Role", &guid, |select| visible(&caller, select));
    Ok(Json(show_role(&controller, &role.await?)))
}

/// Whom a role is for: a guid, or a name with an origin.
#[derive(Debug, Default)]
struct Wanted {
    guid: Option<String>,
    username: Option<String>,
    origin: Option<String>,
}

/// `POST /v3/roles`.
pub(crate) async fn create(
    State(controller): App,
    caller: Caller,
    mut fields: Fields,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let kind = fields.required("type");
    let (mut wanted, mut org_guid, mut space_guid) = (Wanted::default(), None, None);
    if let Some(mut relationships) = fields.object("relationships") {
        org_guid = relationships.guid("organization");
        space_guid = relationships.guid("space");
        if let Some(mut user) = relationships.object("user") {
            if let Some(mut data) = user.object("data") {
                wanted.guid = data.string("guid");
                wanted.username = data.string("username");
                wanted.origin = data.string("origin");
                user.absorb(data);
            }
            relationships.absorb(user);
        }
        fields.absorb(relationships);
    }
    let in_org = ORG_ROLES.contains(&&*kind);
    if !in_org && !SPACE_ROLES.contains(&&*kind) {
        let all = [ORG_ROLES, SPACE_ROLES].concat().join(", ");
        fields.fault(format!("Type must be one of the allowed types [{all}]"));
    } else if in_org && org_guid.is_none() {
        fields.fault("Role with type must be associated with an organization");
    } else if !in_org && space_guid.is_none() {
        fields.fault("Role with type must be associated with a space");
    } else if org_guid.is_some() && space_guid.is_some() {
        fields.fault("Role cannot be associated with both an organization and a space.");
    }
    if wanted.guid.is_none() && wanted.username.is_none() {
        fields.fault("User must have a guid or a username");
    }
    fields.finish()?;
    let user = resolve(&controller, &wanted).await?;
    let mut tx = controller.store.begin().await?;
    let (target_name, org, where_to) = match (&org_guid, &space_guid) {
        (Some(guid), _) => {
            let access = caller.org(&mut tx, guid).await.map_err(invisible("organization"))?;
            access.require_manager()?;
            (format!("organization '{}'", access.org.name), access.org.guid, (Some(&**guid), None))
        }
        (None, Some(guid)) => {
            let access = caller.space(&mut tx, guid).await.map_err(invisible("space"))?;
            access.require_manager()?;
            (format!("space '{}'", access.space.name), access.org.guid, (None, Some(&**guid)))
        }
        (None, None) => return Err(ApiError::unprocessable("A role needs a place")),
    };
    let new = roles::ensure_user(&mut tx, &user.guid).await?;
    if !in_org && (new || roles::in_org(&mut tx, &user.guid, &org).await?.is_empty()) {
        return Err(ApiError::unprocessable(
            "Users cannot be assigned roles in a space if they do not have a role in that \
             space's organization.",
        ));
    }
    let (in_org, in_space) = where_to;
    let guid = roles::insert_role(&mut tx, &kind, &user.guid, in_org, in_space).await;
    let guid = guid.map_err(|err| match is_taken(&err) {
        true => ApiError::unprocessable(format!(
            "User '{}' already has '{kind}' role in {target_name}.",
            user.name
        )),
        false => err.into(),
    })?;
    let target = Party::new("user", &user.guid, &user.name);
    let place = Place { space_guid: in_space, org_guid: in_org };
    let event = format!("audit.user.{kind}_add");
    record(&mut tx, &event, &caller.party(), &target, place, &json!({})).await?;
    let role: Option<Role> = by_guid(&mut tx, "roles", &guid).await?;
    let role = role.ok_or_else(|| ApiError::not_found("Role"))?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(show_role(&controller, &role))))
}

fn invisible(kind: &'static str) -> impl Fn(ApiError) -> ApiError {
    move |err| match err.status {
        StatusCode::NOT_FOUND => ApiError::unprocessable(format!(
            "Invalid {kind}. Ensure that the {kind} exists and you have access to it."
        )),
        _ => err,
    }
}

struct Known {
    guid: String,
    name: String,
}

/// The user that a role is for. A guid that nobody knows may be a client's id.
async fn resolve(controller: &CloudController, wanted: &Wanted) -> Result<Known, ApiError> {
    let unknown = || {
        ApiError::unprocessable(
            "Invalid user. Ensure that the user exists and you have access to it.",
        )
    };
    if let Some(guid) = &wanted.guid {
        let known = users::names(controller, std::slice::from_ref(guid)).await?;
        if let Some(user) = known.into_iter().next() {
            return Ok(Known { guid: user.id, name: user.user_name });
        }
        let mut conn = controller.store.read().await?;
        let user: Option<roles::User> = by_guid(&mut conn, "users", guid).await?;
        return user
            .map(|user| Known { name: user.guid.clone(), guid: user.guid })
            .ok_or_else(unknown);
    }
    let name = wanted.username.clone().unwrap_or_default();
    let names = std::slice::from_ref(&name);
    let found = controller.users.users_by_name(names, wanted.origin.as_deref()).await;
    let mut found = found.map_err(users::unreachable)?;
    match (found.pop(), found.len()) {
        (Some(user), 0) => Ok(Known { guid: user.id, name: user.user_name }),
        (None, _) => Err(match &wanted.origin {
            Some(origin) => ApiError::unprocessable(format!(
                "No user exists with the username '{name}' and origin '{origin}'."
            )),
            None => ApiError::unprocessable(format!("No user exists with the username '{name}'.")),
        }),
        (Some(_), _) => Err(ApiError::unprocessable(format!(
            "Ambiguous user. User with username '{name}' exists in several origins. Specify an \
             origin to disambiguate."
        ))),
    }
}

/// `DELETE /v3/roles/:guid`.
pub(crate) async fn remove(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
) -> Result<Response, ApiError> {
    let mut tx = controller.store.begin().await?;
    let role: Role =
        super::find(&mut tx, "roles", "Role", &guid, |select| visible(&caller, select)).await?;
    if let Some(org) = &role.org_guid {
        caller.org(&mut tx, org).await?.require_manager()?;
        let left = roles::has_space_roles(&mut tx, &role.user_guid, org).await?;
        if role.r#type == "organization_user" && left {
            return Err(ApiError::unprocessable(
                "Cannot delete organization_user role while user has roles in spaces in that \
                 organization.",
            ));
        }
    }
    if let Some(space) = &role.space_guid {
        caller.space(&mut tx, space).await?.require_manager()?;
    }
    job::accept(&controller, tx, Work::DeleteRole { guid }, caller.party()).await
}

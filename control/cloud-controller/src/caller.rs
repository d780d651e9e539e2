//! Who asks, and what they may see and do.
//!
//! What a caller may not see does not exist for them (404); what they see but may not do is refused
//! (403). Tokens carry what someone may do anywhere; roles in orgs and spaces, from our database, say
//! the rest.

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{Method, header};
use sqlx::SqliteConnection;
use uaa::{Claims, Refusal};

use crate::CloudController;
use crate::error::ApiError;
use crate::store::events::Party;
use crate::store::orgs::{Org, Space};
use crate::store::roles;
use crate::store::select::{Bind, Select, by_guid};

/// The holder of a request's token.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// Id of the user, or of the client where there is no user.
    pub guid: String,
    pub name: String,
    pub email: Option<String>,
    is_user: bool,
    admin: bool,
    reads_all: bool,
    sees_secrets: bool,
}

impl Caller {
    fn new(claims: Claims) -> Self {
        let admin = claims.allows("cloud_controller.admin");
        let read_only = claims.allows("cloud_controller.admin_read_only");
        let auditor = claims.allows("cloud_controller.global_auditor");
        let is_user = claims.user_id.is_some();
        let guid = claims.user_id.unwrap_or(claims.client_id);
        Self {
            name: claims.user_name.unwrap_or_else(|| guid.clone()),
            email: claims.email,
            guid,
            is_user,
            admin,
            reads_all: admin || read_only || auditor,
            sees_secrets: admin || read_only,
        }
    }

    /// Whoever comes with a token is one of the users from then on, with a role or without, as in the
    /// original.
    async fn become_known(&self, controller: &CloudController) -> Result<(), ApiError> {
        let mut conn = controller.store.read().await?;
        if roles::is_user(&mut conn, &self.guid).await? {
            return Ok(());
        }
        drop(conn);
        let mut tx = controller.store.begin().await?;
        roles::ensure_user(&mut tx, &self.guid).await?;
        tx.commit().await?;
        Ok(())
    }

    pub fn is_admin(&self) -> bool {
        self.admin
    }

    /// Administrators and auditors of the whole platform.
    pub fn reads_all(&self) -> bool {
        self.reads_all
    }

    /// Only administrators pass.
    pub fn require_admin(&self) -> Result<(), ApiError> {
        if self.admin { Ok(()) } else { Err(ApiError::not_authorized()) }
    }

    /// As the actor of audit events.
    pub fn party(&self) -> Party {
        Party::new(if self.is_user { "user" } else { "client" }, &self.guid, &self.name)
    }

    /// Keeps rows whose `column` is the guid of a space that the caller sees.
    pub fn only_visible_spaces(&self, select: &mut Select, column: &str) {
        if self.reads_all {
            return;
        }
        let condition = format!(
            "{column} IN (SELECT space_guid FROM roles WHERE user_guid = ? AND space_guid IS NOT \
             NULL UNION SELECT spaces.guid FROM spaces JOIN roles ON roles.org_guid = \
             spaces.org_guid WHERE roles.user_guid = ? AND roles.type = 'organization_manager')"
        );
        select.only(condition, [&*self.guid, &*self.guid]);
    }

    /// Keeps rows whose `column` is the guid of an org that the caller sees.
    pub fn only_visible_orgs(&self, select: &mut Select, column: &str) {
        if self.reads_all {
            return;
        }
        let condition = format!(
            "{column} IN (SELECT org_guid FROM roles WHERE user_guid = ? AND org_guid IS NOT NULL \
             UNION SELECT spaces.org_guid FROM spaces JOIN roles ON roles.space_guid = \
             spaces.guid WHERE roles.user_guid = ?)"
        );
        select.only(condition, [Bind::from(&*self.guid), Bind::from(&*self.guid)]);
    }

    /// A space that the caller sees, and what they may do in it.
    pub async fn space(
        &self,
        conn: &mut SqliteConnection,
        guid: &str,
    ) -> Result<SpaceAccess, ApiError> {
        let unseen = || ApiError::not_found("Space");
        let space: Space = by_guid(conn, "spaces", guid).await?.ok_or_else(unseen)?;
        let org: Org = by_guid(conn, "organizations", &space.org_guid).await?.ok_or_else(unseen)?;
        let in_org = roles::in_org(conn, &self.guid, &org.guid).await?;
        let in_space = roles::in_space(conn, &self.guid, guid).await?;
        let access = SpaceAccess {
            space,
            org,
            in_org,
            in_space,
            admin: self.admin,
            reads_all: self.reads_all,
            sees_secrets: self.sees_secrets,
        };
        if access.sees() { Ok(access) } else { Err(unseen()) }
    }

    /// An org that the caller sees, and what they may do in it.
    pub async fn org(
        &self,
        conn: &mut SqliteConnection,
        guid: &str,
    ) -> Result<OrgAccess, ApiError> {
        let unseen = || ApiError::not_found("Organization");
        let org: Org = by_guid(conn, "organizations", guid).await?.ok_or_else(unseen)?;
        let in_org = roles::in_org(conn, &self.guid, guid).await?;
        let sees = self.reads_all
            || !in_org.is_empty()
            || roles::has_space_roles(conn, &self.guid, guid).await?;
        if sees { Ok(OrgAccess { org, in_org, admin: self.admin }) } else { Err(unseen()) }
    }
}

/// What a caller may do in a space.
#[derive(Clone, Debug)]
pub(crate) struct SpaceAccess {
    pub space: Space,
    pub org: Org,
    in_org: Vec<String>,
    in_space: Vec<String>,
    admin: bool,
    reads_all: bool,
    sees_secrets: bool,
}

impl SpaceAccess {
    fn in_space(&self, roles: &[&str]) -> bool {
        self.in_space.iter().any(|own| roles.contains(&&**own))
    }

    fn manages_org(&self) -> bool {
        self.in_org.iter().any(|own| own == "organization_manager")
    }

    fn sees(&self) -> bool {
        self.reads_all || !self.in_space.is_empty() || self.manages_org()
    }

    fn writes(&self, allowed: bool) -> Result<(), ApiError> {
        match self.admin || (allowed && !self.org.suspended) {
            true => Ok(()),
            false => Err(ApiError::not_authorized()),
        }
    }

    /// Developers change apps, routes and all that belongs to them.
    pub fn require_developer(&self) -> Result<(), ApiError> {
        self.writes(self.in_space(&["space_developer"]))
    }

    /// Supporters start and stop apps and map routes, like developers.
    pub fn require_supporter(&self) -> Result<(), ApiError> {
        self.writes(self.in_space(&["space_developer", "space_supporter"]))
    }

    /// Managers of the space or of its org change the space itself.
    pub fn require_manager(&self) -> Result<(), ApiError> {
        self.writes(self.in_space(&["space_manager"]) || self.manages_org())
    }

    /// Managers of the org make and delete spaces.
    pub fn require_org_manager(&self) -> Result<(), ApiError> {
        self.writes(self.manages_org())
    }

    /// Environment variables may hold secrets.
    pub fn require_secrets(&self) -> Result<(), ApiError> {
        match self.sees_secrets || self.in_space(&["space_developer", "space_supporter"]) {
            true => Ok(()),
            false => Err(ApiError::not_authorized()),
        }
    }
}

/// What a caller may do in an org.
#[derive(Clone, Debug)]
pub(crate) struct OrgAccess {
    pub org: Org,
    in_org: Vec<String>,
    admin: bool,
}

impl OrgAccess {
    /// Managers change the org, its spaces, roles and domains.
    pub fn require_manager(&self) -> Result<(), ApiError> {
        let manages = self.in_org.iter().any(|own| own == "organization_manager");
        match self.admin || (manages && !self.org.suspended) {
            true => Ok(()),
            false => Err(ApiError::not_authorized()),
        }
    }
}

impl FromRequestParts<CloudController> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        controller: &CloudController,
    ) -> Result<Self, ApiError> {
        let header = parts.headers.get(header::AUTHORIZATION);
        let header = header.ok_or_else(ApiError::not_authenticated)?;
        let (scheme, token) = header
            .to_str()
            .ok()
            .and_then(|value| value.split_once(' '))
            .ok_or_else(ApiError::invalid_token)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(ApiError::invalid_token());
        }
        let claims = controller.tokens.verify(token.trim()).await.map_err(|err| match err {
            Refusal::NoKeys(_) => {
                tracing::warn!(error = %err, "a token cannot be checked");
                ApiError::unavailable("The UAA service is currently unavailable")
            }
            Refusal::Invalid(_) | Refusal::Expired => ApiError::invalid_token(),
        })?;
        let reads = matches!(parts.method, Method::GET | Method::HEAD);
        let scope = if reads { "cloud_controller.read" } else { "cloud_controller.write" };
        let caller = Self::new(claims.clone());
        let passes = caller.admin || claims.allows(scope) || (reads && caller.reads_all);
        if !passes {
            return Err(ApiError::insufficient_scope());
        }
        caller.become_known(controller).await?;
        Ok(caller)
    }
}

//! The claims of access and refresh tokens, and how they are made.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::clients::ClientDetails;
use crate::store::User;

/// What a token says about its holder. Absent for a client's own token: everything about a user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Claims {
    /// Unique id; a refresh token's ends with `-r`.
    pub jti: String,
    /// User id, or client id for a client's own token.
    pub sub: String,
    /// A client's own rights.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub authorities: Vec<String>,
    /// What the token allows.
    pub scope: Vec<String>,
    /// Client that asked for the token.
    pub client_id: String,
    /// The same.
    pub cid: String,
    /// The same.
    pub azp: String,
    /// Grant by which the log-in was made.
    pub grant_type: String,
    /// Id of the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// Identity provider of the user; `uaa` for ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Name of the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_name: Option<String>,
    /// E-mail address of the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// When the user gave the password, in seconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_time: Option<i64>,
    /// Digest of what revokes the token when it changes.
    pub rev_sig: String,
    /// When it was made, in seconds since the epoch.
    pub iat: i64,
    /// When it expires, in seconds since the epoch.
    pub exp: i64,
    /// Who made it.
    pub iss: String,
    /// Identity zone.
    pub zid: String,
    /// Whom it is for.
    pub aud: Vec<String>,
}

impl Claims {
    /// Whether the token allows `scope`.
    pub fn allows(&self, scope: &str) -> bool {
        self.scope.iter().any(|own| own == scope)
    }

    pub(crate) fn is_refresh_token(&self) -> bool {
        self.jti.ends_with("-r")
    }
}

/// What both tokens of an answer have in common.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    pub client_id: &'a str,
    pub client: &'a ClientDetails,
    pub user: Option<&'a User>,
    pub scope: Vec<String>,
    pub grant_type: &'a str,
    /// Seconds since the epoch.
    pub auth_time: i64,
    pub now: i64,
    pub issuer: String,
}

impl Draft<'_> {
    pub fn access(&self) -> Claims {
        let validity = i64::from(self.client.access_token_validity);
        self.claims(uuid(), validity)
    }

    pub fn refresh(&self) -> Claims {
        let validity = i64::from(self.client.refresh_token_validity);
        self.claims(format!("{}-r", uuid()), validity)
    }

    fn claims(&self, jti: String, validity: i64) -> Claims {
        let id = self.client_id.to_owned();
        let user = self.user;
        Claims {
            jti,
            sub: user.map_or_else(|| id.clone(), |user| user.id.clone()),
            authorities: if user.is_none() { self.scope.clone() } else { Vec::new() },
            scope: self.scope.clone(),
            cid: id.clone(),
            azp: id.clone(),
            grant_type: self.grant_type.to_owned(),
            user_id: user.map(|user| user.id.clone()),
            origin: user.map(|user| user.origin.clone()),
            user_name: user.map(|user| user.user_name.clone()),
            email: user.map(|user| user.email.clone()),
            auth_time: user.map(|_| self.auth_time),
            rev_sig: revocation_signature(&id, self.client, user),
            iat: self.now,
            exp: self.now + validity,
            iss: self.issuer.clone(),
            zid: "uaa".into(),
            aud: audience(&id, &self.scope),
            client_id: id,
        }
    }
}

/// A scope `a.b.c` is for `a.b`, one without a dot for itself; every token is for its client too.
fn audience(client_id: &str, scope: &[String]) -> Vec<String> {
    let mut aud: Vec<String> = Vec::new();
    let own = std::iter::once(client_id);
    let named = scope.iter().map(|scope| scope.rsplit_once('.').map_or(&**scope, |(api, _)| api));
    for name in own.chain(named) {
        if !aud.iter().any(|known| known == name) {
            aud.push(name.to_owned());
        }
    }
    aud
}

/// Eight hexadecimal digits that change with the client's secret and with the user's name, address
/// and password.
pub(crate) fn revocation_signature(
    client_id: &str,
    client: &ClientDetails,
    user: Option<&User>,
) -> String {
    let mut digest = Sha256::new();
    let mut part = |text: &str| {
        digest.update(text.len().to_le_bytes());
        digest.update(text.as_bytes());
    };
    part(client_id);
    part(client.secret.as_ref().map_or("", |secret| &secret.0));
    if let Some(user) = user {
        for text in [&user.id, &user.user_name, &user.email, &user.origin, &user.password_hash] {
            part(text);
        }
    }
    digest.finalize()[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn uuid() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_audience_is_the_scopes_apis_and_the_client() {
        let scope = ["cloud_controller.read", "cloud_controller.write", "openid", "routing.a.read"];
        let scope: Vec<String> = scope.map(String::from).into();
        assert_eq!(audience("cf", &scope), ["cf", "cloud_controller", "openid", "routing.a"]);
    }

    #[test]
    fn the_signature_changes_with_what_revokes() {
        let client = ClientDetails::default();
        let user = User { user_name: "a".into(), password_hash: "h".into(), ..User::default() };
        let one = revocation_signature("cf", &client, Some(&user));
        assert_eq!(one.len(), 8);
        assert_eq!(one, revocation_signature("cf", &client, Some(&user)));
        let changed = User { password_hash: "i".into(), ..user.clone() };
        assert_ne!(one, revocation_signature("cf", &client, Some(&changed)));
        let secret = Some(crate::Secret("s".into()));
        let client = ClientDetails { secret, ..client };
        assert_ne!(one, revocation_signature("cf", &client, Some(&user)));
    }
}

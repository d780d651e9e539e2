//! OAuth clients: the platform's own, as cf-deployment seeds them, and those of the configuration.

use std::collections::BTreeMap;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::{Config, Secret};

/// One client. The keys are those of `uaa.yml`, with lists as lists.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct ClientDetails {
    /// Empty: a public client, whose secret is the empty string. Absent: it cannot log in.
    pub secret: Option<Secret>,
    /// Grants that it may use.
    pub authorized_grant_types: Vec<String>,
    /// Scopes that users' tokens may get through it.
    pub scope: Vec<String>,
    /// Scopes of its own tokens.
    pub authorities: Vec<String>,
    /// Where authorization codes may be sent.
    pub redirect_uri: Vec<String>,
    /// Whether users are not asked for their consent.
    pub autoapprove: bool,
    /// Seconds.
    pub access_token_validity: u32,
    /// Seconds.
    pub refresh_token_validity: u32,
}

impl Default for ClientDetails {
    fn default() -> Self {
        Self {
            secret: None,
            authorized_grant_types: Vec::new(),
            scope: Vec::new(),
            authorities: Vec::new(),
            redirect_uri: Vec::new(),
            autoapprove: false,
            access_token_validity: 600,
            refresh_token_validity: 30 * 24 * 3600,
        }
    }
}

impl ClientDetails {
    fn accepts(&self, secret: &str) -> bool {
        let own = self.secret.as_ref().map(|own| own.0.as_bytes());
        own.is_some_and(|own| verify_slices_are_equal(own, secret.as_bytes()).is_ok())
    }

    pub(crate) fn may_use(&self, grant: &str) -> bool {
        self.authorized_grant_types.iter().any(|own| own == grant)
    }

    /// As `GET /oauth/clients/:id` shows it: without the secret.
    pub(crate) fn show(&self, id: &str) -> Value {
        json!({
            "client_id": id,
            "scope": or_none(&self.scope),
            "resource_ids": ["none"],
            "authorized_grant_types": self.authorized_grant_types,
            "redirect_uri": self.redirect_uri,
            "autoapprove": if self.autoapprove { json!([true]) } else { json!([]) },
            "authorities": or_none(&self.authorities),
            "access_token_validity": self.access_token_validity,
            "refresh_token_validity": self.refresh_token_validity,
        })
    }
}

fn or_none(list: &[String]) -> Value {
    if list.is_empty() { json!(["uaa.none"]) } else { json!(list) }
}

/// All clients by id.
#[derive(Clone, Debug)]
pub(crate) struct Clients(BTreeMap<String, ClientDetails>);

impl Clients {
    pub fn new(config: &Config) -> Self {
        let mut clients = platform(&config.login_url);
        for (id, secret) in &config.client_secrets {
            if let Some(client) = clients.get_mut(id) {
                client.secret = Some(secret.clone());
            }
        }
        clients.extend(config.clients.clone());
        Self(clients)
    }

    pub fn get(&self, id: &str) -> Option<&ClientDetails> {
        self.0.get(id)
    }

    /// The client, if `secret` is its own.
    pub fn authenticate(&self, id: &str, secret: &str) -> Option<&ClientDetails> {
        self.get(id).filter(|client| client.accepts(secret))
    }
}

fn platform(login_url: &str) -> BTreeMap<String, ClientDetails> {
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let own = |id: &str, authorities: &str| {
        let client = ClientDetails {
            authorized_grant_types: words("client_credentials"),
            authorities: words(authorities),
            ..ClientDetails::default()
        };
        (id.to_owned(), client)
    };
    let cf = ClientDetails {
        secret: Some(Secret::default()),
        authorized_grant_types: words("password refresh_token"),
        scope: words(
            "network.admin network.write cloud_controller.read cloud_controller.write \
             cloud_controller.admin cloud_controller.admin_read_only \
             cloud_controller.global_auditor openid password.write scim.read scim.write \
             doppler.firehose uaa.user routing.router_groups.read routing.router_groups.write \
             clients.read",
        ),
        access_token_validity: 1200,
        ..ClientDetails::default()
    };
    let ssh = ClientDetails {
        authorized_grant_types: words("authorization_code"),
        scope: words("openid cloud_controller.read cloud_controller.write cloud_controller.admin"),
        redirect_uri: vec![format!("{login_url}/login")],
        autoapprove: true,
        ..ClientDetails::default()
    };
    BTreeMap::from([
        ("cf".to_owned(), cf),
        ("ssh-proxy".to_owned(), ssh),
        own("cloud_controller_username_lookup", "scim.userids scim.read"),
        own("cc_routing", "routing.router_groups.read"),
        own("cc_service_key_client", "credhub.read credhub.write"),
        own("gorouter", "routing.routes.read"),
        own("tcp_router", "routing.routes.read"),
        own("tcp_emitter", "routing.routes.read routing.routes.write routing.router_groups.read"),
        own("routing_api_client", "routing.routes.read routing.routes.write"),
        own("network-policy", "uaa.resource cloud_controller.admin_read_only"),
        own("doppler", "uaa.resource"),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cli_is_public_and_the_rest_needs_a_configured_secret() {
        let mut config = Config::default();
        let clients = Clients::new(&config);
        assert!(clients.authenticate("cf", "").is_some());
        assert!(clients.authenticate("cf", "x").is_none());
        assert!(clients.authenticate("doppler", "").is_none());
        config.client_secrets.insert("doppler".into(), Secret("s".into()));
        let clients = Clients::new(&config);
        assert!(clients.authenticate("doppler", "s").is_some());
        assert!(clients.authenticate("doppler", "").is_none());
        assert!(clients.authenticate("nobody", "").is_none());
    }
}

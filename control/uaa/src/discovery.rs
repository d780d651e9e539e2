//! What a client reads before it logs in: prompts, addresses, keys.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::server::App;

/// `GET /login` and `GET /info`. The version is that of the UAA whose API this is.
pub(crate) async fn login(State(uaa): App) -> Json<Value> {
    let config = &uaa.0.config;
    let passcode =
        format!("Temporary Authentication Code ( Get one at {}/passcode )", config.login_url);
    Json(json!({
        "app": {"version": "77.20.0"},
        "links": {
            "uaa": config.uaa_url,
            "login": config.login_url,
            "passwd": "/forgot_password",
            "register": "/create_account",
        },
        "zone_name": "uaa",
        "entityID": config.login_url,
        "commit_id": "bloomery",
        "idpDefinitions": {},
        "prompts": {
            "username": ["text", "Email"],
            "password": ["password", "Password"],
            "passcode": ["password", passcode],
        },
        "timestamp": jiff::Timestamp::now().to_string(),
    }))
}

/// `GET /token_keys`.
pub(crate) async fn token_keys(State(uaa): App) -> Json<Value> {
    Json(json!({"keys": [uaa.0.key.public]}))
}

/// `GET /token_key`.
pub(crate) async fn token_key(State(uaa): App) -> Json<Value> {
    Json(json!(uaa.0.key.public))
}

/// `GET /.well-known/openid-configuration`.
pub(crate) async fn openid(State(uaa): App) -> Json<Value> {
    let config = &uaa.0.config;
    let (uaa_url, login_url) = (&config.uaa_url, &config.login_url);
    Json(json!({
        "issuer": uaa.issuer(),
        "authorization_endpoint": format!("{login_url}/oauth/authorize"),
        "token_endpoint": format!("{login_url}/oauth/token"),
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "token_endpoint_auth_signing_alg_values_supported": ["RS256"],
        "userinfo_endpoint": format!("{login_url}/userinfo"),
        "jwks_uri": format!("{uaa_url}/token_keys"),
        "scopes_supported": ["openid", "profile", "email", "roles", "user_attributes"],
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "claim_types_supported": ["normal"],
        "claims_supported": [
            "sub", "user_name", "origin", "iss", "auth_time", "client_id", "aud", "zid",
            "grant_type", "user_id", "azp", "scope", "exp", "iat", "jti", "rev_sig", "cid",
            "given_name", "family_name", "email",
        ],
        "claims_parameter_supported": false,
        "ui_locales_supported": ["en-US"],
    }))
}

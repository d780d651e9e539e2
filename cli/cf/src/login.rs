//! Endpoint, user, org and space.

use serde::Deserialize;
use serde_json::Value;

use crate::arguments::{Api, Login, Target};
use crate::client::{Client, escape, read};
use crate::error::Error;
use crate::say;
use crate::session::Named;

#[derive(Deserialize)]
struct Root {
    links: Links,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Links {
    cloud_controller_v3: Option<Link>,
    login: Option<Link>,
    uaa: Option<Link>,
    log_cache: Option<Link>,
}

#[derive(Deserialize)]
struct Link {
    href: String,
    #[serde(default)]
    meta: Value,
}

/// Reads the root document of an API and remembers what it leads to.
async fn set_endpoint(client: &mut Client, url: &str, skip_ssl: bool) -> Result<(), Error> {
    let url = url.trim_end_matches('/');
    let url = if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
    if url.starts_with("http://") {
        eprintln!(
            "Warning: Insecure http API endpoint detected: secure https API endpoints are recommended"
        );
    }
    client.start_over(&url, skip_ssl)?;
    let missing = || Error::said(format!("API endpoint not found at '{url}'"));
    let root =
        client.get_openly(&format!("{url}/")).await.map_err(|error| match error.status() {
            Some(404) => missing(),
            _ => error,
        })?;
    let root: Root = read(root, &url).map_err(|_| missing())?;
    let links = root.links;
    let href = |link: Option<Link>| link.map(|link| link.href).unwrap_or_default();
    let version = links.cloud_controller_v3.as_ref().and_then(|link| link.meta["version"].as_str());
    client.session.api_version = version.unwrap_or_default().to_owned();
    client.session.login = href(links.login.or(links.uaa));
    // Whatever path the link has, log-cache is at the root.
    let log_cache = href(links.log_cache);
    let host_end = log_cache.find("://").map_or(0, |at| at + 3);
    let path = log_cache[host_end..].find('/').map_or(log_cache.len(), |at| host_end + at);
    client.session.log_cache = log_cache[..path].to_owned();
    client.save()
}

fn say_target(client: &Client) {
    let session = &client.session;
    let mut fields =
        vec![("API endpoint", session.api.clone()), ("API version", session.api_version.clone())];
    let Ok(user) = client.user() else {
        say::fields(&fields);
        println!("\nNot logged in. Use 'cf login' to log in.");
        return;
    };
    fields.push(("user", user));
    fields.extend(session.org.iter().map(|org| ("org", org.name.clone())));
    fields.extend(session.space.iter().map(|space| ("space", space.name.clone())));
    say::fields(&fields);
    match (&session.org, &session.space) {
        (None, _) => println!("No org or space targeted, use 'cf target -o ORG -s SPACE'"),
        (Some(_), None) => println!("No space targeted, use 'cf target -s SPACE'"),
        _ => {}
    }
}

/// `cf api`.
pub(crate) async fn api(client: &mut Client, flags: Api) -> Result<(), Error> {
    let Some(url) = flags.url else {
        if client.session.api.is_empty() {
            return Err(Error::NoApi);
        }
        say::fields(&[
            ("API endpoint", client.session.api.clone()),
            ("API version", client.session.api_version.clone()),
        ]);
        return Ok(());
    };
    println!("Setting API endpoint to {url}...");
    set_endpoint(client, &url, flags.skip_ssl_validation).await?;
    println!("OK\n");
    say_target(client);
    Ok(())
}

/// `cf login`.
pub(crate) async fn login(client: &mut Client, flags: Login) -> Result<(), Error> {
    let known = client.session.api.clone();
    let url = match flags.api {
        Some(url) => url,
        None if known.is_empty() => say::ask("API endpoint")?,
        None => known.clone(),
    };
    let skip = flags.skip_ssl_validation || url == known && client.session.skip_ssl_validation;
    println!("API endpoint: {url}\n");
    set_endpoint(client, &url, skip).await?;
    let user = flags.user.map_or_else(|| say::ask("Email"), Ok)?;
    let password = flags.password.map_or_else(|| say::ask_secretly("Password"), Ok)?;
    println!("\nAuthenticating...");
    let form = [("grant_type", "password"), ("username", &*user), ("password", &*password)];
    client.grant(&form).await.map_err(|error| match error.status() {
        Some(400 | 401) => {
            Error::said("Credentials were rejected, please try again.\nUnable to authenticate.")
        }
        _ => error,
    })?;
    client.save()?;
    println!("OK\n");
    let chosen = choose(client, flags.org.as_deref(), flags.space.as_deref(), true).await;
    client.save()?;
    say_target(client);
    chosen
}

/// `cf target`.
pub(crate) async fn target(client: &mut Client, flags: Target) -> Result<(), Error> {
    client.user()?;
    if flags.org.is_some() || flags.space.is_some() {
        choose(client, flags.org.as_deref(), flags.space.as_deref(), false).await?;
        client.save()?;
    }
    say_target(client);
    Ok(())
}

/// Targets what is named, and of what is not the only one there is.
async fn choose(
    client: &mut Client,
    org: Option<&str>,
    space: Option<&str>,
    aloud: bool,
) -> Result<(), Error> {
    let say = |what: &str, name: &str| {
        if aloud {
            println!("Targeted {what} {name}.\n");
        }
    };
    if org.is_some() || client.session.org.is_none() {
        let (query, missing) = match org {
            Some(name) => {
                (format!("names={}", escape(name)), format!("Organization '{name}' not found."))
            }
            None => ("order_by=name".into(), String::new()),
        };
        let found: Vec<Named> = client.list(&format!("/v3/organizations?{query}")).await?;
        client.session.org = only(found, org, &missing)?;
        client.session.space = None;
        if let Some(org) = &client.session.org {
            say("org", &org.name);
        }
    }
    let Some(org) = client.session.org.clone() else { return Ok(()) };
    if space.is_some() || client.session.space.is_none() {
        let (query, missing) = match space {
            Some(name) => (format!("names={}", escape(name)), format!("Space '{name}' not found.")),
            None => ("order_by=name".into(), String::new()),
        };
        let path = format!("/v3/spaces?organization_guids={}&{query}", org.guid);
        let found: Vec<Named> = client.list(&path).await?;
        client.session.space = only(found, space, &missing)?;
        if let Some(space) = &client.session.space {
            say("space", &space.name);
        }
    }
    Ok(())
}

fn only(found: Vec<Named>, named: Option<&str>, missing: &str) -> Result<Option<Named>, Error> {
    match named {
        Some(name) => match found.into_iter().find(|one| one.name == name) {
            Some(one) => Ok(Some(one)),
            None => Err(Error::said(missing)),
        },
        None if found.len() == 1 => Ok(found.into_iter().next()),
        None => Ok(None),
    }
}

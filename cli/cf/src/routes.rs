//! `cf routes`.

use serde_json::Value;

use crate::client::Client;
use crate::error::Error;
use crate::say;

/// Lists the routes of the space.
pub(crate) async fn list(client: &mut Client) -> Result<(), Error> {
    println!("Getting routes for {}...\n", client.place()?);
    let space = client.space()?;
    let routes: Vec<Value> =
        client.list(&format!("/v3/routes?space_guids={}&per_page=500", space.guid)).await?;
    if routes.is_empty() {
        println!("No routes found.");
        return Ok(());
    }
    let apps: Vec<crate::session::Named> =
        client.list(&format!("/v3/apps?space_guids={}&per_page=500", space.guid)).await?;
    let domains: Vec<crate::session::Named> = client.list("/v3/domains?per_page=500").await?;
    let name = |list: &[crate::session::Named], guid: &str| {
        list.iter().find(|one| one.guid == guid).map_or_else(String::new, |one| one.name.clone())
    };
    let head = ["space", "host", "domain", "port", "path", "protocol", "app-protocol", "apps"];
    let mut rows = vec![head.map(String::from).to_vec()];
    for route in &routes {
        let text = |key: &str| route[key].as_str().unwrap_or_default().to_owned();
        let domain = route["relationships"]["domain"]["data"]["guid"].as_str().unwrap_or_default();
        let ends: Vec<&Value> = route["destinations"].as_array().into_iter().flatten().collect();
        let of = |show: &dyn Fn(&Value) -> String| {
            let mut shown: Vec<String> = ends.iter().map(|end| show(end)).collect();
            shown.dedup();
            shown.join(", ")
        };
        rows.push(vec![
            space.name.clone(),
            text("host"),
            name(&domains, domain),
            route["port"].as_i64().map_or_else(String::new, |port| port.to_string()),
            text("path"),
            text("protocol"),
            of(&|end| end["protocol"].as_str().unwrap_or_default().to_owned()),
            of(&|end| name(&apps, end["app"]["guid"].as_str().unwrap_or_default())),
        ]);
    }
    say::table(&rows, "");
    Ok(())
}

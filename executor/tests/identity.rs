//! Who a container is, by its certificate.

mod cell;
#[path = "../../garden/tests/plot/mod.rs"]
mod plot;

use std::time::Duration;

use cell::{Cell, Settings, instance, sh};
use executor::{RunInfo, State};
use plot::wait_until;
use rcgen::{KeyPair, PublicKeyData as _};
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer as _, X509Certificate};

fn vouched(validity: Duration) -> Cell {
    Cell::with(Settings { validity: Some(validity), ..Settings::default() })
}

/// Begins the container `ig-1`, whose app reads its credentials first; its address.
fn begin(cell: &Cell) -> String {
    let app = "echo $CF_INSTANCE_CERT > /tmp/CF_INSTANCE_CERT; \
               echo $CF_INSTANCE_KEY > /tmp/CF_INSTANCE_KEY; \
               cat $CF_INSTANCE_CERT $CF_INSTANCE_KEY > /tmp/first && echo has; sleep 1000";
    let units = ["organization:o", "space:s", "app:a"].map(str::to_owned).to_vec();
    let run = RunInfo { organizational_units: units, ..instance("ig-1", sh("APP", app)) };
    cell.begin("ig-1", run);
    let running = cell.until("ig-1", "running", |container| container.state == State::Running);
    wait_until("the app has read them", || cell.lines("APP").contains(&"has".to_owned()));
    running.network.unwrap().internal_ip
}

/// What a variable of the app leads to.
fn inside(cell: &Cell, guid: &str, variable: &str) -> String {
    cell.plot.sh(guid, &format!("cat $(cat /tmp/{variable})")).output
}

#[test]
fn a_container_has_its_certificate_before_its_app_begins_and_gets_another_in_time() {
    // So short that it is replaced while somebody waits.
    let cell = vouched(Duration::from_secs(2));
    let address = begin(&cell);

    let chain = inside(&cell, "ig-1", "CF_INSTANCE_CERT");
    let certificates: Vec<_> =
        Pem::iter_from_buffer(chain.as_bytes()).map(Result::unwrap).collect();
    let (_, leaf) = X509Certificate::from_der(&certificates[0].contents).unwrap();
    let (_, issuer) = X509Certificate::from_der(&certificates[1].contents).unwrap();
    leaf.verify_signature(Some(issuer.public_key())).unwrap();
    let subject = leaf.subject().to_string();
    assert_eq!(subject, "OU=organization:o, OU=space:s, OU=app:a, CN=ig-1");
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    let names: Vec<_> = names.value.general_names.iter().map(ToString::to_string).collect();
    assert!(names.iter().any(|name| name.contains("ig-1")), "{names:?}");
    let octets: Vec<_> =
        address.split('.').map(|part| format!("{:02x}", part.parse::<u8>().unwrap())).collect();
    let by_address =
        names.iter().any(|name| name.contains(&octets.join(":")) || name.contains(&address));
    assert!(by_address, "{address}: {names:?}");

    // A later one is in the same place, with its key.
    wait_until("the certificate is replaced", || {
        inside(&cell, "ig-1", "CF_INSTANCE_CERT") != chain
    });
    wait_until("key and certificate are of one pair", || {
        let chain = inside(&cell, "ig-1", "CF_INSTANCE_CERT");
        let key = KeyPair::from_pem(&inside(&cell, "ig-1", "CF_INSTANCE_KEY")).unwrap();
        let pem = Pem::iter_from_buffer(chain.as_bytes()).next().unwrap().unwrap();
        let (_, leaf) = X509Certificate::from_der(&pem.contents).unwrap();
        *leaf.public_key().subject_public_key.data == *key.der_bytes()
    });
    let refused = cell.plot.sh("ig-1", "echo x > $(cat /tmp/CF_INSTANCE_KEY)");
    assert!(refused.error.contains("Read-only file system"), "{refused:?}");

    cell.delete("ig-1");
    assert!(cell.identities().is_empty(), "{:?}", cell.identities());
}

#[test]
fn the_next_executor_replaces_certificates_whose_age_it_does_not_know() {
    let mut cell = vouched(Duration::from_secs(24 * 3600));
    begin(&cell);
    let before = inside(&cell, "ig-1", "CF_INSTANCE_CERT");
    wait_until("the record", || cell.plot.garden().property("ig-1", "executor:running").is_ok());
    cell.abandon();
    cell.start();
    wait_until("another certificate", || inside(&cell, "ig-1", "CF_INSTANCE_CERT") != before);
}

//! Check definitions: what is probed to tell whether an instance is up.

use super::{Problems, Validate};
use crate::generated::models::{Check, CheckDefinition};

impl Validate for CheckDefinition {
    fn check(&self, problems: &mut Problems) {
        for check in self.checks.iter().chain(&self.readiness_checks) {
            check.check(problems);
        }
    }
}

impl Validate for Check {
    fn check(&self, problems: &mut Problems) {
        let port = match (self.tcp_check.as_option(), self.http_check.as_option()) {
            (Some(_), Some(_)) => return problems.invalid("check"),
            (Some(tcp), None) => tcp.port,
            (None, Some(http)) => http.port,
            (None, None) => 0,
        };
        problems.invalid_if(!(1..=65535).contains(&port), "port");
    }
}

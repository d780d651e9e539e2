//! Domains.

use super::{Problems, Validate};
use crate::generated::models::UpsertDomainRequest;

impl Validate for UpsertDomainRequest {
    fn check(&self, problems: &mut Problems) {
        problems.invalid_if(self.domain.is_empty(), "domain");
    }
}

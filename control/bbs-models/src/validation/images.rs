//! Image layers, cached dependencies and image credentials.

use super::actions::check_checksum;
use super::{Problems, Validate};
use crate::generated::models::image_layer::{DigestAlgorithm, MediaType, Type};
use crate::generated::models::{CachedDependency, ImageLayer};

impl Validate for ImageLayer {
    fn check(&self, problems: &mut Problems) {
        let algorithm = matches!(
            self.digest_algorithm.as_known(),
            Some(DigestAlgorithm::SHA256 | DigestAlgorithm::SHA512)
        );
        let value = !self.digest_value.is_empty();
        let layer = matches!(self.layer_type.as_known(), Some(Type::SHARED | Type::EXCLUSIVE));
        let media = matches!(
            self.media_type.as_known(),
            Some(MediaType::TGZ | MediaType::TAR | MediaType::ZIP)
        );
        let digest = algorithm || value || self.is_exclusive();
        problems.invalid_if(self.url.is_empty(), "url");
        problems.invalid_if(self.destination_path.is_empty(), "destination_path");
        problems.invalid_if(!layer, "layer_type");
        problems.invalid_if(!media, "media_type");
        problems.invalid_if(digest && !algorithm, "digest_algorithm");
        problems.invalid_if(digest && !value, "digest_value");
    }
}

impl ImageLayer {
    /// Belongs to one instance alone, which needs a user to download it as.
    fn is_exclusive(&self) -> bool {
        self.layer_type == Type::EXCLUSIVE
    }
}

pub(super) fn check_layers(layers: &[ImageLayer], download_user: &str, problems: &mut Problems) {
    for layer in layers {
        problems.within("image_layer", layer);
    }
    let exclusive = layers.iter().any(ImageLayer::is_exclusive);
    problems.invalid_if(exclusive && download_user.is_empty(), "legacy_download_user");
}

impl Validate for CachedDependency {
    fn check(&self, problems: &mut Problems) {
        problems.invalid_if(self.from.is_empty(), "from");
        problems.invalid_if(self.to.is_empty(), "to");
        check_checksum(&self.checksum_algorithm, &self.checksum_value, problems);
    }
}

/// User and password of an image's registry: both or neither.
pub(super) fn check_credentials(user: &str, password: &str, problems: &mut Problems) {
    problems.invalid_if(user.is_empty() && !password.is_empty(), "image_username");
    problems.invalid_if(!user.is_empty() && password.is_empty(), "image_password");
}

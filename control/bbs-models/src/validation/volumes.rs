//! Volume mounts and mounted files.

use super::{MAXIMUM_MOUNTED_FILES, Problems, Validate};
use crate::generated::models::{File, VolumeMount};

impl Validate for VolumeMount {
    fn check(&self, problems: &mut Problems) {
        if self.driver.is_empty() {
            problems.say("invalid volume_mount driver");
        }
        if !matches!(self.mode.as_str(), "r" | "rw") {
            problems.say("invalid volume_mount mode");
        }
        if self.shared.as_option().is_some_and(|device| device.volume_id.is_empty()) {
            problems.say("invalid volume_mount volume id");
        }
        if self.dedicated.as_option().is_some_and(|device| device.mounter_id.is_empty()) {
            problems.say("invalid volume_mount mounter id");
        }
    }
}

/// Whether the contents of all files together are larger than is allowed. Paths are not checked.
pub(super) fn are_too_large(files: &[File]) -> bool {
    files.iter().map(|file| file.content.len()).sum::<usize>() > MAXIMUM_MOUNTED_FILES
}

//! Actions, of which each kind says its own.

use super::{Problems, Validate};
use crate::generated::models::{
    Action, CodependentAction, DownloadAction, EmitProgressAction, ParallelAction, RunAction,
    SerialAction, TimeoutAction, TryAction, UploadAction,
};

impl Validate for Action {
    /// Two kinds in one action are accepted, and the first is the one that counts.
    fn check(&self, problems: &mut Problems) {
        let kinds: [Option<&dyn Checked>; 9] = [
            self.download_action.as_option().map(|kind| kind as _),
            self.upload_action.as_option().map(|kind| kind as _),
            self.run_action.as_option().map(|kind| kind as _),
            self.timeout_action.as_option().map(|kind| kind as _),
            self.emit_progress_action.as_option().map(|kind| kind as _),
            self.try_action.as_option().map(|kind| kind as _),
            self.parallel_action.as_option().map(|kind| kind as _),
            self.serial_action.as_option().map(|kind| kind as _),
            self.codependent_action.as_option().map(|kind| kind as _),
        ];
        match kinds.into_iter().flatten().next() {
            Some(kind) => kind.check(problems),
            None => problems.invalid("inner-action"),
        }
    }
}

/// [`Validate`] for one of several kinds.
trait Checked {
    fn check(&self, problems: &mut Problems);
}

impl<T: Validate> Checked for T {
    fn check(&self, problems: &mut Problems) {
        Validate::check(self, problems);
    }
}

impl Validate for RunAction {
    fn check(&self, problems: &mut Problems) {
        problems.invalid_if(self.path.is_empty(), "path");
        problems.invalid_if(self.user.is_empty(), "user");
    }
}

impl Validate for DownloadAction {
    fn check(&self, problems: &mut Problems) {
        problems.invalid_if(self.from.is_empty(), "from");
        problems.invalid_if(self.to.is_empty(), "to");
        problems.invalid_if(self.user.is_empty(), "user");
        check_checksum(&self.checksum_algorithm, &self.checksum_value, problems);
    }
}

/// A checksum's algorithm and value: both or neither, and an algorithm that cells know.
pub(super) fn check_checksum(algorithm: &str, value: &str, problems: &mut Problems) {
    if algorithm.is_empty() && value.is_empty() {
        return;
    }
    if algorithm.is_empty() {
        problems.invalid("checksum algorithm");
    } else if value.is_empty() {
        problems.invalid("checksum value");
    } else if !matches!(algorithm, "md5" | "sha1" | "sha256") {
        problems.invalid("invalid algorithm");
    }
}

impl Validate for UploadAction {
    fn check(&self, problems: &mut Problems) {
        problems.invalid_if(self.to.is_empty(), "to");
        problems.invalid_if(self.from.is_empty(), "from");
        problems.invalid_if(self.user.is_empty(), "user");
    }
}

impl Validate for TimeoutAction {
    fn check(&self, problems: &mut Problems) {
        check_inner(self.action.as_option(), problems);
        problems.invalid_if(self.timeout_ms <= 0, "timeout_ms");
    }
}

impl Validate for TryAction {
    fn check(&self, problems: &mut Problems) {
        check_inner(self.action.as_option(), problems);
    }
}

impl Validate for EmitProgressAction {
    fn check(&self, problems: &mut Problems) {
        check_inner(self.action.as_option(), problems);
    }
}

impl Validate for ParallelAction {
    fn check(&self, problems: &mut Problems) {
        check_list(&self.actions, problems);
    }
}

impl Validate for SerialAction {
    fn check(&self, problems: &mut Problems) {
        check_list(&self.actions, problems);
    }
}

impl Validate for CodependentAction {
    fn check(&self, problems: &mut Problems) {
        check_list(&self.actions, problems);
    }
}

fn check_inner(action: Option<&Action>, problems: &mut Problems) {
    match action {
        None => problems.invalid("action"),
        Some(action) => problems.within("action", action),
    }
}

fn check_list(actions: &[Action], problems: &mut Problems) {
    problems.invalid_if(actions.is_empty(), "actions");
    for (index, action) in actions.iter().enumerate() {
        problems.within(&format!("action at index {index}"), action);
    }
}

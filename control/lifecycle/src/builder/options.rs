//! The builder's flags, with the original's names and defaults (diego.md 13.1).

use std::ffi::OsString;
use std::path::PathBuf;

use crate::flags::{FlagError, Flags};

/// A build to be done.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) build_dir: PathBuf,
    pub(crate) output_droplet: PathBuf,
    pub(crate) output_metadata: PathBuf,
    pub(crate) output_cache: PathBuf,
    pub(crate) buildpacks_dir: PathBuf,
    pub(crate) cache_dir: PathBuf,
    /// Keys of installed buildpacks, in order.
    pub(crate) order: Vec<String>,
    /// The app names its buildpacks: all run, none is asked.
    pub(crate) skip_detect: bool,
}

impl Options {
    pub(crate) fn parse(arguments: &[OsString]) -> Result<Self, FlagError> {
        let valued = [
            "buildDir",
            "outputDroplet",
            "outputMetadata",
            "outputBuildArtifactsCache",
            "buildpacksDir",
            "buildpacksDownloadDir",
            "buildArtifactsCacheDir",
            "buildpackOrder",
            "credhubConnectAttempts",
            "credhubRetryDelay",
        ];
        let (flags, rest) = Flags::parse(arguments, &valued, &["skipDetect", "skipCertVerify"])?;
        if let Some(argument) = rest.into_iter().next() {
            return Err(FlagError::NotAFlag(argument));
        }
        flags.boolean("skipCertVerify")?;
        let path = |name, default: &str| PathBuf::from(flags.text(name, default));
        let order: Vec<String> = flags
            .text("buildpackOrder", "")
            .split(',')
            .filter(|key| !key.is_empty())
            .map(ToOwned::to_owned)
            .collect();
        if order.is_empty() {
            return Err(FlagError::Invalid {
                name: "buildpackOrder",
                value: String::new(),
                wanted: "a comma-separated list of buildpacks",
            });
        }
        Ok(Self {
            build_dir: path("buildDir", "/tmp/app"),
            output_droplet: path("outputDroplet", "/tmp/droplet"),
            output_metadata: path("outputMetadata", "/tmp/result.json"),
            output_cache: path("outputBuildArtifactsCache", "/tmp/output-cache"),
            buildpacks_dir: path("buildpacksDir", "/tmp/buildpacks"),
            cache_dir: path("buildArtifactsCacheDir", "/tmp/cache"),
            order,
            skip_detect: flags.boolean("skipDetect")?,
        })
    }
}

//! Packages, droplets, buildpacks and application files, by key.

#![forbid(unsafe_code)]

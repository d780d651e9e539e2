//! The Cloud Controller API v3: orgs, spaces, apps, packages, builds, droplets, routes.

#![forbid(unsafe_code)]

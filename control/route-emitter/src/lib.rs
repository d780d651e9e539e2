//! Tells routers which instances answer for which routes.

#![forbid(unsafe_code)]

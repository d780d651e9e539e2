//! One container's cgroup, on cgroup v2 and on hosts that bind controllers to v1.

#![forbid(unsafe_code)]

//! Test machines: QEMU guests, cloned from a template, on a switch inside the harness.

#![forbid(unsafe_code)]

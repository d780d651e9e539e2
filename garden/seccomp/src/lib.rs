//! Seccomp profiles compiled to BPF: a plain program, a compact one, and the proof that they agree.

#![forbid(unsafe_code)]

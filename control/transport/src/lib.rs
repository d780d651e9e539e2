//! How the control plane's parts reach each other: mutual TLS, loopback and unix sockets, for servers and clients.

#![forbid(unsafe_code)]

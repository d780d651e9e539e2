//! The BBS's protobuf messages (package models), their validation and their JSON forms.

#![forbid(unsafe_code)]

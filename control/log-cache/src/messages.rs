//! The messages and services as they are compiled from `proto/`.

/// Loggregator's.
pub mod loggregator {
    /// Version 2.
    #[allow(missing_docs, missing_debug_implementations, clippy::all)]
    pub mod v2 {
        tonic::include_proto!("loggregator.v2");
    }
}

/// Log Cache's.
pub mod logcache {
    /// Version 1.
    #[allow(missing_docs, missing_debug_implementations, clippy::all)]
    pub mod v1 {
        tonic::include_proto!("logcache.v1");
    }
}

//! Compiles the messages and the services, without protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["proto/logcache.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .build_transport(false)
        // Maps in order, so that equal envelopes are equal bytes; payloads without copies.
        .btree_map(".")
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}

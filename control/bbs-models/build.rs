//! Compiles `proto/` without protoc: protox makes a descriptor set, buffa generates from it.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = proto_files(Path::new("proto"))?;

    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_files(&files)?;
    let descriptors = PathBuf::from(env::var("OUT_DIR")?).join("models.descriptors");
    fs::write(&descriptors, compiler.encode_file_descriptor_set())?;
    // The generator has cargo watch this file, which is newer than the start of this program: unless
    // it looks old, every build is for cargo a change of this crate, and all above it are built again.
    fs::File::options().write(true).open(&descriptors)?.set_modified(SystemTime::UNIX_EPOCH)?;

    buffa_build::Config::new()
        .descriptor_set(descriptors)
        .files(&files)
        .include_file("models.tree.rs")
        .generate_views(false)
        .generate_with_setters(false)
        .idiomatic_field_names(true)
        .idiomatic_enum_aliases(false)
        .preserve_unknown_fields(true)
        // An action holds one of nine kinds: kept inline it would be as large as all nine together.
        .box_type_in(buffa_build::PointerRepr::Box, &[".models.Action", ".models.Check"])
        // Equal messages encode to equal bytes.
        .map_type(buffa_build::MapRepr::BTreeMap)
        .compile()
}

/// Names relative to `dir`, as the imports spell them.
fn proto_files(dir: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = PathBuf::from(entry?.file_name());
        if name.extension().is_some_and(|extension| extension == "proto") {
            files.push(name);
        }
    }
    files.sort();
    Ok(files)
}

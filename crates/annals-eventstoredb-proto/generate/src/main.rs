//! Generates `../src/generated` from `../proto`:
//! `cargo run --manifest-path crates/annals-eventstoredb-proto/generate/Cargo.toml`.
//! `protox` compiles the files, so `protoc` need not be installed. It also compiles the description by
//! which the gateway's test `recording` reads messages, independently of the generated code.

use std::{error::Error, fs, path::Path};

use prost::Message;

const FILES: [&str; 6] = [
    "streams.proto",
    "persistent.proto",
    "projections.proto",
    "serverfeatures.proto",
    "gossip.proto",
    "status.proto",
];
const RECORDED: [&str; 5] =
    ["streams.proto", "persistent.proto", "serverfeatures.proto", "gossip.proto", "status.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let descriptors = protox::compile(FILES, [package.join("proto")])?;
    let recording = package.join("../annals-gateway/tests/recording");
    // The first directory has the files that differ there.
    let mut recorded = protox::Compiler::new([recording.join("proto"), package.join("proto")])?;
    recorded.include_imports(true).open_files(RECORDED)?;
    fs::write(recording.join("protocol.bin"), recorded.file_descriptor_set().encode_to_vec())?;
    tonic_build::configure()
        .build_transport(false)
        .bytes(["."])
        // Answers to reads are moved about a lot, and most have one of the two.
        .boxed(".event_store.client.ReadEvent.event")
        .boxed(".event_store.client.ReadEvent.link")
        .disable_comments(".")
        .include_file("mod.rs")
        .out_dir(package.join("src/generated"))
        .compile_fds(descriptors)?;
    Ok(())
}

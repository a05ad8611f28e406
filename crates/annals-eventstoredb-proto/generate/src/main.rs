//! Generates `../src/generated` from `../proto`:
//! `cargo run --manifest-path crates/annals-eventstoredb-proto/generate/Cargo.toml`.
//! `protox` compiles the files, so `protoc` need not be installed. The compiled files are also written to
//! `protocol.bin`, by which a test of the gateway reads messages.

use std::{error::Error, fs, path::Path};

use prost::Message;

const FILES: [&str; 5] =
    ["streams.proto", "persistent.proto", "serverfeatures.proto", "gossip.proto", "status.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let descriptors = protox::compile(FILES, [package.join("proto")])?;
    let compiled = package.join("../annals-gateway/tests/recording/protocol.bin");
    fs::write(compiled, descriptors.encode_to_vec())?;
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

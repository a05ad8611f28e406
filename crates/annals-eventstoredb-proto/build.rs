//! Generates the protocol's messages and services. `protox` compiles them, so `protoc` need not be
//! installed.

use std::{error::Error, path::PathBuf};

const FILES: [&str; 4] =
    ["streams.proto", "persistent.proto", "serverfeatures.proto", "gossip.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    tonic_build::configure()
        .build_transport(false)
        .bytes(["."])
        .disable_comments(".")
        .include_file("proto.rs")
        .out_dir(out)
        .compile_fds(descriptors)?;
    Ok(())
}

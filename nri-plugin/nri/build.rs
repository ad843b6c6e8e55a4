//! Generates the messages of `proto/nri.proto` with generators written in Rust: no `protoc` is needed.

use std::error::Error;

const SCHEMA: &str = "proto/nri.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={SCHEMA}");
    let descriptors = protox::compile([SCHEMA], ["proto"])?;
    // Ordered maps: the same adjustment is the same bytes, in every run.
    prost_build::Config::new().btree_map(["."]).compile_fds(descriptors)?;
    Ok(())
}

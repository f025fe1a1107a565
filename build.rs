//! Turns the `.proto` files into Rust, in pure Rust: no `protoc` is needed.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use prost::Message;

/// The proxy's own services, and the part of etcd's that the proxy speaks; whether we serve it.
const FILES: [(&[&str], &str, bool); 2] = [
    (&["src/control/route.proto", "src/control/app.proto"], "control.bin", true),
    (&["src/store/etcd/rpc.proto"], "etcd.bin", false),
];

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    for (files, descriptors, is_served) in FILES {
        for file in files {
            println!("cargo::rerun-if-changed={file}");
        }
        let set = protox::compile(files, ["src"])?;
        // For server reflection.
        fs::write(out.join(descriptors), set.encode_to_vec())?;
        tonic_prost_build::configure()
            .build_server(is_served)
            .build_transport(is_served)
            .compile_fds(set)?;
    }
    println!("cargo::rerun-if-changed=build.rs");
    Ok(())
}

//! The kernel's socket kinds and the model's are the same function: the C header is compiled for this host and asked about
//! every family, type and protocol that either tells apart, and their neighbours.

use std::path::Path;
use std::process::Command;

use portcullis_policy::network::{Socket, SocketKind};

const PROGRAM: &str = r#"
#include <stdio.h>
#include "kinds.h"
int main(void) {
    unsigned f, t, p;
    for (f = 0; f < 64; f++) for (t = 0; t < 12; t++) for (p = 0; p < 300; p++) printf("%u ", socket_kind(f, t, p));
    return 0;
}
"#;

#[test]
fn every_socket_is_of_the_same_kind_on_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    let (source, program) = (dir.path().join("kinds.c"), dir.path().join("kinds"));
    std::fs::write(&source, PROGRAM).unwrap();
    let headers = Path::new(env!("CARGO_MANIFEST_DIR")).join("bpf");
    let status = Command::new("cc").arg("-I").arg(headers).arg("-o").arg(&program).arg(&source).status().unwrap();
    assert!(status.success(), "cc: {status}");
    let output = String::from_utf8(Command::new(&program).output().unwrap().stdout).unwrap();
    let mut kernel = output.split_ascii_whitespace();
    for family in 0..64 {
        for kind in 0..12 {
            for protocol in 0..300 {
                let model = SocketKind::of(Socket { family, kind, protocol });
                let kernel: usize = kernel.next().unwrap().parse().unwrap();
                assert_eq!(SocketKind::ALL[kernel], model, "family {family} type {kind} protocol {protocol}");
            }
        }
    }
}

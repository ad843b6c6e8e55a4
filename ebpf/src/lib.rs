//! All that Portcullis runs in the kernel, and the only crate that speaks `bpf(2)`.

pub mod abi;

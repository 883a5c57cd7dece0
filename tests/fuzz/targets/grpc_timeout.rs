//! Fuzzes the parser of grpc_timeout.

#![no_main]

#[path = "../properties.rs"]
#[allow(dead_code, reason = "each target checks one parser")]
mod properties;

libfuzzer_sys::fuzz_target!(|input: &[u8]| properties::grpc_timeout(input));

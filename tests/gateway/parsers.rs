//! What holds of the parsers that are ours, over a corpus of inputs and over random changes of them.

use std::fs;
use std::path::Path;

use rand::seq::IndexedRandom;

#[path = "../fuzz/properties.rs"]
mod properties;

/// Inputs made of each one of the corpus.
const CHANGED: usize = 200;

#[test]
fn whatever_a_traceparent_says_is_read_as_the_specification_says() {
    check("traceparent", properties::traceparent);
}

#[test]
fn whatever_a_tracestate_says_only_what_is_valid_goes_on() {
    check("tracestate", properties::tracestate);
}

#[test]
fn whatever_b3_says_is_read_as_its_specification_says() {
    check("b3", properties::b3);
}

#[test]
fn whatever_an_uber_trace_id_says_is_read_as_its_specification_says() {
    check("jaeger", properties::jaeger);
}

#[test]
fn whatever_a_path_says_it_is_normalised_as_the_rules_say() {
    check("path", properties::path);
}

#[test]
fn whatever_x_forwarded_for_says_only_trusted_proxies_are_believed() {
    check("forwarded", properties::forwarded);
}

#[test]
fn whatever_a_proxy_says_of_the_client_is_read_to_its_end_and_no_further() {
    check("proxy", properties::proxy);
}

#[test]
fn however_the_frames_of_a_websocket_are_cut_its_close_is_seen() {
    check("websocket", properties::websocket);
}

#[test]
fn however_the_frames_of_http2_are_cut_they_cost_the_same() {
    check("http2", properties::http2);
}

#[test]
fn whatever_a_client_accepts_case_and_white_space_mean_nothing() {
    check("accept", properties::accept);
}

#[test]
fn whatever_retry_after_says_it_is_a_bounded_wait_or_none() {
    check("retry", properties::retry);
}

#[test]
fn whatever_a_grpc_timeout_says_it_is_passed_on_as_exactly_as_eight_digits_can() {
    check("grpc_timeout", properties::grpc_timeout);
}

#[test]
fn whatever_an_otlp_receiver_answers_its_partial_success_is_heard() {
    check("otlp", properties::otlp);
}

#[test]
fn whatever_a_token_and_a_set_of_keys_say_nothing_unsigned_is_valid() {
    check("jwt", properties::jwt);
}

#[test]
fn whatever_a_leaf_of_the_configuration_says_it_is_read_as_it_is_written() {
    check("leaf", properties::leaf);
}

#[test]
fn whatever_a_text_with_placeholders_says_its_pieces_are_those_of_the_text() {
    check("pattern", properties::pattern);
}

#[test]
fn whatever_a_document_says_its_beginning_has_what_the_whole_has() {
    check("pointer", properties::pointer);
}

#[test]
fn whatever_a_configuration_says_there_are_settings_or_problems() {
    check_some("configuration", 20, properties::configuration);
}

fn check(parser: &str, property: fn(&[u8])) {
    check_some(parser, CHANGED, property);
}

/// With so many changes of each input.
fn check_some(parser: &str, changes: usize, property: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(parser);
    let files = fs::read_dir(directory).expect("the corpus").map(|file| file.expect("a file").path());
    let corpus: Vec<Vec<u8>> = files.map(|file| fs::read(file).expect("an input")).collect();
    assert!(corpus.len() > 20, "{parser}: {}", corpus.len());
    for input in &corpus {
        property(input);
        for _ in 0..changes {
            property(&changed(input, &corpus));
        }
    }
}

/// One to four changes: another byte, one more, a piece left out or said twice, the end of another input.
fn changed(input: &[u8], corpus: &[Vec<u8>]) -> Vec<u8> {
    const TELLING: &[u8] = b"0123456789abcdefA-:%=,;@ot\n \t\0\xff/.\\\"{}[]~*";
    let mut input = input.to_vec();
    for _ in 0..rand::random_range(1..=4) {
        let (one, two) = (rand::random_range(0..=input.len()), rand::random_range(0..=input.len()));
        let (from, to) = (one.min(two), one.max(two));
        let byte = *TELLING.choose(&mut rand::rng()).expect("there are some");
        match rand::random_range(0..6) {
            0 => input.insert(from, byte),
            1 => input.splice(from..to.min(from + 1), [byte]).for_each(drop),
            2 => input.splice(from..to.min(from + 1), [rand::random()]).for_each(drop),
            3 => input.drain(from..to).for_each(drop),
            4 => input.extend_from_within(from..to),
            _ => {
                let other = corpus.choose(&mut rand::rng()).expect("there are some");
                input.truncate(from);
                input.extend_from_slice(&other[from.min(other.len())..]);
            }
        }
        input.truncate(4096);
    }
    input
}

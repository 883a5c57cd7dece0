//! What holds of the parsers of trace context, over a corpus of inputs and over random changes of them.

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

fn check(parser: &str, property: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(parser);
    let files = fs::read_dir(directory).expect("the corpus").map(|file| file.expect("a file").path());
    let corpus: Vec<Vec<u8>> = files.map(|file| fs::read(file).expect("an input")).collect();
    assert!(corpus.len() > 20, "{parser}: {}", corpus.len());
    for input in &corpus {
        property(input);
        for _ in 0..CHANGED {
            property(&changed(input, &corpus));
        }
    }
}

/// One to four changes: another byte, one more, a piece left out or said twice, the end of another input.
fn changed(input: &[u8], corpus: &[Vec<u8>]) -> Vec<u8> {
    const TELLING: &[u8] = b"0123456789abcdefA-:%=,;@ot\n \t\0\xff";
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

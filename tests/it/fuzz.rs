//! What the fuzzer tries (`fuzz/`), tried without it: real messages and files, damaged ones, and what once went wrong.
//!
//! `RETENTIOND_CORPUS=fuzz/corpus` writes the sound inputs there, for a fuzzer to start from; what it finds goes to
//! `fuzz/found/TARGET/` and is tried here from then on.

#[path = "../../fuzz/targets/mod.rs"]
mod targets;

use std::fs;
use std::path::Path;

use rand::prelude::*;
use rand_chacha::ChaCha8Rng;
use retentiond::checkpoint::sections::Sections;
use retentiond::decode::Format;

use super::formats::fixtures;
use crate::support::damage::damage;
use crate::support::effort::effort;
use targets::decode::SEPARATOR;
use targets::framed;

type Seeds = Vec<Vec<u8>>;

/// Value, key and headers as the targets take them apart.
fn joined(chooser: Option<u8>, parts: &[&[u8]]) -> Vec<u8> {
    chooser.into_iter().chain(parts.join(&SEPARATOR)).collect()
}

/// Every message below `tests/formats`, by every decoder of its format.
fn messages() -> Seeds {
    let mut seeds = Seeds::new();
    for fixture in fixtures::all() {
        let message = fixture.message();
        let mut parts = vec![message.payload.unwrap_or(b"null"), message.key.unwrap_or_default()];
        for (name, value) in &message.headers {
            parts.extend([name.as_bytes(), value.unwrap_or_default()]);
        }
        let choosers = targets::decode::choosers(fixture.format).into_iter();
        seeds.extend(choosers.map(|chooser| joined(Some(chooser), &parts)));
    }
    let rows = b"order_id,customer_id,time,amount,currency,channel\no-1,c-1,2026-01-02T03:04:05Z,72.12,EUR,web";
    seeds.push(joined(Some(targets::decode::chooser_of_rows()), &[rows]));
    seeds
}

const ORDER: &[u8] = br#"{"type":"order","order_id":"o-1","customer_id":"c-1","time":"2026-01-02T03:04:05.678Z","amount":"72.12","currency":"EUR","attributes":{"channel":"web"}}"#;

fn framed_values() -> Seeds {
    let by_header = |place: &[u8], value: &[u8]| {
        let mut header = [1; 17];
        header[16] = place[0];
        [&header[..], value].concat()
    };
    vec![
        ORDER.to_vec(),
        framed::avro_order(),
        [&[0][..], &framed::protobuf_order()].concat(),
        by_header(&[0], ORDER),
        by_header(&[1], &framed::avro_order()),
        by_header(&[2], &framed::protobuf_order()),
    ]
}

fn schemas() -> Seeds {
    let protobuf = [&[0][..], &framed::protobuf_order()].concat();
    let all = [(0, "{}", ORDER.to_vec()), (1, framed::AVRO, framed::avro_order()), (2, framed::PROTOBUF, protobuf)];
    let seed = |(kind, text, value): (u8, &str, Vec<u8>)| {
        let length = u16::try_from(text.len()).unwrap().to_le_bytes();
        [&[kind][..], &length, text.as_bytes(), &value].concat()
    };
    all.map(seed).into()
}

fn golden(name: &str) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/checkpoint-v2");
    fs::read(root.join(name)).unwrap()
}

fn checkpoints() -> Seeds {
    let file = |name: &str| golden(&format!("shop=2Feu/p3/{name}"));
    let (state, seen) = (file("0000000003-0000000000000383.state"), file("0000000003-0000000000000383.seen"));
    let sections = Sections::decode(&state).unwrap();
    let fingerprints = Sections::decode(&seen).unwrap().get("seen").unwrap().to_vec();
    // Those that need no array are whole by themselves; see `part` of the rows' asides for the numbers.
    let empty = serde_json::to_vec(&retentiond::engine::state::Scalars::default()).unwrap();
    let seed = |what: u8, parts: &[&[u8]]| [&[what], &parts.concat()[..]].concat();
    vec![
        seed(0, &[b"v1;genesis;1767323045678;5d0fe6c4"]),
        seed(0, &[b"v1;p3/0000000003-0000000000000383.json;0123456789abcdef0123456789abcdef"]),
        seed(1, &[&file("0000000003-0000000000000383.json")]),
        seed(2, &[&state]),
        seed(2, &[&seen]),
        seed(3, &[&fingerprints]),
        // Two orders; an order in the journal.
        seed(4, &[&[1, 2, 2, 4, 3, 1, 2, 1, 0, 20]]),
        seed(5, &[&empty, &[0, 0]]),
        seed(5, &[sections.get("scalars").unwrap(), &[0], sections.get("arrays").unwrap()]),
    ]
}

fn dead_letters() -> Seeds {
    let alert = br#"{"specversion":"1.0","id":"0a1b","type":"retentiond.customer.inactive.v1"}"#;
    let headers: [&[u8]; 6] = [
        b"retentiond.error.reason",
        b"too_late: x",
        b"retentiond.error.topic",
        b"orders",
        b"retentiond.error.partition",
        b"3",
    ];
    vec![joined(None, &[alert, b"c-1"]), joined(None, &[&[&alert[..], b"c-1"], &headers[..]].concat())]
}

fn seeds(target: &str) -> Seeds {
    match target {
        "decode" => messages(),
        "framed" => framed_values(),
        "schema" => schemas(),
        "checkpoint" => checkpoints(),
        "rows" => vec![golden("shop=2Feu/p3/0000000003-0000000000000383.parquet")],
        "outbox" => dead_letters(),
        other => panic!("the target {other} has no seeds"),
    }
}

#[test]
fn every_target_gets_as_far_as_what_is_sound() {
    let corpus = std::env::var_os("RETENTIOND_CORPUS");
    for (name, target) in targets::ALL {
        let seeds = seeds(name);
        if let Some(corpus) = &corpus {
            let directory = Path::new(corpus).join(name);
            fs::create_dir_all(&directory).unwrap();
            for (number, seed) in seeds.iter().enumerate() {
                fs::write(directory.join(format!("seed-{number:03}")), seed).unwrap();
            }
        }
        let understood: Vec<bool> = seeds.iter().map(|seed| target(seed)).collect();
        if name == "decode" {
            // Most fixtures show what is skipped or refused, or need options of their own.
            let sound = understood.iter().filter(|understood| **understood).count();
            assert!(sound * 5 > seeds.len(), "{sound} of {} messages", seeds.len());
            for format in Format::ALL {
                let of = |seed: &&Vec<u8>| targets::decode::choosers(format).contains(&seed[0]) && target(seed);
                assert!(seeds.iter().any(|seed| of(&seed)), "no {}", format.name());
            }
            assert_eq!(understood.last(), Some(&true), "a row of CSV");
        } else {
            assert!(understood.iter().all(|understood| *understood), "{name}: {understood:?}");
        }
    }
}

#[test]
fn damaged_bytes_panic_nowhere() {
    let cases = effort().fuzz_inputs;
    let mut random = ChaCha8Rng::seed_from_u64(20_260_102);
    for (name, target) in targets::ALL {
        let seeds = seeds(name);
        let mut understood = 0;
        for case in 0..cases {
            let mut bytes = seeds[case % seeds.len()].clone();
            let other = &seeds[random.random_range(0..seeds.len())];
            damage(&mut random, &mut bytes, other);
            let shown = bytes.clone();
            let outcome = std::panic::catch_unwind(move || target(&bytes));
            let Ok(outcome) = outcome else {
                let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("found").join(name);
                fs::create_dir_all(&directory).unwrap();
                fs::write(directory.join(case.to_string()), shown).unwrap();
                panic!("{name} panicked; what it was given is {}", directory.join(case.to_string()).display());
            };
            understood += usize::from(outcome);
        }
        assert!(understood > 0 && understood < cases, "{name}: {understood} of {cases} were understood all the same");
    }
}

#[test]
fn what_once_panicked_does_no_longer() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/found");
    for (name, target) in targets::ALL {
        let Ok(entries) = fs::read_dir(root.join(name)) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            eprintln!("{}", path.display());
            target(&fs::read(path).unwrap());
        }
    }
}

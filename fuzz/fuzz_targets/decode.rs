//! Any bytes in every format: the first byte chooses it, the rest is the value.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use retentiond::decode::{Decoded, Decoder, Format};
use retentiond::event::Time;

static DECODERS: LazyLock<Vec<Decoder>> = LazyLock::new(|| {
    let dimensions = || vec!["channel".to_owned(), "country".to_owned()];
    Format::ALL.into_iter().map(|format| Decoder::new(format, dimensions())).collect()
});

fuzz_target!(|bytes: &[u8]| {
    let Some((first, value)) = bytes.split_first() else { return };
    let decoder = &DECODERS[usize::from(*first) % DECODERS.len()];
    if let Ok(Decoded::Event(event)) = decoder.decode(Some(b"c-1"), Some(value), Time::MAX) {
        assert!(!event.customer.is_empty() && event.time <= Time::MAX);
    }
});

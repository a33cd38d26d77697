//! Any bytes as the files of a checkpoint and as the metadata of a committed offset.

#![no_main]

use libfuzzer_sys::fuzz_target;
use retentiond::checkpoint::digest;
use retentiond::checkpoint::manifest::{Manifest, ManifestRef};
use retentiond::checkpoint::metadata::Metadata;
use retentiond::checkpoint::sections::{decode_seen, decode_state};

fuzz_target!(|bytes: &[u8]| {
    _ = decode_state(bytes);
    _ = decode_seen(bytes);
    // With its own digest, or nothing behind that check would ever be reached.
    let named = ManifestRef { name: "m".to_owned(), digest: digest(bytes) };
    _ = Manifest::decode(bytes, &named);
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(metadata) = text.parse::<Metadata>()
    {
        assert_eq!(metadata.to_string().parse(), Ok(metadata));
    }
});

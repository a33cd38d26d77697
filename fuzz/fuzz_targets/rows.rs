#![no_main]

#[path = "../targets/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(
    // A panic that becomes an error is none; the fuzzer's own hook would end the run all the same.
    init: std::panic::set_hook(Box::new(|_| {})),
    |bytes: &[u8]| {
        targets::checkpoint::rows(bytes);
    }
);

#![no_main]

#[path = "../targets/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(
    // The decoder converts panics of libraries to errors; the fuzzer's own panic hook would end the run.
    init: std::panic::set_hook(Box::new(|_| {})),
    |bytes: &[u8]| {
        targets::checkpoint::rows(bytes);
    }
);

//! The first byte of an input says which target it is for, so that one program with one corpus serves all.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((target, rest)) = data.split_first() else { return };
    match target {
        b'g' => kip_gateway::fuzz::guard(rest),
        b'r' => kip_gateway::fuzz::router(rest),
        b'm' => kip_gateway::fuzz::model(rest),
        b'h' => kip_relay::fuzz_headers(rest),
        _ => {}
    }
});

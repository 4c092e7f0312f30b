//! A driver from before processes could be frozen, **for development only**: it has versions and nothing of the rest.
#![expect(unsafe_code, reason = "symbols are exported under the names of another library")]

#[unsafe(no_mangle)]
extern "C" fn cuInit(_flags: u32) -> i32 {
    0
}

#[unsafe(no_mangle)]
extern "C" fn cuDriverGetVersion(version: Option<&mut i32>) -> i32 {
    version.map_or(1, |version| {
        *version = 12_020;
        0
    })
}

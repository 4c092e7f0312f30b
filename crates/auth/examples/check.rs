//! What checking a key costs, in nanoseconds, with few keys and with many.
//!
//! `cargo run --release -p kip-auth --example check`
#![expect(clippy::print_stdout, reason = "it prints what it measured")]

use std::sync::Arc;

use http::HeaderMap;
use kip_auth::{Author, Keys, NewKey, Seal, credential};
use kip_host::clock::monotonic_micros;
use kip_store::{Changes, SqliteControl};
use kip_wire::Role;

const CHECKS: u64 = 1_000_000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let data = tempfile::tempdir()?;
    let store = SqliteControl::open(&data.path().join("control.db"))?;
    let (keys, secret) = Keys::open(Changes::of_file(Arc::new(store)), data.path(), Seal::open(data.path())?).await?;
    let mut headers = HeaderMap::new();
    headers.insert("authorization", format!("Bearer {secret}").parse()?);
    for count in [1, 500] {
        for number in keys.list().len()..count {
            let name = format!("k{number}");
            keys.create(NewKey::bearer(name, Role::Invoke), Author::default()).await?;
        }
        let begun = monotonic_micros();
        let good = (0..CHECKS).filter(|_| keys.check(credential(&headers)).is_ok()).count();
        let cost = (monotonic_micros() - begun) * 1_000 / CHECKS;
        println!("{count} keys: {cost} ns a check ({good} of {CHECKS} good)");
    }
    Ok(())
}

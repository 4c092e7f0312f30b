//! Ten models on a device for two, for some days; `cargo xtask soak days` plays a hundred.

#[test]
fn ten_models_share_a_device_for_two() {
    let played = kip_sim::shared_card(10, 1);
    assert!(played.failure.is_none(), "{:?}", played.failure);
    assert!(played.requests > 10_000, "{}", played.requests);
    assert_eq!(played.answered, played.requests, "none is lost");
    // A wake of 500 ms, and a turn of 2 s of the model that has its place.
    assert!(played.quantile(990) <= 2_500, "p99 {} ms", played.quantile(990));
    assert!(played.quantile(500) > 0, "most requests need their model back");
}

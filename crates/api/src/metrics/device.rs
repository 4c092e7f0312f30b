//! Metrics of devices.

use std::collections::BTreeMap;
use std::fmt::Error;

use kip_wire::DeviceStatus;
use prometheus_client::encoding::MetricEncoder;

type Written = Result<(), Error>;

/// A number of each device that has it.
pub(super) fn each(
    devices: &[DeviceStatus],
    out: &mut MetricEncoder<'_>,
    of: fn(&DeviceStatus) -> Option<u64>,
) -> Written {
    for device in devices {
        if let Some(number) = of(device) {
            let number = i64::try_from(number).unwrap_or(i64::MAX);
            out.encode_family(&[("device", device.name.as_str())])?.encode_gauge(&number)?;
        }
    }
    Ok(())
}

/// The same of numbers with a fraction.
pub(super) fn each_part(
    devices: &[DeviceStatus],
    out: &mut MetricEncoder<'_>,
    of: fn(&DeviceStatus) -> Option<f64>,
) -> Written {
    for device in devices {
        if let Some(number) = of(device) {
            out.encode_family(&[("device", device.name.as_str())])?.encode_gauge(&number)?;
        }
    }
    Ok(())
}

pub(super) fn used(device: &DeviceStatus) -> Option<u64> {
    device.seen.as_ref().map(|seen| seen.total.saturating_sub(seen.free))
}

pub(super) fn utilization(device: &DeviceStatus) -> Option<f64> {
    Some(f64::from(device.seen.as_ref()?.utilization?) / 100.0)
}

pub(super) fn watts(device: &DeviceStatus) -> Option<f64> {
    Some(f64::from(device.seen.as_ref()?.milliwatts?) / 1_000.0)
}

pub(super) fn celsius(device: &DeviceStatus) -> Option<f64> {
    Some(f64::from(device.seen.as_ref()?.celsius?))
}

/// What instances of each function hold.
pub(super) fn held(devices: &[DeviceStatus], out: &mut MetricEncoder<'_>) -> Written {
    for device in devices {
        let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
        for user in &device.instances {
            if let Some(held) = user.held {
                *sums.entry(user.function.as_str()).or_default() += held;
            }
        }
        for (function, held) in sums {
            let held = i64::try_from(held).unwrap_or(i64::MAX);
            out.encode_family(&[("device", device.name.as_str()), ("function", function)])?.encode_gauge(&held)?;
        }
    }
    Ok(())
}

//! How much to reserve for a demand: machines that are paid by the month against machines that are paid by use.

use serde::Serialize;

use super::money::Money;

/// Prices of a machine for a month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanPrices {
    /// Of a function's machine, paid in advance.
    pub prepaid: Money,
    /// Of a function's machine, paid by use, for a whole month of use.
    pub on_demand: Money,
    /// Of a server of one's own.
    pub server: Money,
    /// Of a load balancer in front of one's own servers.
    pub balancer: Money,
}

/// How many machines are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// At the peak.
    pub peak: u32,
    /// The mean load, as a part of the peak.
    pub load: Money,
    /// The part of the work that is done on demand.
    pub burst: Money,
}

/// A demand or prices cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A part is no part.
    #[error("{0} must be between 0 and 1")]
    Part(&'static str),
    /// A price is nothing or below.
    #[error("{0} must be above 0")]
    Price(&'static str),
    /// There is no demand.
    #[error("there is no demand: the curve has no numbers")]
    Nothing,
}

/// A way to have the machines, and what it costs in a month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Which.
    pub scheme: &'static str,
    /// How many machines, in 12 places.
    pub machines: Money,
    /// The machines' price.
    pub compute: Money,
    /// With the load balancer.
    pub total: Money,
    /// The part on demand at which functions cost as much, without the balancer and with it; none for functions themselves.
    pub break_even: Option<(Money, Money)>,
}

/// Functions beside one's own servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// Machines that the mean load needs.
    pub mean: Money,
    /// The rows; functions come first.
    pub rows: Vec<Row>,
}

/// Compares functions, prepaid for the mean load with a part on demand, with one's own servers: for the peak, and scaled to a
/// utilisation of 50 % and of 70 %.
///
/// # Errors
/// [`PlanError`].
pub fn compare(demand: Demand, prices: PlanPrices) -> Result<Comparison, PlanError> {
    let one = Money::whole(1);
    for (name, part) in [("the load", demand.load), ("the part on demand", demand.burst)] {
        if part < Money::ZERO || part > one {
            return Err(PlanError::Part(name));
        }
    }
    for (name, price) in [("the prepaid price", prices.prepaid), ("the price on demand", prices.on_demand)] {
        if price <= Money::ZERO {
            return Err(PlanError::Price(name));
        }
    }
    let peak = Money::whole(i64::from(demand.peak));
    let mean = peak.by(demand.load);
    if mean == Money::ZERO {
        return Err(PlanError::Nothing);
    }
    let (reserved, by_use) = (mean.by(prices.prepaid), mean.by(prices.on_demand));
    let functions = reserved + by_use.by(demand.burst);
    let mut rows = vec![Row {
        scheme: "functions, prepaid for the mean, the rest on demand",
        machines: mean,
        compute: functions,
        total: functions,
        break_even: None,
    }];
    let schemes = [
        ("servers for the peak", peak),
        ("servers, scaled at 50 % load", mean.times(2, 1)),
        ("servers, scaled at 70 % load", mean.times(10, 7)),
    ];
    for (scheme, machines) in schemes {
        let compute = machines.by(prices.server);
        let total = compute + prices.balancer;
        let even = |cost: Money| (cost - reserved).over(by_use).unwrap_or_default();
        rows.push(Row { scheme, machines, compute, total, break_even: Some((even(compute), even(total))) });
    }
    Ok(Comparison { mean, rows })
}

/// What to reserve for a curve of demand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Purchase {
    /// Machines to pay in advance.
    pub prepaid: u32,
    /// The price of these for the time of the curve, in months' prices.
    pub reserved: Money,
    /// The price of what is beyond them.
    pub on_demand: Money,
    /// Both.
    pub total: Money,
    /// The part of the work that is on demand.
    pub burst: Money,
    /// If everything were reserved for the peak.
    pub for_the_peak: Money,
    /// If everything were on demand.
    pub without_prepaid: Money,
    /// Reserving pays for a machine that is needed for more than this part of the time.
    pub threshold: Money,
}

/// How many machines to pay in advance so that a demand costs least. The curve has the machines that are needed, at equal distances in
/// time.
///
/// # Errors
/// [`PlanError`].
pub fn purchase(curve: &[Money], prices: PlanPrices) -> Result<Purchase, PlanError> {
    if prices.on_demand <= Money::ZERO {
        return Err(PlanError::Price("the price on demand"));
    }
    let peak = curve.iter().copied().max().filter(|peak| *peak > Money::ZERO).ok_or(PlanError::Nothing)?;
    let samples = i128::try_from(curve.len()).unwrap_or(i128::MAX);
    let beyond = |machines: u32| -> Money {
        let machines = Money::whole(i64::from(machines));
        let over: Money = curve.iter().map(|demand| (*demand - machines).max(Money::ZERO)).sum();
        over.times(1, samples)
    };
    let cost = |machines: u32| {
        let reserved = Money::whole(i64::from(machines)).by(prices.prepaid);
        (reserved + beyond(machines).by(prices.on_demand), reserved)
    };
    let most = (0..).find(|machines| Money::whole(i64::from(*machines)) >= peak).unwrap_or(0);
    let prepaid = (0..=most).min_by_key(|machines| cost(*machines).0).unwrap_or(0);
    let (total, reserved) = cost(prepaid);
    let all = beyond(0);
    Ok(Purchase {
        prepaid,
        reserved,
        on_demand: total - reserved,
        total,
        burst: beyond(prepaid).over(all).unwrap_or_default(),
        for_the_peak: cost(most).1,
        without_prepaid: cost(0).0,
        threshold: prices.prepaid.over(prices.on_demand).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn money(text: &str) -> Money {
        text.parse().unwrap()
    }

    fn prices() -> PlanPrices {
        PlanPrices {
            prepaid: money("246.27"),
            on_demand: money("892.80"),
            server: money("219"),
            balancer: money("526.52"),
        }
    }

    /// The published comparison of self-built servers with functions, exact: it prints 738 for 738.81 and so 1005.8 for the sum.
    #[test]
    fn the_published_table() {
        let demand = Demand { peak: 10, load: money("0.3"), burst: money("0.1") };
        let found = compare(demand, prices()).unwrap();
        let rows: Vec<[String; 3]> = found
            .rows
            .iter()
            .map(|row| [row.machines.rounded(2), row.compute.rounded(2), row.total.rounded(2)])
            .collect();
        assert_eq!(rows[0], ["3.00", "1006.65", "1006.65"]);
        assert_eq!(rows[1], ["10.00", "2190.00", "2716.52"]);
        assert_eq!(rows[2], ["6.00", "1314.00", "1840.52"]);
        assert_eq!(rows[3], ["4.29", "938.57", "1465.09"]);
        let even: Vec<[String; 2]> = found
            .rows
            .iter()
            .filter_map(|row| row.break_even)
            .map(|(without, with)| [without.rounded(3), with.rounded(3)])
            .collect();
        assert_eq!(even, [["0.542", "0.738"], ["0.215", "0.411"], ["0.075", "0.271"]]);
        let wrong = Demand { load: money("1.5"), ..demand };
        assert_eq!(compare(wrong, prices()), Err(PlanError::Part("the load")));
        assert_eq!(compare(Demand { peak: 0, ..demand }, prices()), Err(PlanError::Nothing));
    }

    /// A machine is reserved if it is needed for more than prepaid/on-demand of the time.
    #[test]
    fn what_to_reserve() {
        // One machine always, a second for half of the time, a third for a fifth of it.
        let curve: Vec<Money> =
            (0..10).map(|tenth| Money::whole(1 + i64::from(tenth < 5) + i64::from(tenth < 2))).collect();
        let found = purchase(&curve, prices()).unwrap();
        assert_eq!((found.prepaid, found.threshold.rounded(3).as_str()), (2, "0.276"));
        assert_eq!(found.total, money("246.27").times(2, 1) + money("892.80").times(2, 10));
        assert_eq!(found.burst.rounded(3), "0.118", "0.2 of 1.7");
        assert_eq!(found.for_the_peak, money("738.81"));
        assert_eq!(purchase(&[], prices()), Err(PlanError::Nothing));
    }
}

//! `kip cost`: what functions cost, and how much to reserve.

use anyhow::Context as _;
use kip_records::cost::{Comparison, Demand, Money, PlanError, PlanPrices, PriceBook, Purchase, compare, purchase};
use kip_spec::{Problem, code};
use kip_wire::{Cost, CostReport, FunctionCost};

use crate::arguments::Connection;
use crate::arguments::cost::{CostCommand, Costs, PlanArguments};
use crate::client::{Client, segment};
use crate::output::{Output, millis, table};

/// `kip cost`.
pub(crate) async fn run(connection: &Connection, options: &Costs, output: Output) -> anyhow::Result<()> {
    match &options.command {
        Some(CostCommand::Plan(arguments)) => plan(arguments, output),
        Some(CostCommand::Book) => book(output),
        None => {
            let client = Client::find(connection)?;
            let path = match &options.function {
                Some(name) => format!("/api/v1/cost?function={}", segment(name)),
                None => "/api/v1/cost".to_owned(),
            };
            let report: CostReport = client.get(&path).await?;
            output.result(&report, |report| shown(report, options.function.is_some()))
        }
    }
}

fn cells(name: &str, cost: &Cost) -> Vec<String> {
    let saved = match (cost.cost.parse::<Money>(), cost.cost_all_active.parse::<Money>()) {
        (Ok(paid), Ok(full)) => (full - paid).share_of(full).map(|share| format!("{:.0} %", share * 100.0)),
        _ => None,
    };
    vec![
        name.to_owned(),
        cost.requests.to_string(),
        millis(cost.active_ms),
        millis(cost.idle_ms),
        cost.units.clone(),
        cost.cost.clone(),
        cost.cost_all_active.clone(),
        saved.unwrap_or_else(|| "-".to_owned()),
    ]
}

fn shown(report: &CostReport, by_version: bool) -> String {
    let mut rows = Vec::new();
    for function in &report.functions {
        rows.push(cells(function.function.as_str(), &function.sum));
        for version in function.versions.iter().filter(|_| by_version) {
            rows.push(cells(&format!("  {}", version.label), &version.cost));
        }
    }
    let header = ["FUNCTION", "#REQUESTS", "#ACTIVE", "#IDLE", "#UNITS", "#COST", "#ALL ACTIVE", "#SAVED"];
    let mut text = table(&header, &rows);
    text += &format!(
        "total {} {}; {} if all time were active ({})\n",
        report.total, report.currency, report.total_all_active, report.book
    );
    for FunctionCost { function, unpriced, .. } in &report.functions {
        if let Some(kind) = unpriced {
            text += &format!(
                "{function}: the price book has no price for devices of type `{kind}`, which are not counted\n"
            );
        }
    }
    text
}

/// The built-in price book, as a file to start from.
fn book(output: Output) -> anyhow::Result<()> {
    let book = PriceBook::function_compute();
    let text = toml::to_string(&book)?;
    output.result(&book, |_| text)
}

fn plan(arguments: &PlanArguments, output: Output) -> anyhow::Result<()> {
    let PlanArguments { prepaid, on_demand, server, balancer, .. } = arguments;
    let prices = PlanPrices { prepaid: *prepaid, on_demand: *on_demand, server: *server, balancer: *balancer };
    match &arguments.curve {
        Some(file) => {
            let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
            let curve = curve(&text).map_err(|line| {
                let message = format!("{}, line {line}: not a number of machines", file.display());
                Problem::new(code::COMMAND_INPUT, message)
                    .hint("write one number in each line, such as 2.5, at equal times")
            })?;
            let found = purchase(&curve, prices).map_err(wrong)?;
            output.result(&found, purchased)
        }
        None => {
            let demand = Demand { peak: arguments.peak, load: arguments.load, burst: arguments.burst };
            let found = compare(demand, prices).map_err(wrong)?;
            let shown = |found: &Comparison| compared(found, arguments);
            output.result(&found, shown)
        }
    }
}

fn wrong(error: PlanError) -> Problem {
    Problem::new(code::COMMAND_INPUT, error.to_string()).hint("`kip cost plan --help` has an example")
}

/// One number in each line. A line that is none is named by its number.
fn curve(text: &str) -> Result<Vec<Money>, usize> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    let number = |(at, line): (usize, &str)| {
        let value = line.trim().parse::<Money>().map_err(|_| at + 1)?;
        if value < Money::ZERO { Err(at + 1) } else { Ok(value) }
    };
    lines.map(number).collect()
}

fn compared(found: &Comparison, arguments: &PlanArguments) -> String {
    let percent = |part: Money| format!("{} %", part.times(100, 1).rounded(1));
    let rows: Vec<Vec<String>> = found
        .rows
        .iter()
        .map(|row| {
            vec![
                row.scheme.to_owned(),
                row.machines.rounded(2),
                row.compute.rounded(2),
                row.total.rounded(2),
                row.break_even.map_or_else(|| "-".to_owned(), |(without, _)| percent(without)),
                row.break_even.map_or_else(|| "-".to_owned(), |(_, with)| percent(with)),
            ]
        })
        .collect();
    let header = ["SCHEME", "#MACHINES", "#COMPUTE", "#WITH BALANCER", "#BREAK-EVEN", "#WITH BALANCER"];
    let mut text = table(&header, &rows);
    text += &format!(
        "the mean load needs {} machines; {} of the work is on demand\n",
        found.mean.rounded(2),
        percent(arguments.burst)
    );
    text + "functions cost less than a row while the part on demand is below its break-even\n"
}

fn purchased(found: &Purchase) -> String {
    format!(
        "reserve {} machines: {} in all ({} reserved, {} on demand for {} % of the work)\n\
         everything reserved for the peak: {}\n\
         everything on demand: {}\n\
         a machine pays for itself if it is needed for more than {} % of the time\n",
        found.prepaid,
        found.total.rounded(2),
        found.reserved.rounded(2),
        found.on_demand.rounded(2),
        found.burst.times(100, 1).rounded(1),
        found.for_the_peak.rounded(2),
        found.without_prepaid.rounded(2),
        found.threshold.times(100, 1).rounded(1),
    )
}

/// What the price book of a file says.
///
/// # Errors
/// Where it is none.
pub(crate) fn read_book(text: &str) -> Result<PriceBook, String> {
    let book: PriceBook = toml::from_str(text).map_err(|error| error.to_string())?;
    book.check().map_err(|error| error.to_string())?;
    Ok(book)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_book_is_written_and_read_back() {
        let book = PriceBook::function_compute();
        assert_eq!(read_book(&toml::to_string(&book).unwrap()).unwrap(), book);
        assert!(read_book("name = \"x\"\ncurrency = \"EUR\"\ntiers = []\n").unwrap_err().contains("no tiers"));
        assert!(read_book("name = \"x\"\n").unwrap_err().contains("currency"));
        let text = toml::to_string(&book).unwrap().replace("0.00002\"", "cheap\"");
        assert!(read_book(&text).unwrap_err().contains("no amount"));
    }

    #[test]
    fn a_curve_is_a_number_a_line() {
        assert_eq!(curve("# machines\n1\n2.5\n\n0\n").unwrap().len(), 3);
        assert_eq!(curve("1\nx\n"), Err(2));
        assert_eq!(curve("-1\n"), Err(1));
    }
}

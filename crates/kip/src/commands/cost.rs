//! `kip cost`: what functions cost, and how much to reserve.

use std::collections::BTreeMap;

use anyhow::Context as _;
use kip_control::DecisionRecord;
use kip_fleet::State;
use kip_fleet::state::{NAMES, PriceClass};
use kip_records::cost::{
    Card, Comparison, Demand, Money, PlanError, PlanPrices, PriceBook, Purchase, compare, purchase,
};
use kip_spec::{Problem, code};
use kip_wire::{Budget, Cost, CostReport, CostTable, FunctionCost};

use crate::arguments::Connection;
use crate::arguments::cost::{CardArguments, CostCommand, CostDimension, Costs, PlanArguments};
use crate::client::{Client, data_directory, segment};
use crate::output::{Output, clock, millis, table};

/// `kip cost`.
pub(crate) async fn run(connection: &Connection, options: &Costs, output: Output) -> anyhow::Result<()> {
    match &options.command {
        Some(CostCommand::Plan(arguments)) => plan(arguments, output),
        Some(CostCommand::Book) => book(output),
        Some(CostCommand::Set(arguments)) => set(connection, arguments, output),
        None => {
            let client = Client::find(connection)?;
            if let (Some(function), Some(instance)) = (&options.function, &options.instance) {
                return life(&client, function, instance, output).await;
            }
            if !options.by.is_empty() || options.last.is_some() {
                return days(&client, options, output).await;
            }
            let path = match &options.function {
                Some(name) => format!("/api/v1/cost?function={}", segment(name)),
                None => "/api/v1/cost".to_owned(),
            };
            let report: CostReport = client.get(&path).await?;
            let warnings = exceeded(&client, output).await;
            output.result(&report, |report| shown(report, options) + &warnings)
        }
    }
}

/// The cost of the last days, by what was asked for.
async fn days(client: &Client, options: &Costs, output: Output) -> anyhow::Result<()> {
    use clap::ValueEnum as _;
    let name = |by: &CostDimension| by.to_possible_value().map(|value| value.get_name().to_owned());
    let by: Vec<String> = options.by.iter().filter_map(name).collect();
    let by = if by.is_empty() { "function".to_owned() } else { by.join(",") };
    let days = options.last.unwrap_or(7);
    let mut path = format!("/api/v1/cost/days?by={by}&days={days}");
    if let Some(name) = &options.function {
        path += &format!("&function={}", segment(name));
    }
    let report: CostTable = client.get(&path).await?;
    let warnings = exceeded(client, output).await;
    output.result(&report, |report| {
        let rows: Vec<Vec<String>> = report
            .rows
            .iter()
            .map(|row| {
                let mut cells = row.names.clone();
                cells.extend(figures(
                    (row.requests, row.active_ms, row.idle_ms),
                    [&row.units, &row.cost, &row.cost_all_active],
                ));
                cells
            })
            .collect();
        let mut header: Vec<String> = report.by.iter().map(|by| by.name().to_uppercase()).collect();
        header.extend(FIGURES.map(str::to_owned));
        let header: Vec<&str> = header.iter().map(String::as_str).collect();
        let mut text = format!("{} to {}, UTC\n", report.from, report.to) + &table(&header, &rows);
        text += &format!(
            "total {} {}; {} if all time were active ({})\n",
            report.total, report.currency, report.total_all_active, report.book
        );
        for kind in &report.unpriced {
            text += &format!("the price book has no price for devices of type `{kind}`, which are not counted\n");
        }
        text + &warnings
    })
}

/// Budgets that are exceeded, a line for each.
pub(crate) async fn exceeded(client: &Client, output: Output) -> String {
    if output.is_json() {
        return String::new();
    }
    // A key that may not ask, or an older server, has none to show.
    let budgets: Vec<Budget> = client.get("/api/v1/budgets").await.unwrap_or_default();
    budgets.iter().filter(|budget| budget.exceeded).map(|budget| format!("over budget: {}\n", used(budget))).collect()
}

/// What is spent of a budget, in words.
fn used(budget: &Budget) -> String {
    let Budget { kind, name, amount, currency, per, spent, since, .. } = budget;
    let (kind, per) = (kind.name(), per.name());
    format!("{kind} {name} has cost {spent} {currency} since {since}, of {amount} a {per}")
}

const FIGURES: [&str; 7] = ["#REQUESTS", "#ACTIVE", "#IDLE", "#UNITS", "#COST", "#ALL ACTIVE", "#SAVED"];

fn cells(name: &str, cost: &Cost) -> Vec<String> {
    let mut cells = vec![name.to_owned()];
    let counts = (cost.requests, cost.active_ms, cost.idle_ms);
    cells.extend(figures(counts, [&cost.units, &cost.cost, &cost.cost_all_active]));
    cells
}

/// Requests and times, then units, cost, and the cost if all time were active.
fn figures((requests, active, idle): (u64, u64, u64), [units, cost, full]: [&String; 3]) -> Vec<String> {
    let saved = match (cost.parse::<Money>(), full.parse::<Money>()) {
        (Ok(paid), Ok(full)) => (full - paid).share_of(full).map(|share| format!("{:.0} %", share * 100.0)),
        _ => None,
    };
    let saved = saved.unwrap_or_else(|| "-".to_owned());
    vec![requests.to_string(), millis(active), millis(idle), units.clone(), cost.clone(), full.clone(), saved]
}

/// The time of all functions: with work, awake without, and asleep, while other functions could use what it lent.
fn hours(report: &CostReport) -> String {
    let mut times: BTreeMap<&str, u64> = BTreeMap::new();
    for (state, time) in report.functions.iter().flat_map(|function| &function.sum.times) {
        *times.entry(state).or_default() += time;
    }
    let sum = |states: &[State]| states.iter().filter_map(|state| times.get(state.name())).sum::<u64>();
    let used = sum(&[State::Busy, State::Draining]);
    let asleep = sum(&[State::Paused, State::Parking, State::Parked, State::Spilling, State::Spilled]);
    let all: u64 = times.values().sum();
    let lent = sum(&[State::Parked, State::Spilling, State::Spilled]);
    format!(
        "{} used, {} awake without a request, {} asleep ({} lent by freezing)\n",
        millis(used),
        millis(all - used - asleep),
        millis(asleep),
        millis(lent)
    )
}

/// A row for each state that took time.
fn state_rows(name: &str, cost: &Cost) -> Vec<Vec<String>> {
    let all = cost.times.values().sum::<u64>().max(1);
    let known = NAMES.iter().filter_map(|state| Some((state, *cost.times.get(*state)?)));
    let row = |(state, time): (&&str, u64)| {
        vec![
            name.to_owned(),
            (*state).to_owned(),
            class(state).to_owned(),
            millis(time),
            format!("{} %", time * 100 / all),
        ]
    };
    known.map(row).collect()
}

/// How a state is priced.
fn class(name: &str) -> &'static str {
    match State::named(name).map(State::price) {
        Some(PriceClass::Active) => "active",
        Some(PriceClass::ActiveOrIdle) => "active, or idle if it is paused when idle",
        Some(PriceClass::Idle) => "idle",
        Some(PriceClass::ActiveWithWork) => "active while work is in flight",
        Some(PriceClass::Free) | None => "-",
    }
}

/// What an instance was, from when to when.
#[derive(Debug, serde::Serialize)]
struct Stay {
    at: i64,
    state: String,
    for_ms: Option<u64>,
    price: &'static str,
    why: String,
}

/// The life of an instance: T0, T1 and so on, by the decisions about it.
async fn life(client: &Client, function: &str, instance: &str, output: Output) -> anyhow::Result<()> {
    let path = format!("/api/v1/functions/{}/decisions?limit=10000", segment(function));
    let mut all: Vec<DecisionRecord> = client.get(&path).await?;
    all.retain(|decision| decision.instance.as_deref() == Some(instance));
    all.reverse();
    if all.is_empty() {
        let problem =
            Problem::new(code::COMMAND_INPUT, format!("no decision about instance {instance} of {function} is kept"));
        return Err(problem.hint(format!("`kip ps` and `kip why {function}` list instances")).into());
    }
    let ends = all.iter().skip(1).map(|next| Some(next.at)).chain([None]);
    // The last decision about an instance that is gone says so.
    let stays: Vec<Stay> = all
        .iter()
        .zip(ends)
        .filter(|(decision, _)| State::named(&decision.to).is_some())
        .map(|(decision, end)| Stay {
            at: decision.at,
            state: decision.to.clone(),
            for_ms: end.and_then(|end| u64::try_from(end - decision.at).ok()),
            price: class(&decision.to),
            why: decision.why.clone(),
        })
        .collect();
    output.result(&stays, |stays| {
        let row = |(number, stay): (usize, &Stay)| {
            let time = stay.for_ms.map_or_else(|| "until now".to_owned(), millis);
            vec![
                format!("T{number}"),
                clock(stay.at),
                stay.state.clone(),
                time,
                stay.price.to_owned(),
                stay.why.clone(),
            ]
        };
        let rows: Vec<Vec<String>> = stays.iter().enumerate().map(row).collect();
        table(&["", "AT", "STATE", "#FOR", "PRICE", "WHY"], &rows)
    })
}

/// Writes the price book of a card.
fn set(connection: &Connection, arguments: &CardArguments, output: Output) -> anyhow::Result<()> {
    let CardArguments { card_price, years, kwh, watts, idle_watts, card_memory, .. } = *arguments;
    let card = Card { price: card_price, years, kwh, watts, idle_watts, gib: card_memory };
    let book = card.book(&arguments.currency).map_err(|error| {
        Problem::new(code::COMMAND_INPUT, error.to_string()).hint("`kip cost set --help` has an example")
    })?;
    let file = match &arguments.file {
        Some(file) => file.clone(),
        None => data_directory(connection)?.join("prices.toml"),
    };
    if file.exists() && !arguments.force {
        let problem = Problem::new(code::COMMAND_INPUT, format!("{} is there already", file.display()));
        return Err(problem.hint("give --force to replace it, or another --file").into());
    }
    let text = toml::to_string(&book)?;
    std::fs::write(&file, &text).with_context(|| format!("writing {}", file.display()))?;
    output.result(&book, |_| {
        format!(
            "wrote {}\nA server uses it with `prices = \"{}\"` under `[cost]` in kipwake.toml, from its next start on.\n",
            file.display(),
            file.display()
        )
    })
}

fn shown(report: &CostReport, options: &Costs) -> String {
    let by_version = options.function.is_some();
    if options.states {
        let rows: Vec<Vec<String>> = report
            .functions
            .iter()
            .flat_map(|function| state_rows(function.function.as_str(), &function.sum))
            .collect();
        return hours(report) + &table(&["FUNCTION", "STATE", "PRICE", "#TIME", "#SHARE"], &rows);
    }
    let mut rows = Vec::new();
    for function in &report.functions {
        rows.push(cells(function.function.as_str(), &function.sum));
        for version in function.versions.iter().filter(|_| by_version) {
            rows.push(cells(&format!("  {}", version.label), &version.cost));
        }
    }
    let header: Vec<&str> = ["FUNCTION"].into_iter().chain(FIGURES).collect();
    let mut text = hours(report) + &table(&header, &rows);
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

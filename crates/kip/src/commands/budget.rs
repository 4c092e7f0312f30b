//! `kip budget`: what functions and keys may cost before somebody is warned.

use kip_spec::{Problem, code};
use kip_wire::{Budget, BudgetKind, BudgetPeriod, BudgetSettings};

use crate::arguments::cost::{BudgetArguments, BudgetCommand, BudgetTime};
use crate::client::{Client, segment};
use crate::output::{Output, table};

pub(crate) async fn run(client: &Client, command: &BudgetCommand, output: Output) -> anyhow::Result<()> {
    match command {
        BudgetCommand::Ls => {}
        BudgetCommand::Set(arguments) => set(client, arguments).await?,
        BudgetCommand::Rm { function, for_key } => {
            let (kind, name) = match (for_key, function) {
                (Some(key), _) => (BudgetKind::Key, key),
                (None, Some(function)) => (BudgetKind::Function, function),
                (None, None) => return Ok(()),
            };
            client.remove(&path(kind, name)).await?;
        }
    }
    let budgets: Vec<Budget> = client.get("/api/v1/budgets").await?;
    output.result(&budgets, |budgets| shown(budgets))
}

fn path(kind: BudgetKind, name: &str) -> String {
    format!("/api/v1/budgets/{}/{}", kind.name(), segment(name))
}

async fn set(client: &Client, arguments: &BudgetArguments) -> anyhow::Result<()> {
    let (kind, name, amount) = match (&arguments.for_key, arguments.what.as_slice()) {
        (Some(key), [amount]) => (BudgetKind::Key, key, amount),
        (None, [function, amount]) => (BudgetKind::Function, function, amount),
        _ => {
            let problem = Problem::new(code::COMMAND_INPUT, "a budget has a function or --for-key KEY, and an amount");
            return Err(problem.hint("for example: kip budget set ocr 12.50 --per day").into());
        }
    };
    let per = match arguments.per {
        BudgetTime::Day => BudgetPeriod::Day,
        BudgetTime::Month => BudgetPeriod::Month,
    };
    client.put_for_nothing(&path(kind, name), &BudgetSettings { amount: amount.clone(), per }).await
}

fn shown(budgets: &[Budget]) -> String {
    let row = |budget: &Budget| {
        vec![
            budget.kind.name().to_owned(),
            budget.name.clone(),
            format!("{} {}", budget.amount, budget.currency),
            budget.per.name().to_owned(),
            budget.spent.clone(),
            budget.since.clone(),
            if budget.exceeded { "exceeded" } else { "ok" }.to_owned(),
        ]
    };
    let rows: Vec<Vec<String>> = budgets.iter().map(row).collect();
    table(&["KIND", "NAME", "#BUDGET", "PER", "#SPENT", "SINCE", "STATE"], &rows)
}

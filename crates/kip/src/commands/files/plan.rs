//! `kip plan` of an s.yaml or a template.yml.

use std::path::Path;

use super::archive;
use super::compare;
use super::project_file::load;
use super::render;
use crate::arguments::Plan;
use crate::client::Client;
use crate::output::Output;

pub(crate) async fn plan(client: &Client, path: &Path, options: &Plan, output: Output) -> anyhow::Result<()> {
    let file = load(client, path, &options.file, output).await?;
    let mut plans = Vec::new();
    for function in file.functions(&options.only)? {
        let archive = archive::of(function)?;
        plans.push(compare::plan(client, function, archive.as_ref()).await?);
    }
    let shown = render::PlanResult::new(&file, &plans);
    output.result(&shown, |shown| shown.text())
}

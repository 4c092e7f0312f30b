use crate::output::Output;
pub(crate) async fn run(_: &crate::arguments::Connection, _: crate::arguments::Up, _: Output) -> anyhow::Result<()> {
    Ok(())
}

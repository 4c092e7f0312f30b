//! `kip infer`: the model server.

pub(crate) fn run(options: crate::arguments::Infer) -> anyhow::Result<()> {
    let _ = options;
    anyhow::bail!("to be wired")
}

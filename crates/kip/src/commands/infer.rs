//! `kip infer`: the model server.

use crate::arguments::Infer;

pub(crate) fn run(options: Infer) -> anyhow::Result<()> {
    let _ = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).with_target(false).try_init();
    let mut wanted = kip_infer::Options::new(options.model);
    wanted.name = options.name;
    wanted.port = options.port;
    wanted.threads = options.threads;
    wanted.runtime = options.runtime;
    wanted.onnxruntime_library = options.onnxruntime_library;
    if let Some(most) = options.max_body {
        wanted.max_body = most;
    }
    if let Some(most) = options.max_batch {
        wanted.max_batch = most;
    }
    if let Some(delay) = options.max_delay {
        wanted.max_delay = delay;
    }
    kip_infer::run(&wanted).map_err(|error| error.problem().into())
}

//! `kip start`: a server in the background, without a deployment.

use kip_spec::{Problem, code};
use serde_json::json;

use crate::arguments::{Connection, Start};
use crate::client::data_directory;
use crate::output::Output;
use crate::progress::interruptible;
use crate::start::{self, Listen};

pub(crate) async fn run(connection: &Connection, options: &Start, output: Output) -> anyhow::Result<()> {
    if connection.api.as_deref().is_some_and(|api| api.starts_with("http")) {
        let message = "a server is started on this machine, and --api names one to talk to";
        return Err(Problem::new(code::COMMAND_INPUT, message)
            .hint("write the address to listen on: --api 127.0.0.1:0")
            .into());
    }
    let data = data_directory(connection)?;
    let listen = Listen { gateway: options.gateway, api: connection.api.clone() };
    let goes_on = || "the server may go on: `kip doctor` shows it, `kip stop` stops it".to_owned();
    let (client, new) = interruptible(output, goes_on, start::ensure(&data, &listen)).await?;
    let about = client.about().await?;
    let (gateway, api) = (format!("http://{}", about.gateway), format!("http://{}", about.api));
    let result = json!({
        "started": new,
        "pid": about.pid,
        "gateway": gateway,
        "api": api,
        "data_directory": about.data_directory,
    });
    output.result(&result, |_| {
        let state = if new { "started in the background" } else { "runs already" };
        format!(
            "The server {state} (process {}).\ngateway  {gateway}\nAPI      {api}\ndata     {}\nNext: kip deploy DIR, kip doctor, kip stop\n",
            about.pid, about.data_directory
        )
    })
}

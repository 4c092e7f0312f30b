//! `kip config`.

use kip_spec::secret::masked_text;

use crate::arguments::{Config as Command, Connection};
use crate::client::data_directory;
use crate::config::{Config, Flags, schema};
use crate::output::{Output, table};

pub(crate) fn run(connection: &Connection, command: &Command, output: Output) -> anyhow::Result<()> {
    match command {
        Command::Schema => output.data((serde_json::to_string_pretty(&schema())? + "\n").as_bytes()),
        Command::Show => {
            let config = Config::read(&data_directory(connection)?, None, &Flags::default())?;
            let mut values = config.values();
            // A URL may have a password in it.
            values.values_mut().for_each(|value| value.value = masked_text(&value.value).into_owned());
            output.result(&values, |values| {
                let row = |(key, value): (&String, &crate::config::Value)| {
                    vec![key.clone(), value.value.clone(), value.origin.to_string()]
                };
                let rows: Vec<Vec<String>> = values.iter().map(row).collect();
                table(&["SETTING", "VALUE", "FROM"], &rows)
            })
        }
    }
}

//! The schemas of the databases as text, for `docs/schema/`: what a fresh file holds after all migrations.

use std::path::Path;

use rusqlite::Connection;

use crate::database::{Error, migrate, plain};
use crate::{control, records, tasks};

/// The names of the files in `docs/schema/` and their content.
///
/// # Errors
/// When SQLite refuses a migration.
pub fn all() -> Result<Vec<(&'static str, String)>, Error> {
    let databases =
        [("control.sql", control::MIGRATIONS), ("tasks.sql", tasks::MIGRATIONS), ("records.sql", records::MIGRATIONS)];
    databases.into_iter().map(|(name, migrations)| Ok((name, text(name, migrations)?))).collect()
}

fn text(name: &str, migrations: &[&str]) -> Result<String, Error> {
    let path = Path::new(name);
    let failed = |error: rusqlite::Error| plain(path, &error);
    let mut c = Connection::open_in_memory().map_err(failed)?;
    migrate(&mut c, path, migrations)?;
    let query = "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'
                 ORDER BY tbl_name, type DESC, name";
    let statements: Vec<String> =
        c.prepare(query).and_then(|mut query| query.query_map([], |row| row.get(0))?.collect()).map_err(failed)?;
    let number = migrations.len();
    let head = format!(
        "-- Schema {number}. Made by `cargo run -p kip-store --example schema`; changed by a migration only.\n"
    );
    Ok(statements.into_iter().fold(head, |text, statement| text + "\n" + &unindented(&statement) + ";\n"))
}

/// Statements stand in the code with its indentation.
fn unindented(statement: &str) -> String {
    let lines: Vec<&str> = statement.lines().collect();
    let last = lines.last().map_or(0, |line| line.len() - line.trim_start().len());
    let cut = |line: &&str| line.get(last.min(line.len() - line.trim_start().len())..).unwrap_or_default().to_owned();
    lines
        .first()
        .map(|first| (*first).to_owned())
        .into_iter()
        .chain(lines.iter().skip(1).map(cut))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_committed_schemas_are_the_present_ones() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/schema");
        for (name, present) in super::all().unwrap() {
            let committed = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
            assert_eq!(committed, present, "docs/schema/{name}: cargo run -p kip-store --example schema");
        }
    }
}

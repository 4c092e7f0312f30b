//! The arguments of `kip exec`.

use clap::Args;

#[derive(Debug, Default, Args)]
pub(crate) struct Exec {
    /// The function, or one of its versions or aliases: ocr, ocr@3, ocr@prod.
    pub(crate) function: String,
    /// In this instance, as `kip ps` shows it. Without it an instance is chosen; one that sleeps is woken, and one is started where there
    /// is none.
    #[arg(long, value_name = "ID")]
    pub(crate) instance: Option<String>,
    /// Give the program a terminal. That is so anyway where standard input and output are one.
    #[arg(short = 't', long)]
    pub(crate) tty: bool,
    /// Never give it a terminal.
    #[arg(short = 'T', long, conflicts_with = "tty")]
    pub(crate) no_tty: bool,
    /// Pass standard input on to the program. That is so anyway with a terminal.
    #[arg(short = 'i', long)]
    pub(crate) interactive: bool,
    /// The working directory, absolute or below that of the instance.
    #[arg(short = 'w', long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// A variable of the program: NAME=VALUE, or NAME for its value here.
    #[arg(short = 'e', long = "env", value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

impl Exec {
    /// A command with all that is usual.
    pub(crate) fn of(function: String, instance: Option<String>, command: Vec<String>) -> Self {
        Self { function, instance, command, ..Self::default() }
    }
}

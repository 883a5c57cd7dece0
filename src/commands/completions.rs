//! `tracegate completions`: what a shell needs to complete the command line.

use std::io;
use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::{Shell, generate};

/// For which shell.
#[derive(Debug, Args)]
pub struct Options {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the completions of this command line.
pub fn completions(options: &Options, mut command: Command) -> ExitCode {
    let name = command.get_name().to_owned();
    generate(options.shell, &mut command, name, &mut io::stdout());
    ExitCode::SUCCESS
}

//! `annals completions` and `annals man`, generated from the definition of the command line.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::{cli::Cli, failure::Failure, output};

#[derive(Args, Debug)]
pub(crate) struct Completions {
    /// The shell.
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(&self) -> Result<ExitCode, Failure> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "annals", &mut text);
        print(&text)
    }
}

#[derive(Args, Debug)]
pub(crate) struct Man {
    /// Write the pages of the command and of all subcommands into this directory. It is created if
    /// it is missing.
    dir: Option<PathBuf>,
}

impl Man {
    pub(crate) fn run(&self) -> Result<ExitCode, Failure> {
        let Some(dir) = &self.dir else {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page)?;
            return print(&page);
        };
        std::fs::create_dir_all(dir)
            .and_then(|()| clap_mangen::generate_to(Cli::command(), dir))
            .map_err(|error| Failure::from(error).at(dir.display()))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn print(text: &[u8]) -> Result<ExitCode, Failure> {
    let mut out = io::stdout();
    output::written(out.write_all(text).and_then(|()| out.flush()))?;
    Ok(ExitCode::SUCCESS)
}

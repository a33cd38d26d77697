//! Entry point: arguments, logging, exit code.

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;
use retentiond::cli::{self, Cli};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    cli::survive_file_size_limit();
    let cli = Cli::parse();
    cli::start_logging(cli.log.as_deref());
    match cli::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            cli::print_error(&error);
            ExitCode::from(cli::exit_code(&error))
        }
    }
}

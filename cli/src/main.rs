//! `healthgpt`: what people and scripts type. Results go to stdout, everything else to stderr.

mod args;
mod commands;
mod failure;
mod input;
mod open;
mod output;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = args::Args::parse();
    let outcome = output::start_log(&args.log).and_then(|()| match &args.command {
        args::Command::Ask(a) => commands::ask::run(a),
        args::Command::Trace(a) => commands::trace::run(a),
        args::Command::Perplexity(a) => commands::perplexity::run(a),
        args::Command::Devices(a) => commands::devices::run(a),
        args::Command::Inspect(a) => commands::inspect::run(a),
        args::Command::Verify(a) => commands::verify::run(a),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::complain(&failure);
            ExitCode::from(failure.code)
        }
    }
}

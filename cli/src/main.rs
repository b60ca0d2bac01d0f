//! `healthgpt`: what people and scripts type. Results go to stdout, everything else to stderr.

mod args;
mod commands;
mod doctor;
mod failure;
mod input;
mod interrupt;
mod open;
mod output;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(error) if !error.use_stderr() => {
            // Help and version are results. A reader that left early has what it wanted.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            let failure = failure::Failure::usage(&error);
            output::complain(&failure);
            return ExitCode::from(failure.code);
        }
    };
    let outcome = output::start_log(&args.log).and_then(|()| match &args.command {
        args::Command::Ask(a) => commands::ask::run(a),
        args::Command::Generate(a) => commands::generate::run(a),
        args::Command::Trace(a) => commands::trace::run(a),
        args::Command::Eval(a) => commands::eval::run(a),
        args::Command::Perplexity(a) => commands::perplexity::run(a),
        args::Command::Bench(a) => commands::bench::run(a),
        args::Command::Devices(a) => commands::devices::run(a),
        args::Command::Doctor(a) => commands::doctor::run(a),
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

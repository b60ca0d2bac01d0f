//! `healthgpt verify`.

use crate::args::Verify;
use crate::failure::Result;
use crate::output;
use runtime::file::Container;
use runtime::model::Header;

pub fn run(args: &Verify) -> Result {
    let container = Container::open(&args.model)?;
    Header::read(&container)?;
    let names: Vec<&str> = container.tensors().keys().map(String::as_str).collect();
    container.verify(&names, |_| Ok(()))?;
    let count = names.len();
    output::line(format!(
        "{}: {count} tensors are as their hashes say, model {}",
        args.model.display(),
        container.sha256()
    ))
}

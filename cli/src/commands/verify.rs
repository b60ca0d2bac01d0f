//! `healthgpt verify`.

use crate::args::Verify;
use crate::failure::Result;
use crate::output;
use runtime::file::Container;
use runtime::model::Header;

pub fn run(args: &Verify) -> Result {
    let container = Container::open(&args.model)?;
    Header::read(&container)?;
    for name in container.tensors().keys() {
        container.verify(name)?;
    }
    let count = container.tensors().len();
    output::line(format!(
        "{}: {count} tensors are as their hashes say, model {}",
        args.model.display(),
        container.sha256()
    ))
}

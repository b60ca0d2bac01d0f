//! The C library as C, C++ and Python see it, laid out as it is handed out. The numbers of `c-abi.md` section 9: 1 to 3 and
//! 9 in `abi`, 4 to 6, 8 and 10 in `cases` (the cases themselves are C, in `c/`), 7 beside the library's own code.

mod abi;
mod cases;
mod examples;
mod golden;
mod header;
#[path = "../../xtask/src/package.rs"]
mod package;
mod parts;
mod tools;

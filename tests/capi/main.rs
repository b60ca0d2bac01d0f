//! The C library as C, C++ and Python see it, and as it is handed out.

mod header;

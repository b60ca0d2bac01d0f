//! What makes it an ABI: the header in every dialect, the layout of the structs, the exported symbols.

use crate::tools::{compiler, dist, example, has, run, source, text};
use healthgpt::LAYOUTS;
use std::fmt::Write;
use std::process::Command;

#[test]
fn the_header_is_c_and_cpp_of_every_age_alone_and_twice() {
    let alone = tests::scratch().join("alone.c");
    std::fs::write(&alone, "#include <healthgpt.h>\ntypedef int something;\n").expect("written");
    let twice = tests::scratch().join("twice.c");
    std::fs::write(&twice, "#include <healthgpt.h>\n#include <healthgpt.h>\ntypedef int something;\n")
        .expect("written");
    for compilers in [["gcc", "g++"], ["clang", "clang++"]] {
        for (name, language, standards) in
            [(compilers[0], "c", ["c99", "c11"]), (compilers[1], "c++", ["c++11", "c++20"])]
        {
            if !has(name) {
                continue;
            }
            for standard in standards {
                for file in [&alone, &twice] {
                    let mut compile = compiler(name);
                    compile.args(["-Wpadded", "-fsyntax-only", "-x", language]).arg(format!("-std={standard}"));
                    run(compile.arg(file));
                }
            }
        }
    }
}

/// The committed table: `STRUCT SIZE`, then its fields as `STRUCT.FIELD OFFSET SIZE`.
const TABLE: &str = include_str!("layout.txt");

#[test]
fn rust_lays_structs_out_as_committed() {
    let mut table = String::new();
    for layout in LAYOUTS {
        let _ = writeln!(table, "{} {}", layout.name, layout.size);
        for field in layout.fields {
            let _ = writeln!(table, "{}.{} {} {}", layout.name, field.name, field.offset, field.size);
        }
    }
    assert_eq!(table, TABLE, "a struct changed: that breaks callers, unless it only grew at its end");
}

/// C source with a line for each of the table's.
fn in_c(line: impl Fn(&str, &str) -> String) -> String {
    let lines = TABLE.lines().map(|l| l.split_once(' ').expect("a name and numbers"));
    lines.map(|(name, numbers)| line(name, numbers)).collect()
}

#[test]
fn c_lays_structs_out_as_committed() {
    let print = in_c(|name, _| match name.split_once('.') {
        None => format!("printf(\"{name} %zu\\n\", sizeof({name}));\n"),
        Some((s, f)) => format!("printf(\"{name} %zu %zu\\n\", offsetof({s}, {f}), sizeof((({s} *)0)->{f}));\n"),
    });
    let file = tests::scratch().join("layout.c");
    let program = file.with_extension("out");
    let body = format!("#include <healthgpt.h>\n#include <stdio.h>\nint main(void)\n{{\n{print}return 0;\n}}\n");
    std::fs::write(&file, body).expect("written");
    run(compiler("gcc").arg("-std=c99").arg(&file).arg("-o").arg(&program));
    assert_eq!(String::from_utf8_lossy(&run(&mut Command::new(program)).stdout), TABLE);
}

/// Compiled only: what does not hold does not compile.
#[test]
fn c_on_arm_lays_structs_out_as_committed() {
    let checks = in_c(|name, numbers| match name.split_once('.') {
        None => format!("_Static_assert(sizeof({name}) == {numbers}, \"{name}\");\n"),
        Some((s, f)) => {
            let (offset, size) = numbers.split_once(' ').expect("two numbers");
            format!(
                "_Static_assert(offsetof({s}, {f}) == {offset} && sizeof((({s} *)0)->{f}) == {size}, \"{name}\");\n"
            )
        }
    });
    let file = tests::scratch().join("layout_arm.c");
    std::fs::write(&file, format!("#include <healthgpt.h>\n{checks}")).expect("written");
    let name = "aarch64-linux-gnu-gcc";
    if has(name) {
        run(compiler(name).args(["-std=c11", "-Wpadded", "-fsyntax-only"]).arg(&file));
    }
}

#[test]
fn python_declares_the_same_structs_by_hand() {
    let script = source("layout.py");
    let output = run(Command::new("python3").arg(script).arg(example("ask.py")));
    assert_eq!(String::from_utf8_lossy(&output.stdout), TABLE);
}

#[test]
fn the_library_exports_what_is_committed_and_needs_nothing_but_c() {
    let library = dist().join("lib/libhealthgpt.so.1");
    let lines = |command: &mut Command| -> Vec<String> {
        String::from_utf8_lossy(&run(command).stdout).lines().map(str::to_string).collect()
    };
    let symbols = lines(Command::new("nm").args(["-D", "--defined-only", "--format=posix"]).arg(&library));
    let names: Vec<&str> = symbols.iter().filter_map(|l| l.split(' ').next()).collect();
    assert_eq!(names.join("\n") + "\n", include_str!("exports.txt"));

    let declared = std::fs::read_to_string(dist().join("include/healthgpt.h")).expect("the header");
    for name in &names {
        assert!(declared.contains(&format!("{name}(")), "{name} is not in the header");
    }
    let dynamic = lines(Command::new("readelf").args(["-d", "-W"]).arg(&library));
    let entries = |kind: &str| -> Vec<&str> {
        let of_kind = dynamic.iter().filter(|l| l.contains(kind));
        of_kind.filter_map(|l| l.split(['[', ']']).nth(1)).collect()
    };
    assert_eq!(entries("(SONAME)"), ["libhealthgpt.so.1"]);
    for needed in entries("(NEEDED)") {
        let of_c = ["libc.so", "libm.so", "libgcc_s.so", "libpthread.so", "libdl.so", "librt.so", "ld-linux"];
        assert!(of_c.iter().any(|known| needed.starts_with(known)), "{} needs {needed}", text(&library));
    }
}

//! The committed table: one line a program and chip, and totals.

use crate::chips::CHIPS;
use crate::report::{End, Numbers};
use crate::rules::Row;
use std::fmt::Write;

/// Totals of one chip over all programs: instructions and cycles.
pub struct Total {
    pub chip: &'static str,
    /// As shipped; without robust buffer access; without naga's checks; without both.
    pub ways: [(u64, u64); 4],
}

/// The whole file. `versions` names the drivers.
pub fn text(versions: &str, rows: &[Row], totals: &[Total]) -> String {
    let mut out = String::new();
    out.push_str("# What real compilers make of every kernel. `cargo xtask static --update` writes this file;\n");
    out.push_str("# docs/static-gate.md explains it. Numbers are each driver's own: compare them within a chip.\n");
    let _ = writeln!(out, "# {versions}");
    for chip in &CHIPS {
        let name = |names: &[&str]| names.join(" + ").to_lowercase();
        let (n, least) = (&chip.driver.names, chip.least_occupancy);
        let _ = writeln!(
            out,
            "#   {:<9}  {}, at least {least}; registers: {}; cycles: {}",
            chip.name,
            chip.what,
            name(n.registers),
            name(n.cycles),
        );
    }
    out.push_str("# weights: bytes of their widest load; plain: the same without robust buffer access\n#\n");
    let head = [
        "chip", "lanes", "regs", "spills", "private", "occup", "instrs", "cycles", "weights", "plain i", "plain c",
        "plain w",
    ];
    line(&mut out, "# kernel variant data", head.map(String::from));
    for row in rows {
        match &row.end {
            End::Compiled(n) => line(&mut out, &row.program, cells(row, n)),
            End::NotOffered => line(&mut out, &row.program, [row.chip.name.into(), "not offered".into()]),
            End::Failed(why) => line(&mut out, &row.program, [row.chip.name.into(), format!("fails: {why}")]),
        }
    }
    out.push_str("#\n# Totals of all programs: instructions and cycles (thousands), and what is left of them\n");
    let ways = ["as shipped", "no robust access", "no checks by naga", "neither"];
    let _ = writeln!(out, "# {:<9} {:>14} {:>24} {:>24} {:>24}", "chip", ways[0], ways[1], ways[2], ways[3]);
    for total in totals {
        let _ = write!(out, "= {:<9}", total.chip);
        let (i0, c0) = total.ways[0];
        let _ = write!(out, " {:>6} {:>7}", thousands(i0), thousands(c0));
        for (i, c) in &total.ways[1..] {
            let _ = write!(
                out,
                " {:>6} {:>7} {:>3}% {:>3}%",
                thousands(*i),
                thousands(*c),
                percent(*i, i0),
                percent(*c, c0)
            );
        }
        out.push('\n');
    }
    out
}

fn thousands(n: u64) -> u64 {
    (n + 500) / 1000
}

fn percent(part: u64, whole: u64) -> u64 {
    (part * 100 + whole / 2) / whole.max(1)
}

fn cells(row: &Row, n: &Numbers) -> [String; 12] {
    let or_dash = |value: Option<u64>| value.map_or_else(|| "-".into(), |v| v.to_string());
    [
        row.chip.name.into(),
        n.subgroup.to_string(),
        n.registers.to_string(),
        n.spills.to_string(),
        n.scratch.to_string(),
        n.occupancy.to_string(),
        n.instructions.to_string(),
        n.cycles.to_string(),
        or_dash(row.weights.map(|[robust, _]| robust)),
        or_dash(row.plain.map(|p| p.instructions)),
        or_dash(row.plain.map(|p| p.cycles)),
        or_dash(row.weights.map(|[_, plain]| plain)),
    ]
}

fn line<const N: usize>(out: &mut String, program: &str, cells: [String; N]) {
    let _ = write!(out, "{program:<36} {:<10}", cells[0]);
    for cell in &cells[1..] {
        let _ = write!(out, " {cell:>7}");
    }
    out.push('\n');
}

/// The line that names the drivers.
fn versions(table: &str) -> Option<&str> {
    table.lines().find(|l| l.starts_with("# Mesa"))
}

/// How a table differs from the committed one.
#[derive(Debug, PartialEq, Eq)]
pub enum Difference {
    None,
    /// Lines of the explanations or totals, new as they are now: no kernel changed.
    Notes(Vec<String>),
    /// Other drivers wrote the committed one, so a difference would say nothing of the kernels.
    OtherDrivers,
    /// Lines gone and lines new, each pair of one program and chip together.
    Lines(Vec<String>),
}

/// Compares two tables.
pub fn difference(committed: &str, now: &str) -> Difference {
    if committed == now {
        return Difference::None;
    }
    if !committed.is_empty() && versions(committed) != versions(now) {
        return Difference::OtherDrivers;
    }
    // Totals also count programs without naga's checks, which no device runs: they are for the reader.
    let note = |line: &&str| line.starts_with(['#', '=']);
    let body = |table: &'_ str| -> Vec<String> { table.lines().filter(|l| !note(l)).map(String::from).collect() };
    let key = |line: &str| line.split_whitespace().take(4).collect::<Vec<_>>().join(" ");
    let (old, new) = (body(committed), body(now));
    let mut lines = Vec::new();
    for line in &new {
        let before: Vec<_> = old.iter().filter(|o| key(o) == key(line)).collect();
        if before.contains(&line) {
            continue;
        }
        lines.extend(before.iter().map(|o| format!("- {o}")));
        lines.push(format!("+ {line}"));
    }
    let gone = old.iter().filter(|o| !new.iter().any(|n| key(n) == key(o)));
    lines.extend(gone.map(|o| format!("- {o}")));
    if lines.is_empty() {
        let new = now.lines().filter(note).filter(|line| !committed.lines().any(|l| l == *line));
        return Difference::Notes(new.map(String::from).collect());
    }
    Difference::Lines(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(versions: &str, instructions: u64, programs: &[&str]) -> String {
        let row = |program: &&str| Row {
            program: program.to_string(),
            chip: &CHIPS[0],
            end: End::Compiled(Numbers { instructions, ..Default::default() }),
            plain: None,
            weights: Some([4, 16]),
        };
        text(versions, &programs.iter().map(row).collect::<Vec<_>>(), &[])
    }

    #[test]
    fn a_changed_number_shows_before_and_after() {
        let (old, new) = (table("Mesa 1", 900, &["gemv a q4", "add b -"]), table("Mesa 1", 901, &["gemv a q4"]));
        let Difference::Lines(lines) = difference(&old, &new) else { panic!("they differ") };
        assert!(lines[0].starts_with("- gemv a q4") && lines[0].contains(" 900 "), "{lines:?}");
        assert!(lines[1].starts_with("+ gemv a q4") && lines[1].contains(" 901 "), "{lines:?}");
        assert!(lines[2].starts_with("- add b -") && lines.len() == 3, "{lines:?}");
    }

    #[test]
    fn tables_of_other_drivers_are_not_compared() {
        let old = table("Mesa 1", 900, &["gemv a q4"]);
        assert_eq!(difference(&old, &old), Difference::None);
        assert_eq!(difference(&old, &table("Mesa 2", 900, &["gemv a q4"])), Difference::OtherDrivers);
        assert!(matches!(difference("", &old), Difference::Lines(_)));
    }

    #[test]
    fn a_total_alone_is_a_note() {
        let old = table("Mesa 1", 900, &["gemv a q4"]);
        let new = format!("{old}= orin 1\n");
        assert_eq!(difference(&old, &new), Difference::Notes(vec!["= orin 1".into()]));
    }
}

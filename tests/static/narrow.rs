//! Makes one buffer stand out in a program: all other storage buffers are read a word at a time, so that what the
//! driver still loads sixteen bytes wide is that buffer's.

use std::collections::HashMap;

const HEADER: usize = 5;
const BOUND: usize = 3;
const STORAGE_BUFFER: u32 = 12;
const BINDING: u32 = 33;

mod op {
    pub const TYPE_INT: u32 = 21;
    pub const TYPE_FLOAT: u32 = 22;
    pub const TYPE_VECTOR: u32 = 23;
    pub const TYPE_POINTER: u32 = 32;
    pub const CONSTANT: u32 = 43;
    pub const FUNCTION: u32 = 54;
    pub const VARIABLE: u32 = 59;
    pub const LOAD: u32 = 61;
    pub const ACCESS_CHAIN: u32 = 65;
    pub const DECORATE: u32 = 71;
    pub const COMPOSITE_CONSTRUCT: u32 = 80;
}

/// Instructions as (opcode, operands).
fn instructions(words: &[u32]) -> impl Iterator<Item = (u32, &[u32])> {
    let mut rest = words.get(HEADER..).unwrap_or_default();
    std::iter::from_fn(move || {
        let head = *rest.first()?;
        let (this, after) = rest.split_at_checked((head >> 16).max(1) as usize)?;
        rest = after;
        Some((head & 0xffff, &this[1..]))
    })
}

fn push(words: &mut Vec<u32>, opcode: u32, operands: &[u32]) {
    words.push((operands.len() as u32 + 1) << 16 | opcode);
    words.extend_from_slice(operands);
}

/// What must be known of a module before its functions.
#[derive(Default)]
struct Declared {
    /// Types of 32 bits.
    scalars: Vec<u32>,
    /// Vectors of four of them, with their element.
    vectors: HashMap<u32, u32>,
    /// The integer type, and its zero.
    index: (u32, u32),
    /// Storage buffers, and pointers into them.
    buffers: Vec<u32>,
}

fn declared(words: &[u32], wide: u32) -> Declared {
    let mut found = Declared::default();
    let mut kept = Vec::new();
    for (opcode, a) in instructions(words) {
        match (opcode, a) {
            (op::DECORATE, &[id, BINDING, number]) if number == wide => kept.push(id),
            (op::TYPE_INT, &[id, 32, signed]) => {
                found.scalars.push(id);
                if signed == 0 {
                    found.index.0 = id;
                }
            }
            (op::TYPE_FLOAT, &[id, 32]) => found.scalars.push(id),
            (op::TYPE_VECTOR, &[id, scalar, 4]) if found.scalars.contains(&scalar) => {
                found.vectors.insert(id, scalar);
            }
            (op::CONSTANT, &[of, id, 0]) if of == found.index.0 => found.index.1 = id,
            (op::VARIABLE, &[_, id, STORAGE_BUFFER, ..]) if !kept.contains(&id) => found.buffers.push(id),
            (op::ACCESS_CHAIN, &[_, id, base, ..]) if found.buffers.contains(&base) => found.buffers.push(id),
            _ => {}
        }
    }
    found
}

/// `words` with every load of four words from a storage buffer but that of binding `wide` made a load of the first.
pub fn all_but(wide: u32, words: &[u32]) -> Vec<u32> {
    let known = declared(words, wide);
    let mut bound = words.get(BOUND).copied().unwrap_or_default();
    let mut fresh = || {
        bound += 1;
        bound - 1
    };
    let pointers: HashMap<u32, u32> = known.scalars.iter().map(|scalar| (*scalar, fresh())).collect();
    let (index, mut zero) = known.index;
    let mut narrow = words[..HEADER.min(words.len())].to_vec();
    let mut declared = false;
    for (opcode, a) in instructions(words) {
        if opcode == op::FUNCTION && !declared {
            declared = true;
            for (scalar, pointer) in &pointers {
                push(&mut narrow, op::TYPE_POINTER, &[*pointer, STORAGE_BUFFER, *scalar]);
            }
            if zero == 0 {
                zero = fresh();
                push(&mut narrow, op::CONSTANT, &[index, zero, 0]);
            }
        }
        let element = match (opcode, a) {
            (op::LOAD, &[of, _, from, ..]) if known.buffers.contains(&from) => known.vectors.get(&of),
            _ => None,
        };
        let Some(element) = element else {
            push(&mut narrow, opcode, a);
            continue;
        };
        let (first, value) = (fresh(), fresh());
        push(&mut narrow, op::ACCESS_CHAIN, &[pointers[element], first, a[2], zero]);
        push(&mut narrow, op::LOAD, &[*element, value, first]);
        push(&mut narrow, op::COMPOSITE_CONSTRUCT, &[a[0], a[1], value, value, value, value]);
    }
    if let Some(word) = narrow.get_mut(BOUND) {
        *word = bound;
    }
    narrow
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::programs::{self, Checks};

    fn wide_loads(words: &[u32]) -> usize {
        let known = declared(words, u32::MAX);
        instructions(words)
            .filter(|(opcode, a)| {
                *opcode == op::LOAD && known.vectors.contains_key(&a[0]) && known.buffers.contains(&a[2])
            })
            .count()
    }

    #[test]
    fn only_the_loads_of_one_buffer_stay_wide() {
        let programs = programs::all().unwrap();
        let gemv = programs.iter().find(|p| p.name == "gemv split_k q4+none").unwrap();
        let words = gemv.spirv(Checks::All).unwrap();
        let narrow = all_but(gemv.weights.unwrap(), &words);
        assert!(wide_loads(&narrow) > 0 && wide_loads(&narrow) < wide_loads(&words));
        assert_eq!(wide_loads(&all_but(u32::MAX, &words)), 0, "the loads of every buffer become narrow");
        assert_eq!(instructions(&narrow).filter(|(o, _)| *o == op::FUNCTION).count(), {
            instructions(&words).filter(|(o, _)| *o == op::FUNCTION).count()
        });
    }

    #[test]
    fn a_program_without_wide_loads_keeps_its_instructions() {
        let words = programs::spilling().spirv(Checks::All).unwrap();
        let before: Vec<_> = instructions(&words).collect();
        let narrow = all_but(u32::MAX, &words);
        let after: Vec<_> = instructions(&narrow).filter(|i| before.contains(i)).collect();
        assert_eq!(after, before);
    }
}

// Values of one run of a plan.

struct Step {
    pos: u32,  // position of the first token of this run
    n: u32,    // tokens in this run; later rows of a chunk hold nothing
    also: u32, // a row of the head that may win besides the ordinary ones; NOTHING for none
    unused: u32,
}

@group(0) @binding(1) var<uniform> step: Step;

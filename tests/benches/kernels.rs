//! Arithmetic rates of the products at shapes of HealthGPT-M3: `cargo bench -p tests`. Medians; one line a case.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use shaders::{Case, Format, Input, Kernel, Output, Step, Variant, conv, gemm, gemv};

const Q4: Format = Format::Q4 { group: 32, zero_points: true };

/// A case without an expected result: only its shape matters.
struct Timed {
    kernel: &'static Kernel,
    what: String,
    flops: f64,
    case: Case,
}

fn input(name: &'static str, bytes: usize) -> Input {
    // Small numbers in every format.
    Input { name, bytes: (0..bytes).map(|i| (i % 7) as u8).collect() }
}

fn case(format: Format, rows: usize, cols: usize, params: &[u8], x_bytes: usize, y_elements: usize) -> Case {
    let [quants, scales, zero_points] = format.words(rows, cols);
    Case {
        name: String::new(),
        imports: vec![format.import()],
        constants: format.constants(),
        params: params.to_vec(),
        step: Step::new(0, 1),
        inputs: vec![
            input("quants", quants * 4),
            input("scales", scales.max(4) * 4),
            input("zero_points", zero_points.max(4) * 4),
            input("bias", rows * 4),
            Input { name: "x", bytes: vec![0; x_bytes] },
        ],
        outputs: vec![Output {
            name: "y",
            initial: vec![0; y_elements * 4],
            expected: shaders::Expected::F32(vec![0.0; y_elements]),
            bound: 0.0,
            whole_x: false,
        }],
        grid: Box::new(|_| [1, 1, 1]),
    }
}

fn one_token(format: Format, rows: usize, cols: usize) -> Timed {
    let params = gemv::Params {
        rows: rows as u32,
        cols4: cols as u32 / 4,
        blocks: cols.div_ceil(32) as u32,
        y_offset: 0,
        down_rows: 0,
        down_offset: 0,
        parts: 0,
        eps: 0.0,
    };
    let mut case = case(format, rows, cols, bytemuck::bytes_of(&params), gemv::UNIFORM_X_BYTES, rows);
    case.imports.push(gemv::NO_DOWN);
    let case = Case { grid: Box::new(move |variant| gemv::grid(variant, rows as u32, 0)), ..case };
    let what = format!("gemv {format:?} {rows} x {cols}");
    Timed { kernel: &gemv::KERNEL, what, flops: 2.0 * (rows * cols) as f64, case }
}

fn many_tokens(format: Format, rows: usize, cols: usize, tokens: usize) -> Timed {
    let params = gemm::Params {
        rows: rows as u32,
        cols4: cols as u32 / 4,
        blocks: cols.div_ceil(32) as u32,
        x_offset4: 0,
        x_stride4: cols as u32 / 4,
        y_offset: 0,
        y_stride: rows as u32,
        accumulate: 0,
        tokens: tokens as u32,
    };
    let case = case(format, rows, cols, bytemuck::bytes_of(&params), tokens * cols * 4, tokens * rows);
    let grid = move |variant: &Variant| gemm::grid(variant, rows as u32, tokens as u32);
    let case = Case { step: Step::new(0, tokens), grid: Box::new(grid), ..case };
    let what = format!("gemm {format:?} {rows} x {cols}, {tokens} tokens");
    Timed { kernel: &gemm::KERNEL, what, flops: 2.0 * (rows * cols * tokens) as f64, case }
}

fn picture(format: Format, out: usize, channels: usize, side: usize) -> Timed {
    let cols = 9 * channels;
    let params = conv::Params {
        rows: out as u32,
        cols4: cols as u32 / 4,
        blocks: cols.div_ceil(32) as u32,
        c4: channels as u32 / 4,
        width: side as u32,
        height: side as u32,
        doubled: 0,
        accumulate: 0,
    };
    let pixels = side * side;
    let case = case(format, out, cols, bytemuck::bytes_of(&params), pixels * channels * 4, pixels * out);
    let case = Case { grid: Box::new(move |variant| conv::grid(variant, &params)), ..case };
    let what = format!("conv 3x3 {format:?} {channels} to {out} channels, {side} x {side}");
    Timed { kernel: &conv::KERNEL, what, flops: 2.0 * (out * cols * pixels) as f64, case }
}

fn main() {
    let gpu = tests::gpu();
    println!("{} ({} {})", gpu.facts().name, gpu.facts().driver, gpu.facts().driver_info);
    let timed = [
        one_token(Q4, 9216, 3072),
        one_token(Q4, 3072, 8192),
        one_token(Format::Q8, 9216, 3072),
        many_tokens(Q4, 3072, 3072, 64),
        many_tokens(Format::F16, 3072, 3072, 64),
        many_tokens(Format::F16, 256, 1152, 4096),
        picture(Format::F16, 128, 128, 128),
        picture(Format::F16, 512, 512, 32),
        picture(Format::Q8, 512, 512, 32),
    ];
    for Timed { kernel, what, flops, mut case } in timed {
        let constants = if kernel.name == "conv" { vec![("SIDE", 3.0)] } else { vec![] };
        case.constants.extend(constants);
        let variant = gpu.select(kernel, &case.imports, &case.constants);
        let mut seconds = gpu.time(kernel, variant, &case, 7).expect("runs");
        seconds.sort_by(f64::total_cmp);
        let (median, spread) = (seconds[3], (seconds[6] - seconds[0]) / seconds[3]);
        println!(
            "{:>9.2} ms {:>7.2} GFLOP/s (spread {:.0} %)  {what} [{}]",
            median * 1e3,
            flops / median / 1e9,
            spread * 100.0,
            variant.name
        );
    }
}

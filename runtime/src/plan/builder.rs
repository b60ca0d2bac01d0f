//! What a model function writes to: one method per operation. Shapes are asserted; misuse is our bug and panics before
//! any work reaches the device.

use super::linear::{Biased, Matrix, Norm, Shard, Vector};
use super::pace::{Cost, Estimate, Work};
use super::run::{Plan, Step, Tap};
use super::slots::{Lifetime, Pool};
use crate::Result;
use crate::gpu::{Buffer, Gpu, Pipeline, Usage};
use bytemuck::Pod;
use shaders::{Access, Choice, Constant, Kernel, KvFormat, Variant};
use shaders::{
    add, argmax, attention, bias_act, codebook, conv, embed, gemm, gemv, groupnorm_stats, groupnorm_swish, layernorm,
    rmsnorm,
};
use std::sync::Arc;

/// Binding names of a packed matrix.
pub(super) const PLANES: [&str; 3] = ["quants", "scales", "zero_points"];
/// Those of the way down of an adapter beside it.
pub(super) const DOWN_PLANES: [&str; 3] = ["down_quants", "down_scales", "down_zero_points"];
/// Binding names of tables of which a run reads a row per token, not the whole.
const GATHERED: [&str; 2] = ["table", "rope"];

/// An activation `[rows][cols]` in f32, or words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Act {
    id: usize,
    /// Tokens.
    pub rows: usize,
    /// Width.
    pub cols: usize,
}

enum Place {
    /// A slot, planned at the end.
    Planned,
    /// A buffer that outlives the plan's run.
    Fixed(Buffer),
}

/// What a step binds.
pub(super) enum Bound {
    Act(Act),
    Buffer(Buffer),
}

struct Draft {
    pipeline: Arc<Pipeline>,
    params: Vec<u8>,
    bound: Vec<(&'static str, Bound)>,
    grid: [u32; 3],
    label: String,
    work: Work,
}

/// Collects the steps of a plan.
pub struct Builder<'a> {
    gpu: &'a Gpu,
    rows: usize,
    places: Vec<(Act, Place)>,
    drafts: Vec<Draft>,
    taps: Vec<(usize, String, Act)>,
    traced: bool,
    inputs: bool,
    scope: String,
    error: Option<crate::Error>,
}

impl From<Act> for Bound {
    fn from(act: Act) -> Self {
        Bound::Act(act)
    }
}

impl From<&Buffer> for Bound {
    fn from(buffer: &Buffer) -> Self {
        Bound::Buffer(buffer.clone())
    }
}

/// A shard under the names of its bindings.
pub(super) fn planes(names: [&'static str; 3], shard: &Shard) -> impl Iterator<Item = (&'static str, Bound)> {
    names.into_iter().zip(&shard.planes).map(|(name, plane)| (name, plane.into()))
}

fn whole(buffer: &Buffer) -> wgpu::BufferBinding<'_> {
    wgpu::BufferBinding { buffer: buffer.raw(), offset: 0, size: None }
}

impl<'a> Builder<'a> {
    /// A plan for runs of up to `rows` tokens. With `traced`, activations that are tapped can be read after a run.
    pub fn new(gpu: &'a Gpu, rows: usize, traced: bool) -> Self {
        assert!(rows > 0, "a plan has rows");
        Builder {
            gpu,
            rows,
            places: Vec::new(),
            drafts: Vec::new(),
            taps: Vec::new(),
            traced,
            inputs: false,
            scope: String::new(),
            error: None,
        }
    }

    /// Prefix of the labels and taps that follow.
    pub fn scope(&mut self, scope: impl Into<String>) {
        self.scope = scope.into();
    }

    /// Names an activation for a traced run; it is read as it is at this point.
    pub fn tap(&mut self, name: &str, act: Act) {
        let name = if self.scope.is_empty() { name.into() } else { format!("{}.{name}", self.scope) };
        if self.traced {
            self.taps.push((self.drafts.len(), name, act));
        }
    }

    /// Lets what goes into the linears be read after a run: [`Builder::tap_input`].
    pub fn with_inputs(&mut self) {
        self.inputs = true;
    }

    /// Names an activation that goes into a linear, or weighs its adapter; without the scope.
    pub fn tap_input(&mut self, name: &str, act: Act) {
        if self.inputs {
            self.taps.push((self.drafts.len(), name.into(), act));
        }
    }

    pub(super) fn act(&mut self, rows: usize, cols: usize) -> Act {
        let act = Act { id: self.places.len(), rows, cols };
        self.places.push((act, Place::Planned));
        act
    }

    /// An activation that lives in a buffer of the caller's.
    pub fn fixed(&mut self, buffer: &Buffer, rows: usize, cols: usize) -> Act {
        assert!(buffer.size() >= (rows * cols * 4) as u64, "{rows} x {cols} in {} bytes", buffer.size());
        let act = Act { id: self.places.len(), rows, cols };
        self.places.push((act, Place::Fixed(buffer.clone())));
        act
    }

    #[expect(clippy::too_many_arguments, reason = "the one place where a step is put together")]
    pub(super) fn step(
        &mut self,
        kernel: &'static Kernel,
        variant: &Variant,
        imports: &[Choice],
        constants: &[Constant],
        params: impl Pod,
        bound: Vec<(&'static str, Bound)>,
        grid: [u32; 3],
        what: &str,
    ) {
        assert_eq!(size_of_val(&params), kernel.params_bytes, "params of {}", kernel.name);
        if self.error.is_some() {
            return;
        }
        let pipeline = match self.gpu.pipeline(kernel, variant, imports, constants) {
            Ok(pipeline) => pipeline,
            Err(error) => {
                self.error = Some(error);
                return;
            }
        };
        let at = if what.is_empty() { self.scope.as_str() } else { what };
        let label = format!("{} {at}", kernel.name);
        let most = self.gpu.facts().groups_per_axis;
        if let Some(groups) = grid.iter().find(|g| **g > most) {
            self.error = Some(self.gpu.unfit(&label, format!("{groups} workgroups along an axis"), most.to_string()));
            return;
        }
        let params = bytemuck::bytes_of(&params).to_vec();
        self.drafts.push(Draft { pipeline, params, bound, grid, label, work: Work::default() });
    }

    /// How much the last step multiplies, where that counts beside what it reads and writes.
    pub(super) fn works(&mut self, products: usize, products_per_key: usize) {
        if let Some(draft) = self.drafts.last_mut() {
            draft.work = Work { products: products as u64, products_per_key: products_per_key as u64 };
        }
    }

    pub(super) fn select(&self, kernel: &Kernel, imports: &[Choice], constants: &[Constant]) -> &'static Variant {
        self.gpu.select(kernel, imports, constants)
    }

    /// The variant of a GEMV for an x of `cols`.
    pub(super) fn gemv_variant(&self, kernel: &Kernel, cols: usize) -> &'static Variant {
        let selected = self.gpu.select(kernel, &[], &[]);
        if gemv::takes_cols(selected, cols) { selected } else { &kernel.variants[kernel.variants.len() - 1] }
    }

    /// Workgroups that keep this device busy.
    pub(super) fn workgroups(&self) -> usize {
        self.gpu.profile().workgroups
    }

    pub(super) fn is_traced(&self) -> bool {
        self.traced
    }

    /// The shard of a matrix that must fit one binding; without it the plan is refused.
    pub(super) fn only_shard<'w>(&mut self, weight: &'w Matrix) -> Option<&'w Shard> {
        let [shard] = &weight.shards[..] else {
            let need = format!("{} bindings", weight.shards.len());
            self.error.get_or_insert(self.gpu.unfit(&weight.name, need, "1".into()));
            return None;
        };
        Some(shard)
    }

    /// A kernel whose variant only selection decides.
    pub(super) fn simple(
        &mut self,
        kernel: &'static Kernel,
        imports: &[Choice],
        params: impl Pod,
        bound: Vec<(&'static str, Bound)>,
        grid: [u32; 3],
    ) {
        self.step(kernel, self.gpu.select(kernel, imports, &[]), imports, &[], params, bound, grid, "");
    }

    /// Rows of the embedding table, or of the picture, by token.
    pub fn embed(&mut self, tokens: Act, table: &Matrix, picture: &Buffer) -> Act {
        let x = self.act(self.rows, table.cols);
        for (i, shard) in table.shards.iter().enumerate() {
            let params = embed::Params {
                cols2: table.cols as u32 / 2,
                row0: shard.row0 as u32,
                rows: shard.rows as u32,
                last_row: table.rows as u32 - 1,
                picture: u32::from(i == 0),
            };
            let bound = vec![
                ("tokens", tokens.into()),
                ("table", (&shard.planes[0]).into()),
                ("picture", picture.into()),
                ("x", x.into()),
            ];
            self.simple(&embed::KERNEL, &[], params, bound, embed::grid(self.rows as u32));
        }
        x
    }

    /// `x / sqrt(mean x^2 + eps) * weight`.
    pub fn rmsnorm(&mut self, x: Act, weight: &Vector, eps: f32) -> Act {
        self.rmsnorm_rows(x, weight, eps, false)
    }

    /// The same for the last token of a run alone: `[1][d]`.
    pub fn rmsnorm_last(&mut self, x: Act, weight: &Vector, eps: f32) -> Act {
        self.rmsnorm_rows(x, weight, eps, true)
    }

    fn rmsnorm_rows(&mut self, x: Act, weight: &Vector, eps: f32, last: bool) -> Act {
        assert_eq!(x.cols, weight.len, "rmsnorm");
        let rows = if last { 1 } else { x.rows };
        let y = self.act(rows, x.cols);
        let params = rmsnorm::Params { cols: x.cols as u32, last: u32::from(last), eps };
        let bound = vec![("x", x.into()), ("weight", (&weight.buffer).into()), ("y", y.into())];
        self.simple(&rmsnorm::KERNEL, &[], params, bound, rmsnorm::grid(rows as u32));
        y
    }

    /// `(x - mean) / sqrt(variance + eps) * weight + bias`.
    pub fn layernorm(&mut self, x: Act, norm: &Norm, eps: f32) -> Act {
        assert!(x.cols == norm.weight.len && x.cols == norm.bias.len, "layernorm");
        let y = self.act(x.rows, x.cols);
        let params = layernorm::Params { cols: x.cols as u32, eps };
        let bound = vec![
            ("x", x.into()),
            ("weight", (&norm.weight.buffer).into()),
            ("bias", (&norm.bias.buffer).into()),
            ("y", y.into()),
        ];
        self.simple(&layernorm::KERNEL, &[], params, bound, layernorm::grid(x.rows as u32));
        y
    }

    /// `y = linear(x)`, bias included.
    pub fn linear(&mut self, linear: &Biased, x: Act) -> Act {
        self.linear_act(linear, x, bias_act::Activation::None)
    }

    /// `y = act(linear(x))`.
    pub fn linear_act(&mut self, linear: &Biased, x: Act, act: bias_act::Activation) -> Act {
        self.linear_skip(linear, x, x.rows, act)
    }

    /// `y = act(linear(x))` of the last `rows` rows of x.
    pub fn linear_skip(&mut self, linear: &Biased, x: Act, rows: usize, act: bias_act::Activation) -> Act {
        let y = self.act(rows, linear.weight.rows);
        self.linear_into(linear, x, act, y);
        y
    }

    /// `y = act(linear(x))` in an activation that is there already. If y has fewer rows than x, the first ones of x
    /// are left out.
    pub fn linear_into(&mut self, linear: &Biased, x: Act, act: bias_act::Activation, y: Act) {
        self.product(&linear.weight, x, y, false);
        assert_eq!(linear.bias.len, y.cols, "bias of {}", linear.weight.name);
        let bound = vec![("bias", (&linear.bias.buffer).into()), ("y", y.into())];
        let grid = bias_act::grid(y.cols as u32, y.rows as u32);
        self.simple(&bias_act::KERNEL, &[act.import()], bias_act::Params { cols: y.cols as u32 }, bound, grid);
    }

    /// `y = W x`.
    pub fn matrix(&mut self, weight: &Matrix, x: Act) -> Act {
        let y = self.act(x.rows, weight.rows);
        self.matrix_into(weight, x, y);
        y
    }

    /// `y = W x` in an activation that is there already.
    pub fn matrix_into(&mut self, weight: &Matrix, x: Act, y: Act) {
        self.product(weight, x, y, false);
    }

    /// `y (+)= W x`; if y has fewer rows than x, the first ones of x are left out.
    pub(super) fn product(&mut self, weight: &Matrix, x: Act, y: Act, accumulate: bool) {
        let skip = x.rows - y.rows;
        assert_eq!(x.cols, weight.cols, "inputs of {}", weight.name);
        assert_eq!(y.cols, weight.rows, "outputs of {}", weight.name);
        assert!(x.cols.is_multiple_of(4), "{} has {} inputs", weight.name, x.cols);
        let (imports, constants) = ([weight.format.import()], weight.format.constants());
        for shard in &weight.shards {
            let mut bound: Vec<(&'static str, Bound)> = vec![("x", x.into()), ("y", y.into())];
            bound.extend(planes(PLANES, shard));
            let (rows, cols4) = (shard.rows as u32, x.cols as u32 / 4);
            let params = gemm::Params {
                rows,
                cols4,
                blocks: x.cols.div_ceil(32) as u32,
                x_offset4: skip as u32 * cols4,
                x_stride4: cols4,
                y_offset: shard.row0 as u32,
                y_stride: y.cols as u32,
                accumulate: u32::from(accumulate),
                tokens: y.rows as u32,
            };
            let variant = self.gpu.select(&gemm::KERNEL, &imports, &constants);
            let grid = gemm::grid(variant, rows, y.rows as u32);
            self.step(&gemm::KERNEL, variant, &imports, &constants, params, bound, grid, &weight.name);
            self.works(shard.rows * x.cols * y.rows, 0);
        }
    }

    /// Attention of every row over every row; `qkv` rows are q, k, v.
    pub fn attention_full(&mut self, qkv: Act, heads: usize) -> Act {
        let width = qkv.cols / 3;
        self.attention_rows([qkv, qkv, qkv], [0, width, 2 * width], heads, width)
    }

    /// The same with one head, from three activations.
    pub fn attention_apart(&mut self, qkv: [Act; 3]) -> Act {
        self.attention_rows(qkv, [0, 0, 0], 1, qkv[0].cols)
    }

    fn attention_rows(&mut self, qkv: [Act; 3], offsets: [usize; 3], heads: usize, width: usize) -> Act {
        let [q, k, v] = qkv;
        let [q_offset4, k_offset4, v_offset4] = offsets.map(|o| o as u32 / 4);
        let out = self.act(q.rows, width);
        let params = attention::Params {
            heads: heads as u32,
            kv_heads: heads as u32,
            head_dim4: (width / heads) as u32 / 4,
            full: q.rows as u32,
            window: 0,
            q_offset4,
            q_stride4: q.cols as u32 / 4,
            k_offset4,
            v_offset4,
            kv_stride4: k.cols as u32 / 4,
            scale: 1.0 / ((width / heads) as f32).sqrt(),
            kv_factors: 0,
        };
        let bound = vec![("q", q.into()), ("out", out.into()), ("k_cache", k.into()), ("v_cache", v.into())];
        let grid = attention::grid(heads as u32, (width / heads) as u32, q.rows as u32);
        self.simple(&attention::KERNEL, &[KvFormat::F32.read_import()], params, bound, grid);
        self.works(2 * q.rows * k.rows * width, 0);
        out
    }

    /// `x += y`.
    pub fn add(&mut self, x: Act, y: Act) {
        assert!(x.cols == y.cols && x.rows == y.rows, "add");
        let bound = vec![("y", y.into()), ("x", x.into())];
        let grid = add::grid(x.cols as u32, x.rows as u32);
        self.simple(&add::KERNEL, &[], add::Params { cols: x.cols as u32 }, bound, grid);
    }

    /// `x += y`, y being the same in every run.
    pub fn add_vector(&mut self, x: Act, y: &Vector) {
        assert_eq!(y.len, x.rows * x.cols, "add");
        let bound = vec![("y", (&y.buffer).into()), ("x", x.into())];
        let grid = add::grid(x.cols as u32, x.rows as u32);
        self.simple(&add::KERNEL, &[], add::Params { cols: x.cols as u32 }, bound, grid);
    }

    /// Writes to `token[0]` the most likely id among the first `ordinary` rows and row `step.also`; row 0 is `first_id`.
    pub fn argmax(&mut self, logits: Act, ordinary: usize, first_id: u32, token: Act) {
        let bound = vec![("logits", logits.into()), ("token", token.into())];
        let params = argmax::Params { count: ordinary as u32, rows: logits.cols as u32, first_id };
        self.simple(&argmax::KERNEL, &[], params, bound, [1, 1, 1]);
    }

    /// Rows of the codebook `[rows][cols]`: a picture, channels last.
    pub fn codebook(&mut self, codes: Act, table: &Vector, cols: usize) -> Act {
        let out = self.act(codes.rows, cols);
        let params = codebook::Params { count: codes.rows as u32, cols: cols as u32, rows: (table.len / cols) as u32 };
        let bound = vec![("codes", codes.into()), ("table", (&table.buffer).into()), ("out", out.into())];
        self.simple(&codebook::KERNEL, &[], params, bound, codebook::grid(cols as u32, codes.rows as u32));
        out
    }

    /// Convolution of a square picture `[pixels][c]`, zeros around it.
    pub fn conv(&mut self, conv: &Biased, x: Act) -> Act {
        let y = self.act(x.rows, conv.weight.rows);
        self.conv_into(conv, x, false, y, false);
        y
    }

    /// Convolution of a square picture after doubling its sides.
    pub fn conv_doubled(&mut self, conv: &Biased, x: Act) -> Act {
        let y = self.act(4 * x.rows, conv.weight.rows);
        self.conv_into(conv, x, true, y, false);
        y
    }

    /// `y += conv(x)`.
    pub fn conv_add(&mut self, conv: &Biased, x: Act, y: Act) {
        self.conv_into(conv, x, false, y, true);
    }

    /// `y = conv(x)` in an activation that is there already.
    pub fn conv_to(&mut self, conv: &Biased, x: Act, y: Act) {
        self.conv_into(conv, x, false, y, false);
    }

    fn conv_into(&mut self, conv: &Biased, x: Act, doubled: bool, y: Act, accumulate: bool) {
        let weight = &conv.weight;
        let side = y.rows.isqrt();
        assert!(side * side == y.rows && y.cols == weight.rows, "picture of {}", weight.name);
        assert!(x.cols.is_multiple_of(4) && weight.cols.is_multiple_of(x.cols), "inputs of {}", weight.name);
        let Some(shard) = self.only_shard(weight) else { return };
        let params = conv::Params {
            rows: weight.rows as u32,
            cols4: weight.cols as u32 / 4,
            blocks: weight.cols.div_ceil(32) as u32,
            c4: x.cols as u32 / 4,
            width: side as u32,
            height: side as u32,
            doubled: u32::from(doubled),
            accumulate: u32::from(accumulate),
        };
        let mut constants = weight.format.constants();
        constants.push(("SIDE", (weight.cols / x.cols).isqrt() as f64));
        let mut bound: Vec<(&'static str, Bound)> =
            vec![("x", x.into()), ("y", y.into()), ("bias", (&conv.bias.buffer).into())];
        bound.extend(planes(PLANES, shard));
        let imports = [weight.format.import()];
        let variant = self.gpu.select(&conv::KERNEL, &imports, &constants);
        let grid = conv::grid(variant, &params);
        self.step(&conv::KERNEL, variant, &imports, &constants, params, bound, grid, &weight.name);
        self.works(weight.rows * weight.cols * y.rows, 0);
    }

    /// GroupNorm of a picture over groups of channels, with swish or without.
    pub fn groupnorm(&mut self, x: Act, norm: &Norm, groups: usize, eps: f32, swish: bool) -> Act {
        assert!(x.cols == norm.weight.len && x.cols.is_multiple_of(groups), "groupnorm");
        let (pixels, channels, groups) = (x.rows as u32, x.cols as u32, groups as u32);
        let parts = (pixels / 256).clamp(1, 64);
        let stats = self.act((groups * parts) as usize, 4);
        let params = groupnorm_stats::Params { pixels, channels, groups, parts };
        let bound = vec![("x", x.into()), ("stats", stats.into())];
        self.simple(&groupnorm_stats::KERNEL, &[], params, bound, groupnorm_stats::grid(&params));
        let y = self.act(x.rows, x.cols);
        let params = groupnorm_swish::Params { pixels, channels, groups, parts, swish: u32::from(swish), eps };
        let bound = vec![
            ("x", x.into()),
            ("stats", stats.into()),
            ("weight", (&norm.weight.buffer).into()),
            ("bias", (&norm.bias.buffer).into()),
            ("y", y.into()),
        ];
        self.simple(&groupnorm_swish::KERNEL, &[], params, bound, groupnorm_swish::grid(&params));
        y
    }

    /// Settles lifetimes, takes slots from `pool`, makes bind groups. `step` holds a [`shaders::Step`].
    ///
    /// *Errors*: whatever stood in the way while building, or no memory.
    pub fn finish(self, pool: &mut Pool, step: &Buffer) -> Result<Plan> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let buffers = self.place(pool)?;
        // Uniform slices must start at multiples of 256.
        let stride = |draft: &Draft| draft.params.len().next_multiple_of(256);
        let params_bytes: usize = self.drafts.iter().map(stride).sum();
        let params = self.gpu.buffer("params", params_bytes as u64, Usage::Uniform)?;
        if self.gpu.is_imagined() {
            let (steps, taps, estimate) = (Vec::new(), Vec::new(), Estimate::new(Vec::new()));
            return Ok(Plan { steps, taps, estimate, params });
        }
        let mut all_params = Vec::with_capacity(params_bytes);
        let (mut steps, mut costs) = (Vec::new(), Vec::new());
        for draft in self.drafts {
            let offset = all_params.len();
            all_params.extend_from_slice(&draft.params);
            all_params.resize(offset + draft.params.len().next_multiple_of(256), 0);
            let mut entries = Vec::new();
            let (mut weight_bytes, mut act_bytes) = (0, 0);
            for binding in &draft.pipeline.bindings {
                let resource = match binding.name {
                    "params" => wgpu::BufferBinding {
                        buffer: params.raw(),
                        offset: offset as u64,
                        size: wgpu::BufferSize::new(draft.params.len() as u64),
                    },
                    "step" => whole(step),
                    name => {
                        let bound = draft.bound.iter().find(|(n, _)| *n == name).map(|(_, b)| b);
                        let buffer = match bound.unwrap_or_else(|| panic!("{} binds no {name}", draft.label)) {
                            Bound::Act(act) => {
                                act_bytes += (act.rows * act.cols * 4) as u64;
                                &buffers[act.id]
                            }
                            Bound::Buffer(buffer) => buffer,
                        };
                        if buffer.is_weights() && !GATHERED.contains(&name) {
                            weight_bytes += buffer.size();
                        }
                        match binding.access {
                            Access::Uniform => wgpu::BufferBinding {
                                size: wgpu::BufferSize::new(gemv::UNIFORM_X_BYTES as u64),
                                ..whole(buffer)
                            },
                            Access::Read | Access::ReadWrite => whole(buffer),
                        }
                    }
                };
                entries.push(wgpu::BindGroupEntry {
                    binding: binding.index,
                    resource: wgpu::BindingResource::Buffer(resource),
                });
            }
            let group = self.gpu.device().create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(&draft.label),
                layout: &draft.pipeline.compiled().1,
                entries: &entries,
            });
            let Draft { pipeline, grid, label, work, .. } = draft;
            costs.push(Cost::new(work, weight_bytes, act_bytes, self.rows));
            steps.push(Step { pipeline, group, grid, label, weight_bytes });
        }
        self.gpu.write(&params, 0, &all_params);
        let taps = self.taps.into_iter().map(|(after, name, act)| Tap {
            after,
            name,
            buffer: buffers[act.id].clone(),
            rows: act.rows,
            cols: act.cols,
        });
        let plan = Plan { steps, taps: taps.collect(), estimate: Estimate::new(costs), params };
        self.gpu.check()?;
        Ok(plan)
    }

    fn place(&self, pool: &mut Pool) -> Result<Vec<Buffer>> {
        let mut lifetimes: Vec<Option<Lifetime>> = self.places.iter().map(|_| None).collect();
        let mut touch = |act: &Act, at: usize| {
            let bytes = (act.rows * act.cols * 4) as u64;
            let lifetime = lifetimes[act.id].get_or_insert(Lifetime { first: at, last: at, bytes });
            lifetime.last = lifetime.last.max(at);
        };
        for (at, draft) in self.drafts.iter().enumerate() {
            for (_, bound) in &draft.bound {
                if let Bound::Act(act) = bound {
                    touch(act, at);
                }
            }
        }
        for (after, _, act) in &self.taps {
            touch(act, *after);
        }
        let planned = |i: usize| matches!(self.places[i].1, Place::Planned);
        let (ids, wanted): (Vec<_>, Vec<_>) =
            lifetimes.into_iter().enumerate().filter(|(i, _)| planned(*i)).filter_map(|(i, l)| Some((i, l?))).unzip();
        let mut slots = ids.into_iter().zip(pool.assign(self.gpu, &wanted)?).peekable();
        let mut buffers = Vec::new();
        for (i, (_, place)) in self.places.iter().enumerate() {
            match place {
                Place::Fixed(buffer) => buffers.push(buffer.clone()),
                Place::Planned => match slots.next_if(|(id, _)| *id == i) {
                    Some((_, buffer)) => buffers.push(buffer),
                    None => panic!("activation {i} is never used"),
                },
            }
        }
        Ok(buffers)
    }
}

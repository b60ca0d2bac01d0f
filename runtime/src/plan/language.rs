//! The operations of a decoder layer. Of one token they are fused, since there launches cost as much as arithmetic: a norm
//! rides on the linear behind it, the way down of an adapter on the matrix beside it, the way up on whoever reads the
//! output. Of many tokens each is a kernel of its own.

use super::builder::{Act, Bound, Builder, DOWN_PLANES, PLANES, planes};
use super::linear::{HLora, Linear, Matrix, Vector};
use crate::gpu::Buffer;
use shaders::hlora::HLora as HLoraParams;
use shaders::{
    Choice, Constant, KvFormat, attention, attention_combine, attention_decode, gemv, gemv_residual, hlora, hlora_gate,
    residual_adapted, rope_append, swiglu, swiglu_adapted,
};

/// The residual stream `[n, d]`, and of one token what the next norm needs.
#[derive(Clone, Copy)]
pub struct Stream {
    /// The stream itself.
    pub x: Act,
    normed: Option<Normed>,
}

/// The stream of one token on its way through a norm.
#[derive(Clone, Copy)]
enum Normed {
    /// Finished.
    Whole(Act),
    /// Times the norm's weight, with sums of squares behind it.
    Prepared(Act),
}

/// The output of a linear, of one token perhaps without what its adapter adds.
#[derive(Clone, Copy)]
pub struct Projected<'a> {
    /// `[n, outputs]`; of one token with (A x, R x) behind it.
    pub y: Act,
    outputs: usize,
    up: Option<&'a HLora>,
}

/// The attention of one layer.
pub struct Attention<'a> {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Keys before itself that a query sees.
    pub window: Option<usize>,
    /// cos and sin by position.
    pub rope: &'a Buffer,
    /// Keys by position.
    pub k: &'a Buffer,
    /// Values by position.
    pub v: &'a Buffer,
    /// Format of both.
    pub kv: KvFormat,
    /// Where the factors of a cache in int8 begin, in words.
    pub kv_factors: u32,
}

impl<'a> Builder<'a> {
    /// The stream as it enters the first layer, with that layer's norm.
    pub fn stream(&mut self, x: Act, norm: &Vector, eps: f32) -> Stream {
        let normed = (x.rows == 1).then(|| Normed::Whole(self.rmsnorm(x, norm, eps)));
        Stream { x, normed }
    }

    /// `linear(norm(x))`.
    pub fn linear_norm<'w>(&mut self, linear: &Linear<'w>, stream: Stream, norm: &Vector, eps: f32) -> Projected<'w> {
        match stream.normed {
            None => {
                let h = self.rmsnorm(stream.x, norm, eps);
                self.projected(linear, h)
            }
            Some(Normed::Whole(h)) => self.gemv_adapted(linear, h, None),
            Some(Normed::Prepared(h)) => self.gemv_adapted(linear, h, Some(eps)),
        }
    }

    /// `linear(x)` with the adapter whole.
    fn projected<'w>(&mut self, linear: &Linear<'w>, x: Act) -> Projected<'w> {
        let y = self.act(x.rows, linear.weight.rows);
        self.product(linear.weight, x, y, false);
        if let Some(hlora) = linear.hlora {
            self.hlora(hlora, x, y);
        }
        Projected { y, outputs: y.cols, up: None }
    }

    /// `x += linear(a)`, and what the norm that follows needs. `stage` names the linear's output in a traced run.
    pub fn linear_add(&mut self, linear: &Linear, stage: &str, a: Act, stream: Stream, next: &Vector) -> Stream {
        let x = stream.x;
        if x.rows > 1 {
            if self.is_traced() {
                let Projected { y, .. } = self.projected(linear, a);
                self.tap(stage, y);
                self.add(x, y);
            } else {
                self.product(linear.weight, a, x, true);
                if let Some(hlora) = linear.hlora {
                    self.hlora(hlora, a, x);
                }
            }
            return Stream { x, normed: None };
        }
        let d = x.cols;
        let normed = self.act(1, d + gemv::parts(d));
        let norm = &next.buffer;
        match linear.hlora {
            Some(hlora) => {
                let Projected { y, .. } = self.gemv_adapted(linear, a, None);
                let params = residual_adapted::Params { cols: d as u32, hlora: hlora_params(Some(hlora)) };
                let own = vec![("y", y.into()), ("x", x.into()), ("norm", norm.into()), ("normed", normed.into())];
                let grid = residual_adapted::grid(d as u32);
                self.with_up(&residual_adapted::KERNEL, hlora, &[], &[], params, own, grid);
            }
            None => self.gemv_residual(linear.weight, a, x, norm, normed),
        }
        Stream { x, normed: Some(Normed::Prepared(normed)) }
    }

    /// Logits of the last token of a run.
    pub fn head_last(&mut self, head: &Matrix, stream: Stream, norm: &Vector, eps: f32, logits: Act) {
        let (h, eps) = match stream.normed {
            None => (self.rmsnorm_last(stream.x, norm, eps), None),
            Some(Normed::Whole(h)) => (h, None),
            Some(Normed::Prepared(h)) => (h, Some(eps)),
        };
        self.gemv(head, h, None, eps, logits);
    }

    /// W of one token with the way down of its adapter.
    fn gemv_adapted<'w>(&mut self, linear: &Linear<'w>, x: Act, eps: Option<f32>) -> Projected<'w> {
        let outputs = linear.weight.rows;
        let y = self.act(1, outputs + linear.hlora.map_or(0, |h| h.down.rows));
        self.gemv(linear.weight, x, linear.hlora.map(|h| &h.down), eps, y);
        Projected { y, outputs, up: linear.hlora }
    }

    /// `y = W x`, then `down x` behind it, divided by the root mean square if `eps` is given.
    fn gemv(&mut self, weight: &Matrix, x: Act, down: Option<&Matrix>, eps: Option<f32>, y: Act) {
        let parts = eps.map_or(0, |_| gemv::parts(weight.cols));
        assert_eq!(x.cols, weight.cols + parts, "inputs of {}", weight.name);
        assert_eq!(y.cols, weight.rows + down.map_or(0, |d| d.rows), "outputs of {}", weight.name);
        let variant = self.gemv_variant(&gemv::KERNEL, x.cols);
        for (i, shard) in weight.shards.iter().enumerate() {
            let mut imports = vec![weight.format.import()];
            let mut constants = weight.format.constants();
            constants.push(gemv::x_constant(weight.cols));
            let mut bound: Vec<(&'static str, Bound)> = vec![("x", x.into()), ("y", y.into())];
            bound.extend(planes(PLANES, shard));
            // The first shard takes the adapter along.
            let down = down.filter(|_| i == 0);
            match down {
                Some(down) => {
                    imports.push(down.format.down_import());
                    constants.extend(down.format.down_constants());
                    let Some(shard) = self.only_shard(down) else { return };
                    bound.extend(planes(DOWN_PLANES, shard));
                }
                None => imports.push(gemv::NO_DOWN),
            }
            let (rows, down_rows) = (shard.rows as u32, down.map_or(0, |d| d.rows as u32));
            let params = gemv::Params {
                rows,
                cols4: weight.cols as u32 / 4,
                blocks: weight.cols.div_ceil(32) as u32,
                y_offset: shard.row0 as u32,
                down_rows,
                down_offset: weight.rows as u32,
                parts: parts as u32,
                eps: eps.unwrap_or(0.0),
            };
            let grid = gemv::grid(variant, rows, down_rows);
            self.step(&gemv::KERNEL, variant, &imports, &constants, params, bound, grid, &weight.name);
        }
    }

    fn gemv_residual(&mut self, weight: &Matrix, a: Act, x: Act, norm: &Buffer, normed: Act) {
        assert_eq!(a.cols, weight.cols, "inputs of {}", weight.name);
        assert_eq!(x.cols, weight.rows, "outputs of {}", weight.name);
        let variant = self.gemv_variant(&gemv_residual::KERNEL, a.cols);
        for shard in &weight.shards {
            let mut bound: Vec<(&'static str, Bound)> =
                vec![("x", a.into()), ("stream", x.into()), ("norm", norm.into()), ("normed", normed.into())];
            bound.extend(planes(PLANES, shard));
            let rows = shard.rows as u32;
            let params = gemv_residual::Params {
                rows,
                cols4: weight.cols as u32 / 4,
                blocks: weight.cols.div_ceil(32) as u32,
                row0: shard.row0 as u32,
                d: weight.rows as u32,
            };
            let imports = [weight.format.import()];
            let constants = [weight.format.constants(), vec![gemv::x_constant(weight.cols)]].concat();
            let grid = gemv_residual::grid(variant, rows);
            self.step(&gemv_residual::KERNEL, variant, &imports, &constants, params, bound, grid, &weight.name);
        }
    }

    /// A kernel that adds the way up of an adapter, and so binds B and makes room for its rank.
    #[expect(clippy::too_many_arguments, reason = "a step, as in `Builder::step`")]
    fn with_up(
        &mut self,
        kernel: &'static shaders::Kernel,
        hlora: &HLora,
        imports: &[Choice],
        constants: &[Constant],
        params: impl bytemuck::Pod,
        mut bound: Vec<(&'static str, Bound)>,
        grid: [u32; 3],
    ) {
        let Some(shard) = self.only_shard(&hlora.up) else { return };
        bound.extend(planes(PLANES, shard));
        let imports = [imports, &[hlora.up.format.import()]].concat();
        let mut constants = [&hlora.up.format.constants(), constants].concat();
        constants.push(hlora::constant(hlora.up.cols / 32));
        let variant = self.select(kernel, &imports, &constants);
        self.step(kernel, variant, &imports, &constants, params, bound, grid, "");
    }

    /// `y += B (gate * scale * A x)` of many tokens.
    fn hlora(&mut self, hlora: &HLora, x: Act, y: Act) {
        let u = self.matrix(&hlora.down, x);
        let v = self.act(x.rows, hlora.up.cols);
        let gates = self.act(x.rows, hlora.experts);
        let params = hlora_gate::Params {
            rank: hlora.rank as u32,
            experts: hlora.experts as u32,
            v_cols: hlora.up.cols as u32,
            scale: hlora.scale,
        };
        let bound = vec![("u", u.into()), ("v", v.into()), ("gates", gates.into())];
        self.simple(&hlora_gate::KERNEL, &[], params, bound, hlora_gate::grid(x.rows as u32));
        self.tap(&format!("gates.{}", hlora.linear), gates);
        self.tap_input(hlora.linear, gates);
        self.product(&hlora.up, v, y, true);
    }

    /// Turns q and k, stores k and v at their positions, and attends to the cache: `[n, heads head_dim]`.
    pub fn attention(&mut self, qkv: Projected, a: &Attention) -> Act {
        assert_eq!(qkv.outputs, (a.heads + 2 * a.kv_heads) * a.head_dim, "qkv");
        if qkv.y.rows == 1 { self.attention_of_one(qkv, a) } else { self.attention_of_many(qkv.y, a) }
    }

    fn attention_of_one(&mut self, qkv: Projected, a: &Attention) -> Act {
        let (heads, width) = (a.heads as u32, a.heads * a.head_dim);
        let out = self.act(1, width);
        let parts = self.workgroups().div_ceil(a.heads);
        let joined = (parts > 1).then(|| self.act(1, attention_combine::part_values(parts, a.heads, a.head_dim)));
        let params = attention_decode::Params {
            heads,
            kv_heads: a.kv_heads as u32,
            head_dim: a.head_dim as u32,
            window: window(a),
            parts: parts as u32,
            scale: scale(a),
            hlora: hlora_params(qkv.up),
            kv_factors: a.kv_factors,
        };
        let bound = vec![
            ("qkv", qkv.y.into()),
            ("rope", a.rope.into()),
            ("out", joined.unwrap_or(out).into()),
            ("k_cache", a.k.into()),
            ("v_cache", a.v.into()),
        ];
        let (kernel, kv) = (&attention_decode::KERNEL, a.kv.update_import());
        let grid = attention_decode::grid(heads, parts as u32);
        let constants = attention_decode::constants(a.head_dim);
        match qkv.up {
            Some(hlora) => self.with_up(kernel, hlora, &[kv], &constants, params, bound, grid),
            None => {
                let imports = [kv, ("weights", "weights_none")];
                let constants = [&constants[..], &[hlora::constant(1)]].concat();
                let variant = self.select(kernel, &imports, &constants);
                self.step(kernel, variant, &imports, &constants, params, bound, grid, "");
            }
        }
        self.works(0, 2 * a.heads * a.head_dim);
        if let Some(joined) = joined {
            let head_dim4 = a.head_dim as u32 / 4;
            let params = attention_combine::Params { heads, head_dim4, parts: parts as u32 };
            let bound = vec![("parts", joined.into()), ("out", out.into())];
            let grid = attention_combine::grid(heads, head_dim4);
            self.simple(&attention_combine::KERNEL, &[], params, bound, grid);
        }
        out
    }

    fn attention_of_many(&mut self, qkv: Act, a: &Attention) -> Act {
        let q = self.act(qkv.rows, a.heads * a.head_dim);
        let params = rope_append::Params {
            heads: a.heads as u32,
            kv_heads: a.kv_heads as u32,
            head_dim: a.head_dim as u32,
            kv_factors: a.kv_factors,
        };
        let bound = vec![
            ("qkv", qkv.into()),
            ("rope", a.rope.into()),
            ("q", q.into()),
            ("k_cache", a.k.into()),
            ("v_cache", a.v.into()),
        ];
        let grid = rope_append::grid(&params, qkv.rows as u32);
        self.simple(&rope_append::KERNEL, &[a.kv.update_import()], params, bound, grid);

        let out = self.act(q.rows, q.cols);
        let params = attention::Params {
            heads: a.heads as u32,
            kv_heads: a.kv_heads as u32,
            head_dim4: a.head_dim as u32 / 4,
            full: 0,
            window: window(a),
            q_offset4: 0,
            q_stride4: q.cols as u32 / 4,
            k_offset4: 0,
            v_offset4: 0,
            kv_stride4: (a.kv_heads * a.head_dim) as u32 / 4,
            scale: scale(a),
            kv_factors: a.kv_factors,
        };
        let bound = vec![("q", q.into()), ("out", out.into()), ("k_cache", a.k.into()), ("v_cache", a.v.into())];
        let grid = attention::grid(a.heads as u32, a.head_dim as u32, q.rows as u32);
        self.simple(&attention::KERNEL, &[a.kv.read_import()], params, bound, grid);
        self.works(0, 2 * q.rows * q.cols);
        out
    }

    /// `silu(gate) * up`; the linear's rows are gate, up.
    pub fn swiglu(&mut self, gate_up: Projected) -> Act {
        let f = gate_up.outputs / 2;
        let m = self.act(gate_up.y.rows, f);
        if let Some(hlora) = gate_up.up {
            let params = swiglu_adapted::Params { cols: f as u32, hlora: hlora_params(Some(hlora)) };
            let own = vec![("y", gate_up.y.into()), ("m", m.into())];
            let grid = swiglu_adapted::grid(f as u32);
            self.with_up(&swiglu_adapted::KERNEL, hlora, &[], &[], params, own, grid);
        } else {
            let bound = vec![("h", gate_up.y.into()), ("m", m.into())];
            let grid = swiglu::grid(f as u32, m.rows as u32);
            self.simple(&swiglu::KERNEL, &[], swiglu::Params { cols: f as u32 }, bound, grid);
        }
        m
    }
}

fn hlora_params(hlora: Option<&HLora>) -> HLoraParams {
    hlora.map_or_else(HLoraParams::default, |h| HLoraParams {
        rank: h.rank as u32,
        experts: h.experts as u32,
        up_blocks: h.up.cols as u32 / 32,
        hlora_scale: h.scale,
    })
}

fn window(a: &Attention) -> u32 {
    a.window.and_then(|w| u32::try_from(w).ok()).unwrap_or(u32::MAX)
}

fn scale(a: &Attention) -> f32 {
    1.0 / (a.head_dim as f32).sqrt()
}

//! From the file to the device: tensor by tensor, in pieces, each hash checked on the way. Or from no file at all.

use super::config::{Config, Task};
use super::recipe::Recipe;
use super::synthetic;
use super::tensors::{Kind, LINEARS, Spec};
use crate::Result;
use crate::file::{Container, Layout};
use crate::gpu::{Buffer, Gpu, Upload, Usage};
use crate::plan::{Biased, HLora, Matrix, Norm, Shard, Vector};
use devices::Profile;
use shaders::{Format, KvFormat};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Of what is in memory already, handed on at a time.
const PIECE_BYTES: usize = 4 << 20;
/// A shard has at most this much in one binding: what WebGPU promises of a buffer, whatever the device would allow.
const SHARD_BYTES: u64 = 256 << 20;

/// What a model file says of itself, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// Dimensions.
    pub config: Config,
    /// Formats.
    pub recipe: Recipe,
}

impl Header {
    /// Reads and checks configuration and recipe, and that every tensor is there with its type and shape.
    ///
    /// *Errors*: [`crate::Error::File`] names the entry or tensor, found and expected.
    pub fn read(container: &Container) -> Result<Self> {
        let config: Config = serde_json::from_str(container.metadata("config")?)
            .map_err(|e| container.wrong(format!("has a damaged configuration: {e}")))?;
        let recipe: Recipe = serde_json::from_str(container.metadata("recipe")?)
            .map_err(|e| container.wrong(format!("has a damaged recipe: {e}")))?;
        config.check().and_then(|()| recipe.check()).map_err(|problem| container.wrong(problem))?;
        for spec in config.tensors() {
            for layout in spec.layouts(&recipe) {
                container.tensor(&layout.name, layout.dtype, &layout.shape)?;
            }
        }
        Ok(Header { config, recipe })
    }

    /// Format of the cache that a profile prefers, or f16 for heads that q8 cannot hold.
    pub fn kv_for(&self, profile: &Profile) -> KvFormat {
        match self.config.language.head_dim.is_multiple_of(KvFormat::GROUP) {
            true => profile.kv,
            false => KvFormat::F16,
        }
    }

    /// Which of the tasks it has no part for, in a line.
    pub fn lacks(&self, tasks: &[Task]) -> Option<String> {
        let lacking = tasks.iter().find(|t| self.config.task(**t).is_none())?.name();
        Some(format!("was made without `{lacking}`: quantize it with --tasks {lacking}"))
    }
}

/// Where the bytes of tensors come from.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// A model file.
    File(&'a Container<'a>),
    /// Nowhere: they are made up.
    Synthetic,
    /// Nowhere, and none are needed: the device is only thought of.
    Planned,
    /// The caller.
    Memory(&'a Planes),
}

/// Planes of tensors as a model file would hold them, by name.
pub type Planes = BTreeMap<String, Vec<u8>>;

impl Source<'_> {
    /// As [`Container::stream`].
    fn stream(self, layout: &Layout, unit: usize, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        match self {
            Source::File(container) => container.stream(&layout.name, unit, take),
            Source::Synthetic => synthetic::stream(layout, unit, take),
            Source::Planned => Ok(()),
            Source::Memory(planes) => {
                let plane = planes.get(&layout.name).filter(|p| p.len() as u64 == layout.bytes());
                let plane = plane.unwrap_or_else(|| panic!("`{}` was not given whole", layout.name));
                plane.chunks((PIECE_BYTES / unit).max(1) * unit).try_for_each(&mut take)
            }
        }
    }
}

/// Loads the tensors of one model.
pub(crate) struct Loader<'a> {
    gpu: &'a Gpu,
    source: Source<'a>,
    header: &'a Header,
    specs: BTreeMap<String, Spec>,
    loaded: BTreeSet<String>,
    upload: Upload,
    allocated_bytes: u64,
    /// Sees how many bytes have been loaded or checked.
    seen: &'a mut dyn FnMut(u64) -> Result<()>,
}

impl<'a> Loader<'a> {
    /// `seen` is called with the bytes that have been loaded or checked since it was called before, and may end it.
    pub fn new(
        gpu: &'a Gpu,
        source: Source<'a>,
        header: &'a Header,
        seen: &'a mut dyn FnMut(u64) -> Result<()>,
    ) -> Self {
        let specs = header.config.tensors().into_iter().map(|s| (s.name.clone(), s)).collect();
        Loader {
            gpu,
            source,
            header,
            specs,
            loaded: BTreeSet::new(),
            upload: Upload::new(gpu),
            allocated_bytes: 0,
            seen,
        }
    }

    /// Bytes allocated on the device so far.
    pub fn allocated_bytes(&self) -> u64 {
        self.allocated_bytes
    }

    fn buffer(&mut self, name: &str, bytes: u64) -> Result<Buffer> {
        let buffer = self.gpu.buffer(name, bytes, Usage::Weights)?;
        self.allocated_bytes += buffer.size();
        Ok(buffer)
    }

    fn spec(&self, name: &str) -> (Kind, Format, Vec<Layout>) {
        let spec = self.specs.get(name).unwrap_or_else(|| panic!("`{name}` is not in the table of tensors"));
        (spec.kind, spec.format(&self.header.recipe), spec.layouts(&self.header.recipe))
    }

    /// A norm, a bias, a table of f32.
    pub fn vector(&mut self, name: &str) -> Result<Vector> {
        let (Kind::Plain { rows, cols }, _, layouts) = self.spec(name) else { panic!("`{name}` is no plain tensor") };
        let buffer = self.buffer(name, (rows * cols * 4) as u64)?;
        self.plane(&layouts[0], 1, &[(0, 1, buffer.clone())])?;
        Ok(Vector { buffer, len: rows * cols })
    }

    /// Weight and bias of a norm.
    pub fn norm(&mut self, name: &str) -> Result<Norm> {
        Ok(Norm { weight: self.vector(&format!("{name}.weight"))?, bias: self.vector(&format!("{name}.bias"))? })
    }

    /// A matrix with its bias.
    pub fn biased(&mut self, name: &str) -> Result<Biased> {
        Ok(Biased { weight: self.matrix(name)?, bias: self.vector(&format!("{name}.bias"))? })
    }

    /// A packed matrix.
    pub fn matrix(&mut self, name: &str) -> Result<Matrix> {
        let (Kind::Matrix { rows, .. }, ..) = self.spec(name) else { panic!("`{name}` is no matrix") };
        self.matrix_rows(name, 0..rows)
    }

    /// Some rows of a packed matrix; only these reach the device.
    pub fn matrix_rows(&mut self, name: &str, range: Range<usize>) -> Result<Matrix> {
        let (Kind::Matrix { rows: all_rows, cols, .. }, format, layouts) = self.spec(name) else {
            panic!("`{name}` is no matrix")
        };
        let rows = range.len();
        // Kernels read x four at a time; the packed columns are padded with zeros well beyond that.
        let mut matrix = Matrix { name: name.into(), format, rows, cols: cols.next_multiple_of(4), shards: Vec::new() };
        let row_bytes = layouts[0].bytes() / all_rows as u64;
        matrix.shards = self.shards(rows, row_bytes);
        // The q4 kernels bind zero points whether there are any or not.
        let bound_planes = if matches!(format, Format::Q4 { .. }) { 3 } else { layouts.len() };
        for plane in 0..bound_planes {
            let layout = layouts.get(plane);
            let mut parts = Vec::new();
            for shard in &mut matrix.shards {
                let bytes = layout.map_or(16, |l| l.bytes() / all_rows as u64 * shard.rows as u64);
                let buffer = self.buffer(name, bytes)?;
                shard.planes.push(buffer.clone());
                parts.push((range.start + shard.row0, shard.rows, buffer));
            }
            if let Some(layout) = layout {
                self.plane(layout, all_rows, &parts)?;
            }
        }
        Ok(matrix)
    }

    /// An embedding table, row-major.
    pub fn table(&mut self, name: &str) -> Result<Matrix> {
        let (Kind::Table { rows, cols }, format, layouts) = self.spec(name) else { panic!("`{name}` is no table") };
        let row_bytes = layouts[0].bytes() / rows as u64;
        let mut shards = self.shards(rows, row_bytes);
        for shard in &mut shards {
            shard.planes.push(self.buffer(name, row_bytes * shard.rows as u64)?);
        }
        // Rows follow each other, so the shards are filled one after another.
        let (mut current, mut at) = (0, 0);
        self.source.stream(&layouts[0], row_bytes as usize, |mut piece| {
            while !piece.is_empty() {
                let shard = &shards[current];
                let room = row_bytes * shard.rows as u64 - at;
                let count = room.min(piece.len() as u64) as usize;
                self.upload.write(&shard.planes[0], at, &piece[..count])?;
                (self.seen)(count as u64)?;
                at += count as u64;
                piece = &piece[count..];
                if count as u64 == room {
                    (current, at) = (current + 1, 0);
                }
            }
            Ok(())
        })?;
        self.loaded.insert(name.into());
        Ok(Matrix { name: name.into(), format, rows, cols, shards })
    }

    fn shards(&self, rows: usize, row_bytes: u64) -> Vec<Shard> {
        let facts = self.gpu.facts();
        let most = facts.storage_binding_bytes.min(facts.buffer_bytes).min(SHARD_BYTES);
        // A matrix times a vector takes a workgroup for 32 rows.
        let most_rows = facts.groups_per_axis as usize * 32;
        let fit = ((most / row_bytes.max(1)).max(1) as usize).min(most_rows);
        // Kernels handle rows by the 32.
        let shard_rows = if fit > 32 { fit / 32 * 32 } else { fit };
        (0..rows)
            .step_by(shard_rows)
            .map(|row0| Shard { row0, rows: shard_rows.min(rows - row0), planes: Vec::new() })
            .collect()
    }

    /// One plane `[lines][rows][per row]` into the buffers of row ranges (first row, rows, buffer).
    fn plane(&mut self, plane: &Layout, rows: usize, parts: &[(usize, usize, Buffer)]) -> Result<()> {
        let whole = matches!(parts, [(0, count, _)] if *count == rows);
        // In one piece the lines need not be taken apart.
        let per_row = if whole { 4 } else { per_row_bytes(plane, rows) };
        let line_bytes = if whole { 4 } else { per_row * rows };
        let mut at = 0;
        let mut line = 0;
        self.source.stream(plane, line_bytes, |piece| {
            if whole {
                self.upload.write(&parts[0].2, at, piece)?;
            } else {
                for (i, bytes) in piece.chunks_exact(line_bytes).enumerate() {
                    for (row0, count, buffer) in parts {
                        let segment = &bytes[row0 * per_row..(row0 + count) * per_row];
                        self.upload.write(buffer, ((line + i) * count * per_row) as u64, segment)?;
                    }
                }
                line += piece.len() / line_bytes;
            }
            at += piece.len() as u64;
            (self.seen)(piece.len() as u64)
        })?;
        self.loaded.insert(plane.name.clone());
        Ok(())
    }

    /// The adapter of one linear.
    pub fn hlora(&mut self, task: Task, layer: usize, linear: &'static str) -> Result<HLora> {
        let adapter = &self.header.config.task(task).expect("the caller checked the task").adapter;
        let (rank, experts, scale) = (adapter.rank, adapter.experts, adapter.scale);
        let stem = format!("{}.layers.{layer}.{linear}", task.name());
        let down = self.matrix(&format!("{stem}.down"))?;
        let mut up = self.matrix(&format!("{stem}.up"))?;
        // The gate kernel fills whole blocks.
        up.cols = rank.next_multiple_of(32);
        Ok(HLora { linear, down, up, rank, experts, scale })
    }

    /// The adapters of one layer, in the order of [`LINEARS`]; none if they lie in the base weights.
    pub fn layer_adapters(&mut self, task: Task, layer: usize) -> Result<Option<[HLora; 4]>> {
        if self.header.config.task(task).is_some_and(|t| t.adapter.folded) {
            return Ok(None);
        }
        let [a, b, c, d] = LINEARS.map(|(linear, _)| self.hlora(task, layer, linear));
        Ok(Some([a?, b?, c?, d?]))
    }

    /// Checks the hashes of everything in the file that has not been loaded, so that a damaged file never answers.
    pub fn verify_rest(self) -> Result<()> {
        self.upload.finish()?;
        let Source::File(container) = self.source else { return Ok(()) };
        let names = container.tensors().keys().filter(|name| !self.loaded.contains(*name));
        container.verify(&names.map(String::as_str).collect::<Vec<_>>(), self.seen)
    }
}

/// Bytes that one row adds to each line of a plane.
fn per_row_bytes(plane: &Layout, rows: usize) -> usize {
    let lines = plane.shape.first().copied().unwrap_or(1).max(1);
    plane.bytes() as usize / lines / rows.max(1)
}

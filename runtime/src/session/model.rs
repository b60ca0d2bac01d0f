//! An open model: weights on the device, shared by sessions.

use super::{Footprint, Session, SessionOptions};
use crate::file::Container;
use crate::gpu::{self, Gpu};
use crate::image::{Preprocess, RgbPicture};
use crate::model::clip::{Clip, Projector};
use crate::model::load::{Loader, Source};
use crate::model::phi3::{Adapted, Phi3};
use crate::model::vqgan::Decoder;
use crate::model::{Config, Header, Task, Vision, Vocabulary, WayBack};
use crate::text::Tokenizer;
use crate::{Error, Result, hex};
use devices::Facts;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::Arc;

/// Sees how far opening is, from 0 to 1, and what is being done; may end it. Called on the opening thread.
pub type Progress = Arc<dyn Fn(f32, &'static str) -> ControlFlow<()> + Send + Sync>;

/// How a model is opened.
#[derive(Clone, Default)]
pub struct OpenOptions {
    /// What it is opened for; only these tasks' weights are loaded. Empty: to ask.
    pub tasks: Vec<Task>,
    /// On which device.
    pub gpu: gpu::Options,
    /// An open device to share instead, with its compiled kernels.
    pub on: Option<Gpu>,
    /// Load the whole head of the generation task, not only the rows that may be drawn: for comparisons.
    pub whole_head: bool,
    /// Sees how far opening is.
    pub progress: Option<Progress>,
    /// What [`Model::sha256`] must be, as bytes.
    pub expected_sha256: Option<[u8; 32]>,
    /// Trust the device: no kernel has to show a known answer before it is used.
    pub skip_self_test: bool,
}

/// What a model file says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSummary {
    /// Dimensions and formats.
    pub header: Header,
    /// As [`Model::sha256`].
    pub sha256: String,
    /// Size of the file.
    pub bytes: u64,
    /// Program that wrote the file, and its version.
    pub producer: String,
}

impl OpenOptions {
    fn report(&self, fraction: f32, stage: &'static str) -> Result<()> {
        match self.progress.as_ref().map(|progress| progress(fraction.min(1.0), stage)) {
            Some(ControlFlow::Break(())) => Err(Error::Cancelled),
            _ => Ok(()),
        }
    }

    fn wanted(&self) -> &[Task] {
        if self.tasks.is_empty() { &[Task::Ask] } else { &self.tasks }
    }
}

/// What a task brings of its own.
pub(crate) struct TaskWeights {
    pub adapted: Adapted,
    pub projector: Option<Projector>,
    pub rows: HeadRows,
    /// With the generation task.
    pub decoder: Option<Decoder>,
}

/// Which ids the rows of a loaded head stand for, and which may win.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeadRows {
    /// Id of row 0.
    pub first_id: u32,
    /// The first so many rows may always win.
    pub ordinary: usize,
    /// The row of `<pixel_newline>`, if only codes are ordinary.
    pub newline: Option<u32>,
}

/// A model on a device.
pub struct Model {
    pub(crate) gpu: Gpu,
    pub(crate) header: Header,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) phi3: Phi3,
    pub(crate) clip: Option<Clip>,
    preprocess: Option<Preprocess>,
    tasks: BTreeMap<Task, TaskWeights>,
    sha256: String,
    /// Of a file in another basis than the published one.
    pub(crate) way_back: Option<WayBack>,
    footprint: Footprint,
    is_trusting: bool,
}

/// A picture as the vision tower takes it.
#[derive(Clone)]
pub struct Picture {
    /// `[3, S, S]`, normalised.
    pub(crate) pixel_values: Vec<f32>,
    /// Tells pictures apart.
    pub(crate) id: [u8; 32],
}

/// The tokenizer of a model file, codes included.
fn stored_tokenizer(container: &Container, header: &Header) -> Result<Tokenizer> {
    const CONFIG: &str = "tokenizer_config.json";
    let json = container.read("tokenizer.json")?;
    let config = container.tensors().contains_key(CONFIG).then(|| container.read(CONFIG)).transpose()?;
    let tokenizer = Tokenizer::new(&json, config.as_deref()).map_err(|problem| container.wrong(problem))?;
    let expected = header.config.vocabulary.tokens;
    if tokenizer.len() != expected {
        let found = tokenizer.len();
        return Err(container.wrong(format!("the tokenizer has {found} tokens, the configuration says {expected}")));
    }
    Ok(tokenizer.with_codes(header.config.vocabulary.codes))
}

/// A tokenizer of so many tokens that reads any text as unknown.
fn synthetic_tokenizer(vocabulary: Vocabulary) -> Result<Tokenizer, String> {
    let vocab = json!({"<unk>": 0, "▁": vocabulary.tokens - 1});
    let file = json!({
        "normalizer": {"type": "Prepend", "prepend": "▁"},
        "model": {"type": "BPE", "unk_token": "<unk>", "vocab": vocab, "merges": []},
    });
    Ok(Tokenizer::new(file.to_string().as_bytes(), None)?.with_codes(vocabulary.codes))
}

/// How pictures are made ready for the vision tower, if there is one.
///
/// *Errors*: one line that says what is wrong.
pub(super) fn preprocess(config: &Config) -> Result<Option<Preprocess>, String> {
    let Some(v) = &config.vision else { return Ok(None) };
    let preprocess = Preprocess::new(&serde_json::to_vec(&v.preprocessor).unwrap_or_default())?;
    if preprocess.crop as usize != v.image {
        return Err(format!("its pictures are {0} x {0}, its vision tower takes {1} x {1}", preprocess.crop, v.image));
    }
    Ok(Some(preprocess))
}

/// Which rows of a task's head are loaded, and what they are.
///
/// Of a head with a mean row all but that: its logit is the mean of the others, which is never the largest. To generate,
/// only codes and `<pixel_newline>` may ever be drawn: they stand together, with `<end_index>` between them.
fn head_rows(config: &Config, task: Task, whole: bool) -> (Range<usize>, HeadRows) {
    let rows = config.task(task).map_or(0, |t| t.head_rows);
    let Vocabulary { tokens, codes } = config.vocabulary;
    if task == Task::Generate && !whole {
        let first = tokens + 1;
        return (first..rows, HeadRows { first_id: first as u32, ordinary: codes, newline: Some(codes as u32 + 1) });
    }
    let rows = if rows == tokens + 1 { tokens } else { rows };
    (0..rows, HeadRows { first_id: 0, ordinary: rows, newline: None })
}

impl Model {
    /// Opens a model file: checks its header, loads the weights of the tasks, checks the hash of every tensor.
    ///
    /// *Errors*: [`Error::File`] names file, tensor, found and expected; those of the device.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Arc<Self>> {
        Self::from_container(&Container::open(path)?, options)
    }

    /// The same for a model file that is in memory; nothing of `bytes` is kept.
    ///
    /// *Errors*: as [`Model::open`].
    pub fn open_in_memory(bytes: &[u8], options: &OpenOptions) -> Result<Arc<Self>> {
        Self::from_container(&Container::in_memory(bytes)?, options)
    }

    /// What a model file says of itself; no device is needed.
    ///
    /// *Errors*: [`Error::Io`], [`Error::File`].
    pub fn probe(path: &Path) -> Result<ModelSummary> {
        Self::summary(&Container::open(path)?)
    }

    /// The same for a model file that is in memory.
    ///
    /// *Errors*: as [`Model::probe`].
    pub fn probe_in_memory(bytes: &[u8]) -> Result<ModelSummary> {
        Self::summary(&Container::in_memory(bytes)?)
    }

    fn summary(container: &Container) -> Result<ModelSummary> {
        let header = Header::read(container)?;
        let producer = container.metadata("producer").unwrap_or_default().into();
        Ok(ModelSummary { header, sha256: container.sha256().into(), bytes: container.bytes(), producer })
    }

    fn from_container(container: &Container, options: &OpenOptions) -> Result<Arc<Self>> {
        let sha256: String = container.sha256().into();
        if let Some(expected) = options.expected_sha256 {
            let expected = hex(&expected);
            if expected != sha256 {
                let path = container.path().into();
                return Err(Error::Integrity {
                    path,
                    problem: format!("has SHA-256 {sha256}; {expected} is expected"),
                });
            }
        }
        let header = Header::read(container)?;
        if let Some(problem) = header.lacks(options.wanted()) {
            return Err(Error::Task(format!("{}: {problem}", container.path().display())));
        }
        let tokenizer = stored_tokenizer(container, &header)?;
        let preprocess = preprocess(&header.config).map_err(|problem| container.wrong(problem))?;
        Self::load(Source::File(container), header, tokenizer, preprocess, sha256, options)
    }

    /// A model that no file holds, with made-up weights: as fast as a real one, and as large.
    ///
    /// *Errors*: [`Error::Input`] for dimensions that cannot be or a task that is not there; those of the device.
    pub fn synthetic(header: Header, options: &OpenOptions) -> Result<Arc<Self>> {
        let wrong = |problem: String| Error::Input { what: "synthetic model".into(), problem };
        header.config.check().and_then(|()| header.recipe.check()).map_err(wrong)?;
        if let Some(task) = options.wanted().iter().find(|t| header.config.task(**t).is_none()) {
            return Err(wrong(format!("has no part to {}", task.name())));
        }
        let tokenizer = synthetic_tokenizer(header.config.vocabulary).map_err(wrong)?;
        let preprocess = preprocess(&header.config).map_err(wrong)?;
        Self::load(Source::Synthetic, header, tokenizer, preprocess, String::new(), options)
    }

    fn load(
        source: Source,
        header: Header,
        tokenizer: Tokenizer,
        preprocess: Option<Preprocess>,
        sha256: String,
        options: &OpenOptions,
    ) -> Result<Arc<Self>> {
        let wanted = options.wanted();
        let gpu = options.on.clone().map_or_else(|| Gpu::open(&options.gpu), Ok)?;
        let config = &header.config;
        if !options.skip_self_test && !gpu.is_imagined() {
            // Before anything is read, and while there is room.
            for task in wanted {
                let kv = header.kv_for(gpu.profile());
                let session = SessionOptions { task: *task, kv, ..Default::default() };
                let plan = |thought: &Gpu| Self::think_of(&header, thought, &session);
                gpu.settle(plan, || options.report(0.0, "self-test"))?;
            }
        }
        let whole = match source {
            Source::File(container) => container.tensors().values().map(|t| t.bytes).sum(),
            Source::Synthetic | Source::Planned | Source::Memory(_) => {
                config.tensors().iter().flat_map(|s| s.layouts(&header.recipe)).map(|l| l.bytes()).sum::<u64>()
            }
        };
        let mut done = 0;
        let mut seen = |bytes: u64| {
            done += bytes;
            options.report(done as f32 / whole.max(1) as f32, "weights")
        };
        let mut loader = Loader::new(&gpu, source, &header, &mut seen);
        let mut footprint = Footprint::default();
        let mut before = 0;
        // Allocated since it was asked before.
        let mut since = |loader: &Loader| {
            let bytes = loader.allocated_bytes() - before;
            before += bytes;
            bytes
        };
        let phi3 = Phi3::load(&mut loader, config)?;
        footprint.weights += since(&loader);
        let layers = wanted.iter().filter_map(|t| config.task(*t)).map(|t| t.vision_layers).max();
        let clip = config.vision.as_ref().map(|_| Clip::load(&mut loader, layers.unwrap_or(0))).transpose()?;
        footprint.vision += since(&loader);
        let mut tasks = BTreeMap::new();
        for task in wanted {
            let (range, rows) = head_rows(config, *task, options.whole_head);
            let adapted = Adapted::load(&mut loader, config, *task, range)?;
            let adapters = adapted.adapter_bytes();
            footprint.adapters += adapters;
            footprint.weights += since(&loader) - adapters;
            let projector = clip.as_ref().map(|_| Projector::load(&mut loader, *task)).transpose()?;
            footprint.vision += since(&loader);
            let vqgan = config.vqgan.as_ref().filter(|_| *task == Task::Generate);
            let decoder = vqgan.map(|q| Decoder::load(&mut loader, q)).transpose()?;
            footprint.image_decoder += since(&loader);
            tasks.insert(*task, TaskWeights { adapted, projector, rows, decoder });
        }
        loader.verify_rest()?;
        let way_back = match source {
            Source::File(container) => WayBack::read(container, config)?,
            _ => None,
        };
        options.report(1.0, "ready")?;
        if !gpu.is_imagined() {
            log::info!("model {sha256}: {} MB on the device", footprint.total() >> 20);
        }
        let is_trusting = options.skip_self_test || gpu.is_imagined();
        let model =
            Model { gpu, header, tokenizer, phi3, clip, preprocess, tasks, sha256, way_back, footprint, is_trusting };
        Ok(Arc::new(model))
    }

    /// Has the kernel variants of a session show known answers, unless they have before; see [`Gpu::settle`].
    pub(super) fn settle(&self, session: &SessionOptions) -> Result<()> {
        match self.is_trusting {
            true => Ok(()),
            false => self.gpu.settle(|thought| Self::think_of(&self.header, thought, session), || Ok(())),
        }
    }

    /// Plans a session on a device that is only thought of, as small as it can be: it has the same kernels.
    fn think_of(header: &Header, thought: &Gpu, session: &SessionOptions) -> Result<()> {
        let open = OpenOptions { tasks: vec![session.task], ..Default::default() };
        let SessionOptions { task, kv, adapter, traced, .. } = *session;
        let small = SessionOptions { task, kv, adapter, traced, context: Some(2), ..Default::default() };
        Session::new(&Self::imagined(header, thought.clone(), &open)?, small)?;
        Ok(())
    }

    /// What the model says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Identifies the model; empty for a synthetic one.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// What its weights take of the device's memory.
    pub fn footprint(&self) -> Footprint {
        self.footprint
    }

    /// Checks the device again: every kernel variant that sessions with this model use, on an input with a known answer.
    /// Opening did so too, with this driver once.
    ///
    /// *Errors*: [`Error::Faulty`], those of the device.
    pub fn self_test(&self) -> Result<()> {
        let thought = self.gpu.imagined_like_this();
        for task in self.tasks.keys() {
            Self::think_of(&self.header, &thought, &SessionOptions { task: *task, ..Default::default() })?;
        }
        self.gpu.self_test(&[&thought, &self.gpu])
    }

    /// Gives back what can be made again: compiled kernels that no session uses.
    ///
    /// *Errors*: those of the device.
    pub fn trim(&self) -> Result<()> {
        self.gpu.trim()
    }

    /// What a model with one session would take of a device's memory, by the code that would allocate it: the model is
    /// loaded, and the session made, on a device that is only thought of. It has no ceiling.
    ///
    /// *Errors*: as [`Model::open`] and [`Session::new`](crate::Session::new), but for those of allocation.
    pub fn plan(header: &Header, facts: &Facts, open: &OpenOptions, session: &SessionOptions) -> Result<Footprint> {
        let gpu =
            open.on.as_ref().map_or_else(|| Gpu::imagined(facts, &open.gpu), |gpu| Ok(gpu.imagined_like_this()))?;
        let model = Self::imagined(header, gpu, open)?;
        Ok(Session::new(&model, session.clone())?.footprint())
    }

    /// The same model on a device that is only thought of.
    fn imagined(header: &Header, gpu: Gpu, open: &OpenOptions) -> Result<Arc<Self>> {
        header.lacks(open.wanted()).map_or(Ok(()), |problem| Err(Error::Task(problem)))?;
        let open = OpenOptions { on: Some(gpu), progress: None, ..open.clone() };
        let tokenizer = synthetic_tokenizer(Vocabulary { tokens: 2, codes: 0 });
        let tokenizer = tokenizer.map_err(|problem| Error::Input { what: "tokenizer".into(), problem })?;
        Self::load(Source::Planned, header.clone(), tokenizer, None, String::new(), &open)
    }

    pub(crate) fn task(&self, task: Task) -> Result<&TaskWeights> {
        self.tasks.get(&task).ok_or_else(|| Error::Task(format!("task: the model was not opened to {}", task.name())))
    }

    /// A picture as the vision tower sees it: padded, resized and cropped.
    ///
    /// *Errors*: as [`Model::picture`].
    pub fn preview(&self, picture: &RgbPicture) -> Result<RgbPicture> {
        Ok(self.preprocess()?.preview(picture))
    }

    fn preprocess(&self) -> Result<&Preprocess> {
        self.preprocess
            .as_ref()
            .ok_or_else(|| Error::Input { what: "picture".into(), problem: "this model has no vision tower".into() })
    }

    /// Makes a picture ready for the vision tower.
    ///
    /// *Errors*: [`Error::Input`] if this model takes none.
    pub fn picture(&self, picture: &RgbPicture) -> Result<Picture> {
        Ok(Picture::new(self.preprocess()?.run(picture)))
    }
}

impl Picture {
    pub(super) fn new(pixel_values: Vec<f32>) -> Self {
        let id = Sha256::digest(bytemuck::cast_slice(&pixel_values)).into();
        Picture { pixel_values, id }
    }
}

/// A picture's patches, `[P + 1][cols]`. Row 0 is the class token's and stays zero. A patch is `[3][p][p]`, as the
/// convolution's weights.
pub(super) fn vision_patches(v: &Vision, cols: usize, picture: &Picture) -> Vec<f32> {
    let side = v.image / v.patch;
    let mut patches = vec![0.0; (side * side + 1) * cols];
    for (i, row) in patches.chunks_exact_mut(cols).skip(1).enumerate() {
        let (top, left) = (i / side * v.patch, i % side * v.patch);
        for (j, value) in row.iter_mut().take(v.patch_inputs()).enumerate() {
            let (channel, y, x) = (j / (v.patch * v.patch), j / v.patch % v.patch, j % v.patch);
            *value = picture.pixel_values[(channel * v.image + top + y) * v.image + left + x];
        }
    }
    patches
}

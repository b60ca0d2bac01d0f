//! An open model: weights on the device, shared by sessions.

use crate::file::Container;
use crate::gpu::{self, Gpu};
use crate::image::{Preprocess, RgbPicture};
use crate::model::clip::{Clip, Projector};
use crate::model::load::{Loader, Source};
use crate::model::phi3::{Adapted, Phi3};
use crate::model::vqgan::Decoder;
use crate::model::{Config, Header, Task, Vision, Vocabulary, WayBack};
use crate::text::Tokenizer;
use crate::{Error, Result};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

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
}

impl OpenOptions {
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
        let container = Container::open(path)?;
        let header = Header::read(&container)?;
        for task in options.wanted() {
            if header.config.task(*task).is_none() {
                return Err(
                    container.wrong(format!("was made without `{0}`: quantize it with --tasks {0}", task.name()))
                );
            }
        }
        let tokenizer = stored_tokenizer(&container, &header)?;
        let preprocess = preprocess(&header.config).map_err(|problem| container.wrong(problem))?;
        let sha256 = container.sha256().into();
        Self::load(Source::File(&container), header, tokenizer, preprocess, sha256, options)
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
        let mut loader = Loader::new(&gpu, source, &header);
        let phi3 = Phi3::load(&mut loader, config)?;
        let layers = wanted.iter().filter_map(|t| config.task(*t)).map(|t| t.vision_layers).max();
        let clip = config.vision.as_ref().map(|_| Clip::load(&mut loader, layers.unwrap_or(0))).transpose()?;
        let mut tasks = BTreeMap::new();
        for task in wanted {
            let (range, rows) = head_rows(config, *task, options.whole_head);
            let adapted = Adapted::load(&mut loader, config, *task, range)?;
            let projector = clip.as_ref().map(|_| Projector::load(&mut loader, *task)).transpose()?;
            let vqgan = config.vqgan.as_ref().filter(|_| *task == Task::Generate);
            let decoder = vqgan.map(|q| Decoder::load(&mut loader, q)).transpose()?;
            tasks.insert(*task, TaskWeights { adapted, projector, rows, decoder });
        }
        loader.verify_rest()?;
        let way_back = match source {
            Source::File(container) => WayBack::read(container, config)?,
            _ => None,
        };
        log::info!("model {sha256}: {} MB on the device", gpu.allocated_bytes() >> 20);
        Ok(Arc::new(Model { gpu, header, tokenizer, phi3, clip, preprocess, tasks, sha256, way_back }))
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

    pub(crate) fn task(&self, task: Task) -> Result<&TaskWeights> {
        self.tasks.get(&task).ok_or_else(|| Error::Input {
            what: "task".into(),
            problem: format!("the model was not opened to {}", task.name()),
        })
    }

    /// Makes a picture ready for the vision tower.
    ///
    /// *Errors*: [`Error::Input`] if this model takes none.
    pub fn picture(&self, picture: &RgbPicture) -> Result<Picture> {
        let preprocess = self
            .preprocess
            .as_ref()
            .ok_or_else(|| Error::Input { what: "picture".into(), problem: "this model has no vision tower".into() })?;
        Ok(Picture::new(preprocess.run(picture)))
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

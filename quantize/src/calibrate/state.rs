//! What calibrating has done so far, in a folder beside the output, so that it can go on where it was interrupted.

use crate::transform::Scales;
use crate::{Error, Result};
use runtime::model::Planes;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

/// The folder, for one input, recipe and set of calibration data.
pub struct State {
    folder: PathBuf,
    key: String,
}

/// What is kept of a layer.
#[derive(Default)]
pub struct LayerState {
    /// Planes of the four linears.
    pub planes: Planes,
    /// Factors of their input channels, if they were scaled.
    pub scales: Option<Scales>,
    /// What is reported of the layer.
    pub notes: LayerNotes,
}

/// What is reported of a layer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerNotes {
    /// Mean square of the error over mean square of the values, by linear.
    pub nmse: BTreeMap<String, f64>,
    /// Mean cosine between the residual streams after the layer.
    pub cosine: f64,
    /// Mean square of their difference over mean square of the first.
    pub stream_nmse: f64,
    /// Mean gates by linear, where adapters were folded.
    pub gates: Option<BTreeMap<String, Vec<f64>>>,
}

/// Residual streams after a layer: of the unquantised model, and of the file where it is judged.
#[derive(Default)]
pub struct Streams {
    /// Layers that they went through.
    pub layers: usize,
    /// By sequence, `[n, d]`.
    pub before: Vec<Vec<f32>>,
    /// By sequence; empty of those that nothing is judged by.
    pub after: Vec<Vec<f32>>,
    /// The same of the unquantised model with folded adapters; empty if they are not.
    pub folded: Vec<Vec<f32>>,
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

impl State {
    /// The folder for this output; `key` says what is being done. What is there from something else is thrown away.
    ///
    /// *Errors*: the folder cannot be made.
    pub fn open(output: &Path, key: String) -> Result<Self> {
        let mut name = std::ffi::OsString::from(".");
        name.push(output.file_name().unwrap_or_default());
        name.push(".calibration");
        let this = State { folder: output.with_file_name(name), key };
        let known = fs::read_to_string(this.folder.join("key")).is_ok_and(|k| k == this.key);
        if !known {
            this.remove();
            fs::create_dir_all(&this.folder).map_err(Error::write(&this.folder))?;
            this.put("key", this.key.as_bytes())?;
        }
        Ok(this)
    }

    /// Removes the folder.
    pub fn remove(&self) {
        // It is no harm but its size.
        let _ = fs::remove_dir_all(&self.folder);
    }

    /// A file appears whole or not at all.
    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let (part, whole) = (self.folder.join(format!("{name}.partial")), self.folder.join(name));
        fs::write(&part, bytes).and_then(|()| fs::rename(&part, &whole)).map_err(Error::write(&whole))
    }

    fn put_tensors(&self, name: &str, tensors: &[(String, Vec<u8>)], notes: String) -> Result<()> {
        let wrong = |e: safetensors::SafeTensorError| Error::file(&self.folder.join(name), e.to_string());
        let views =
            tensors.iter().map(|(name, bytes)| Ok((name, TensorView::new(Dtype::U8, vec![bytes.len()], bytes)?)));
        let views = views.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
        let metadata = HashMap::from([("notes".to_owned(), notes)]);
        self.put(name, &safetensors::serialize(views, Some(metadata)).map_err(wrong)?)
    }

    /// The tensors of a file and what is noted with them; nothing if it is not there or damaged.
    fn tensors(&self, name: &str) -> Option<(BTreeMap<String, Vec<u8>>, String)> {
        let bytes = fs::read(self.folder.join(name)).ok()?;
        let (_, header) = SafeTensors::read_metadata(&bytes).ok()?;
        let notes = header.metadata().as_ref()?.get("notes")?.clone();
        let tensors = SafeTensors::deserialize(&bytes).ok()?;
        Some((tensors.iter().map(|(n, t)| (n.to_owned(), t.data().to_vec())).collect(), notes))
    }

    /// Keeps a layer.
    ///
    /// *Errors*: a write fault.
    pub fn save_layer(&self, layer: usize, state: &LayerState) -> Result<()> {
        let mut tensors: Vec<(String, Vec<u8>)> =
            state.planes.iter().map(|(name, plane)| (format!("plane {name}"), plane.clone())).collect();
        for (i, scale) in state.scales.iter().flatten().enumerate() {
            tensors.push((format!("scale {i}"), bytes(scale)));
        }
        self.put_tensors(&format!("layer-{layer}"), &tensors, serde_json::json!(state.notes).to_string())
    }

    /// A layer that was kept.
    ///
    /// *Errors*: it is not there, or damaged.
    pub fn layer(&self, layer: usize) -> Result<LayerState> {
        let name = format!("layer-{layer}");
        let damaged = || Error::file(&self.folder.join(&name), "is damaged; remove the folder to begin again");
        let (tensors, notes) = self.tensors(&name).ok_or_else(damaged)?;
        let mut state =
            LayerState { notes: serde_json::from_str(&notes).map_err(|_| damaged())?, ..Default::default() };
        let mut scales = Vec::new();
        for (name, bytes) in tensors {
            match name.split_once(' ') {
                Some(("plane", name)) => drop(state.planes.insert(name.into(), bytes)),
                Some(("scale", _)) => scales.push(floats(&bytes)),
                _ => return Err(damaged()),
            }
        }
        state.scales = scales.try_into().ok();
        Ok(state)
    }

    /// Keeps the streams in place of those before.
    ///
    /// *Errors*: a write fault.
    pub fn save_streams(&self, streams: &Streams) -> Result<()> {
        let named = |kind: &str, all: &[Vec<f32>]| -> Vec<(String, Vec<u8>)> {
            all.iter().enumerate().map(|(i, s)| (format!("{kind} {i:06}"), bytes(s))).collect()
        };
        let tensors =
            [named("before", &streams.before), named("after", &streams.after), named("folded", &streams.folded)]
                .concat();
        self.put_tensors("streams", &tensors, streams.layers.to_string())
    }

    /// The streams that were kept.
    pub fn streams(&self) -> Option<Streams> {
        let (tensors, notes) = self.tensors("streams")?;
        let mut streams = Streams { layers: notes.parse().ok()?, ..Default::default() };
        // Names sort by sequence.
        for (name, bytes) in tensors {
            let all = match name.split_once(' ')?.0 {
                "before" => &mut streams.before,
                "after" => &mut streams.after,
                _ => &mut streams.folded,
            };
            all.push(floats(&bytes));
        }
        Some(streams)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_there_for_the_same_key_alone() {
        let folder = std::env::temp_dir().join(format!("quantize-state-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let output = folder.join("model.safetensors");
        let open = |key: &str| State::open(&output, key.into()).unwrap();
        let state = open("one");
        assert!(state.streams().is_none() && state.layer(0).is_err());
        let planes = Planes::from([("a".into(), vec![1, 2, 3]), ("a.scale".into(), vec![])]);
        let notes = LayerNotes { cosine: 0.5, ..Default::default() };
        let scales = Some([vec![1.0], vec![2.0, 0.1], vec![], vec![-3.0]]);
        state
            .save_layer(0, &LayerState { planes: planes.clone(), scales: scales.clone(), notes: notes.clone() })
            .unwrap();
        let before = (0..11).map(|i| vec![i as f32 / 3.0]).collect::<Vec<_>>();
        state
            .save_streams(&Streams {
                layers: 1,
                before: before.clone(),
                after: vec![vec![], vec![f32::MIN]],
                folded: vec![],
            })
            .unwrap();
        let again = open("one");
        let layer = again.layer(0).unwrap();
        assert_eq!((layer.planes, layer.scales, layer.notes), (planes, scales, notes));
        let streams = again.streams().unwrap();
        assert_eq!((streams.layers, streams.before, streams.after), (1, before, vec![vec![], vec![f32::MIN]]));
        assert!(open("two").streams().is_none());
        open("two").remove();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        fs::remove_dir_all(&folder).unwrap();
    }
}

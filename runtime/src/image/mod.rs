//! Pictures in: from the bytes of a file to the pixel values that the vision tower takes.
//!
//! It knows nothing of the model, the device or files on disk, and it never logs what a picture shows or who is in it.

mod crop;
mod decode;
mod dicom;
mod encode;
mod preprocess;

pub use crop::{Crop, Rect};
pub use decode::{MAX_PIXELS, MAX_SIDE, Options, RgbPicture, Shape, check_size, decode, shape};
pub use encode::encode_png;
pub use preprocess::Preprocess;

//! Pictures out: PNG with text beside the pixels.

use super::RgbPicture;

/// The bytes of a PNG file; `texts` are (keyword, text) in Latin-1.
///
/// *Errors*: one line that says what is wrong with the picture or a text.
pub fn encode_png(picture: &RgbPicture, texts: &[(&str, &str)]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, picture.width, picture.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    for (keyword, text) in texts {
        encoder.add_text_chunk((*keyword).into(), (*text).into()).map_err(|e| e.to_string())?;
    }
    let mut writer = encoder.write_header().map_err(|e| e.to_string())?;
    writer.write_image_data(&picture.pixels).map_err(|e| e.to_string())?;
    writer.finish().map_err(|e| e.to_string())?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read_again_text_and_all() {
        let pixels: Vec<u8> = (0..18).collect();
        let picture = RgbPicture { width: 3, height: 2, pixels, region: None };
        let bytes = encode_png(&picture, &[("Comment", "synthetic")]).unwrap();
        assert!(crate::image::decode(&bytes, "x.png", Default::default()).unwrap() == picture);
        let reader = png::Decoder::new(std::io::Cursor::new(&bytes)).read_info().unwrap();
        assert_eq!(reader.info().uncompressed_latin1_text[0].text, "synthetic");
    }
}

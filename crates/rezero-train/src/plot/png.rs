//! Figures as PNG.

use std::sync::{Arc, LazyLock};

use resvg::{tiny_skia, usvg};

use super::grid::Placed;

/// The pixels of a PNG per unit of its SVG.
const SCALE: u32 = 2;

/// A figure's SVG as PNG, two pixels per unit, in light colours. The renderer leaves out the images
/// of a figure, so they are given as well.
pub fn png(svg: &str, images: &[Placed<'_>]) -> Vec<u8> {
    static FONTS: LazyLock<Arc<usvg::fontdb::Database>> = LazyLock::new(|| {
        let mut fonts = usvg::fontdb::Database::new();
        fonts.load_font_data(epaint_default_fonts::UBUNTU_LIGHT.to_vec());
        let family = fonts
            .faces()
            .find_map(|face| face.families.first().map(|(name, _)| name.clone()));
        if let Some(family) = family {
            fonts.set_sans_serif_family(family);
        }
        Arc::new(fonts)
    });
    let options = usvg::Options {
        fontdb: FONTS.clone(),
        ..usvg::Options::default()
    };
    let tree = usvg::Tree::from_str(svg, &options).expect("our own SVG is SVG");
    let size = tree.size();
    let scale = SCALE as f32;
    let (width, height) = (scale * size.width(), scale * size.height());
    let mut pixels = tiny_skia::Pixmap::new(width as u32, height as u32)
        .expect("figures are neither empty nor huge");
    let scaled = tiny_skia::Transform::from_scale(scale, scale);
    resvg::render(&tree, scaled, &mut pixels.as_mut());
    for image in images {
        draw(image, &mut pixels);
    }
    pixels.encode_png().expect("pixels in memory encode")
}

/// Draws an image; each pixel gets the nearest of the image's.
fn draw(image: &Placed<'_>, pixels: &mut tiny_skia::Pixmap) {
    let (width, height) = (image.width * SCALE, image.height * SCALE);
    let stride = pixels.width();
    for y in 0..height {
        for x in 0..width {
            let (row, column) = (
                y as usize * image.tile.height / height as usize,
                x as usize * image.tile.width / width as usize,
            );
            let [r, g, b] = image.tile.pixel(row, column);
            let at = (image.y * SCALE + y) * stride + image.x * SCALE + x;
            let color = tiny_skia::PremultipliedColorU8::from_rgba(r, g, b, u8::MAX);
            if let (Some(to), Some(color)) = (pixels.pixels_mut().get_mut(at as usize), color) {
                *to = color;
            }
        }
    }
}

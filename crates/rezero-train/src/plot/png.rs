//! Figures as PNG.

use std::sync::{Arc, LazyLock};

use resvg::{tiny_skia, usvg};

/// A figure's SVG as PNG, two pixels per unit, in light colours.
pub fn png(svg: &str) -> Vec<u8> {
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
    let (width, height) = (2.0 * size.width(), 2.0 * size.height());
    let mut pixels = tiny_skia::Pixmap::new(width as u32, height as u32)
        .expect("figures are neither empty nor huge");
    let twice = tiny_skia::Transform::from_scale(2.0, 2.0);
    resvg::render(&tree, twice, &mut pixels.as_mut());
    pixels.encode_png().expect("pixels in memory encode")
}

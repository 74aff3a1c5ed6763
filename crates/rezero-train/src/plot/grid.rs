//! Images side by side with what is said of them.

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{INK, SERIES, svg, text};

/// Images side by side, each with two lines of text below.
#[derive(Clone, Debug, Default)]
pub struct Grid {
    /// The title.
    pub title: String,
    /// What the colours of the frames say, below the title.
    pub subtitle: String,
    /// The images, row by row.
    pub tiles: Vec<Tile>,
}

/// An image of a [`Grid`].
#[derive(Clone, Debug, Default)]
pub struct Tile {
    /// The pixel bytes, `[row, column, 3]`.
    pub pixels: Vec<u8>,
    /// The number of rows, at least 1.
    pub height: usize,
    /// The number of columns, at least 1.
    pub width: usize,
    /// What is said of the image, up to two lines.
    pub lines: Vec<String>,
    /// Whether it is right; `None` if nobody knows.
    pub right: Option<bool>,
}

impl Tile {
    /// Red, green and blue.
    #[cfg(feature = "png")]
    pub(super) fn pixel(&self, row: usize, column: usize) -> [u8; 3] {
        let at = 3 * (row * self.width + column);
        std::array::from_fn(|c| self.pixels[at + c])
    }
}

/// An image at its place in a figure, in units of the SVG.
pub struct Placed<'a> {
    pub(super) tile: &'a Tile,
    pub(super) x: u32,
    pub(super) y: u32,
    pub(super) width: u32,
    pub(super) height: u32,
}

/// The longer side of an image, and the sides of its cell.
const IMAGE: u32 = 96;
const CELL: (u32, u32) = (124, 146);
const MARGIN: u32 = 16;
const TOP: u32 = 64;
const COLUMNS: usize = 8;
/// The characters of a line that a cell has room for.
const LETTERS: usize = 19;

impl Grid {
    fn size(&self) -> (u32, u32) {
        // The title needs the room of four images.
        let columns = self.tiles.len().clamp(4, COLUMNS) as u32;
        let rows = self.tiles.len().div_ceil(COLUMNS).max(1) as u32;
        (
            2 * MARGIN + columns * CELL.0,
            TOP + rows * CELL.1 + MARGIN / 2,
        )
    }

    /// The images at their places.
    pub fn placed(&self) -> Vec<Placed<'_>> {
        let place = |(i, tile): (usize, &'_ Tile)| {
            let longer = tile.height.max(tile.width) as u32;
            let side = |side: usize| (IMAGE * side as u32 / longer).max(1);
            let (width, height) = (side(tile.width), side(tile.height));
            let (row, column) = ((i / COLUMNS) as u32, (i % COLUMNS) as u32);
            (
                MARGIN + column * CELL.0 + (CELL.0 - width) / 2,
                TOP + row * CELL.1 + (IMAGE - height) / 2,
                width,
                height,
            )
        };
        let tiles = self.tiles.iter().enumerate();
        tiles
            .map(|(i, tile)| {
                let (x, y, width, height) = place((i, tile));
                Placed {
                    tile,
                    x,
                    y,
                    width,
                    height,
                }
            })
            .collect()
    }

    /// The figure as SVG, with the images in it.
    pub fn svg(&self) -> String {
        let placed = self.placed();
        let mut figure = svg(self.size(), |area| {
            let left = |size| text(size).pos(Pos::new(HPos::Left, VPos::Center));
            let letters = (self.size().0 / 8) as usize;
            area.draw(&Text::new(
                shortened(&self.title, letters),
                (MARGIN as i32 + 8, 20),
                left(17),
            ))?;
            area.draw(&Text::new(
                shortened(&self.subtitle, letters),
                (MARGIN as i32 + 8, 42),
                left(14),
            ))?;
            for (i, image) in placed.iter().enumerate() {
                let color = match image.tile.right {
                    None => INK,
                    Some(true) => SERIES[2],
                    Some(false) => SERIES[1],
                };
                if image.tile.right.is_some() {
                    let (x, y) = (image.x as i32, image.y as i32);
                    let (right, bottom) = (x + image.width as i32, y + image.height as i32);
                    // The frame of a rectangle is one unit wide, whatever its style says.
                    for i in 2..5 {
                        let corners = [(x - i, y - i), (right + i - 1, bottom + i - 1)];
                        area.draw(&Rectangle::new(corners, color))?;
                    }
                }
                let (row, column) = ((i / COLUMNS) as u32, (i % COLUMNS) as u32);
                let middle = (MARGIN + column * CELL.0 + CELL.0 / 2) as i32;
                for (line, y) in image.tile.lines.iter().take(2).zip([12, 28]) {
                    let style = text(13).pos(Pos::new(HPos::Center, VPos::Center));
                    let y = (TOP + row * CELL.1 + IMAGE) as i32 + y;
                    area.draw(&Text::new(shortened(line, LETTERS), (middle, y), style))?;
                }
            }
            Ok(())
        });
        let mut images = String::new();
        for image in &placed {
            images.push_str(&format!(
                "<image x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" preserveAspectRatio=\"none\" \
                 style=\"image-rendering:pixelated\" href=\"data:image/png;base64,{}\"/>\n",
                image.x,
                image.y,
                image.width,
                image.height,
                base64(&encoded(image.tile))
            ));
        }
        let end = figure.rfind("</svg>").unwrap_or(figure.len());
        figure.insert_str(end, &images);
        figure
    }
}

/// `line`, cut to at most `most` characters.
fn shortened(line: &str, most: usize) -> String {
    match line.chars().count() > most {
        true => line.chars().take(most - 1).chain(['…']).collect(),
        false => line.to_owned(),
    }
}

/// An image as PNG.
fn encoded(tile: &Tile) -> Vec<u8> {
    let mut png = Vec::new();
    PngEncoder::new(&mut png)
        .write_image(
            &tile.pixels,
            tile.width as u32,
            tile.height as u32,
            ExtendedColorType::Rgb8,
        )
        .expect("three bytes for each pixel encode into memory");
    png
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |i: usize| u32::from(three.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * i) & 63) as usize];
            text.push(if i > three.len() {
                '='
            } else {
                char::from(letter)
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    fn tile(height: usize, width: usize, line: &str, right: Option<bool>) -> Tile {
        Tile {
            pixels: (0..3 * height * width).map(|i| (i % 256) as u8).collect(),
            height,
            width,
            lines: vec![line.to_owned(), "second".to_owned()],
            right,
        }
    }

    #[test]
    fn a_grid_holds_images_and_lines_that_are_escaped() {
        let odd = "<script>&\u{1b}\u{202e}\"";
        let grid = Grid {
            title: odd.to_owned(),
            subtitle: "a".repeat(1000),
            tiles: vec![
                tile(32, 32, odd, Some(true)),
                tile(1, 200, "wide", Some(false)),
                tile(5, 1, "high", None),
            ],
        };
        let svg = grid.svg();
        assert_eq!(svg.matches("<image ").count(), 3);
        assert!(!svg.contains("<script>") && !svg.contains(['\u{1b}', '\u{202e}']));
        assert!(svg.contains("&lt;script&gt;") && svg.contains("width=\"96\" height=\"1\""));
        assert!(svg.ends_with("</svg>\n"));
        #[cfg(feature = "png")]
        {
            let png = super::super::png(&svg, &grid.placed());
            let drawn = image::load_from_memory(&png).unwrap().into_rgb8();
            let first = &grid.placed()[0];
            for (row, column) in [(0, 0), (31, 31), (3, 17)] {
                let (x, y) = (
                    2 * first.x + 6 * column as u32,
                    2 * first.y + 6 * row as u32,
                );
                assert_eq!(drawn.get_pixel(x, y).0, first.tile.pixel(row, column));
                assert_eq!(
                    drawn.get_pixel(x + 5, y + 5).0,
                    first.tile.pixel(row, column)
                );
            }
        }
    }

    #[test]
    fn a_grid_of_many_images_has_rows() {
        let grid = Grid {
            tiles: vec![tile(8, 8, "x", None); 19],
            ..Grid::default()
        };
        let placed = grid.placed();
        assert_eq!((placed[16].x, placed[17].x), (placed[0].x, placed[1].x));
        assert!(placed[16].y > placed[8].y && placed[8].y > placed[7].y);
        let (width, height) = grid.size();
        assert!(
            placed
                .iter()
                .all(|p| p.x + p.width < width && p.y + p.height < height)
        );
        assert!(Grid::default().svg().ends_with("</svg>\n"));
    }
}

//! Quantisation and Huffman tables.

use super::scan::Bits;
use super::{Result, damaged};

/// The row-major place of each coefficient in the order of the file (T.81, figure A.6).
pub(super) const ZIGZAG: [usize; 64] = zigzag();

const fn zigzag() -> [usize; 64] {
    let mut order = [0; 64];
    let (mut row, mut column, mut i) = (0, 0, 0);
    while i < 64 {
        order[i] = 8 * row + column;
        // Diagonals, up and down in turn.
        match ((row + column) % 2 == 0, row, column) {
            (true, _, 7) => row += 1,
            (true, 0, _) => column += 1,
            (true, _, _) => {
                row -= 1;
                column += 1;
            }
            (false, 7, _) => column += 1,
            (false, _, 0) => row += 1,
            (false, _, _) => {
                row += 1;
                column -= 1;
            }
        }
        i += 1;
    }
    order
}

/// The factor of each coefficient, row by row.
pub(super) type Quantisation = [u16; 64];

/// The tables that segments have set so far.
#[derive(Default)]
pub(super) struct Tables {
    pub quantisation: [Option<Quantisation>; 4],
    /// The codes of the first coefficients, and of the others.
    pub huffman: [[Option<Huffman>; 4]; 2],
    /// The units between two restarts; 0: there are none.
    pub restart: usize,
}

impl Tables {
    pub fn read_quantisation(&mut self, mut segment: &[u8]) -> Result<()> {
        while let [first, rest @ ..] = segment {
            let size = match first >> 4 {
                0 => 1,
                1 => 2,
                _ => return damaged("a quantisation table is damaged"),
            };
            let (place, Some((values, rest))) = (first & 15, rest.split_at_checked(64 * size))
            else {
                return damaged("a quantisation table is damaged");
            };
            let Some(table) = self.quantisation.get_mut(usize::from(place)) else {
                return damaged("a quantisation table is damaged");
            };
            let table = table.insert([0; 64]);
            for (value, place) in values.chunks_exact(size).zip(ZIGZAG) {
                table[place] = value
                    .iter()
                    .fold(0, |all, byte| all << 8 | u16::from(*byte));
            }
            segment = rest;
        }
        Ok(())
    }

    pub fn read_huffman(&mut self, mut segment: &[u8]) -> Result<()> {
        while let [first, rest @ ..] = segment {
            let (class, place) = (usize::from(first >> 4), usize::from(first & 15));
            let Some((counts, rest)) = rest.split_first_chunk::<16>() else {
                return damaged("a Huffman table is damaged");
            };
            let total = counts.iter().map(|n| usize::from(*n)).sum();
            let Some((symbols, rest)) = rest.split_at_checked(total) else {
                return damaged("a Huffman table is damaged");
            };
            let table = self.huffman.get_mut(class).and_then(|of| of.get_mut(place));
            let Some(table) = table else {
                return damaged("a Huffman table is damaged");
            };
            // A first coefficient has at most 15 bits.
            if class == 0 && symbols.iter().any(|s| *s > 15) {
                return damaged("a Huffman table is damaged");
            }
            *table = Some(Huffman::new(counts, symbols)?);
            segment = rest;
        }
        Ok(())
    }
}

/// The bits of codes that one look decodes.
const SHORT: u32 = 9;

/// A Huffman code (T.81, annex C).
pub(super) struct Huffman {
    /// The length of the code that begins with these bits, and its symbol; length 0: it is longer.
    short: [(u8, u8); 1 << SHORT],
    /// For each length, one more than its largest code.
    ends: [u32; 17],
    /// For each length, the place of its first symbol less its first code.
    places: [i32; 17],
    symbols: Vec<u8>,
}

impl Huffman {
    fn new(counts: &[u8; 16], symbols: &[u8]) -> Result<Self> {
        let mut huffman = Self {
            short: [(0, 0); 1 << SHORT],
            ends: [0; 17],
            places: [0; 17],
            symbols: symbols.to_vec(),
        };
        let (mut code, mut place) = (0u32, 0usize);
        for (length, count) in (1u32..).zip(counts) {
            huffman.places[length as usize] = place as i32 - code as i32;
            for symbol in &symbols[place..][..usize::from(*count)] {
                if length <= SHORT {
                    let rest = SHORT - length;
                    let first = (code << rest) as usize;
                    // Else the codes do not fit, see below.
                    if let Some(all) = huffman.short.get_mut(first..first + (1 << rest)) {
                        all.fill((length as u8, *symbol));
                    }
                }
                code += 1;
            }
            place += usize::from(*count);
            // The code of ones alone has no symbol, but encoders exist that give it one.
            if code > 1 << length {
                return damaged("a Huffman table is damaged");
            }
            huffman.ends[length as usize] = code;
            code <<= 1;
        }
        Ok(huffman)
    }

    /// Reads a symbol.
    pub fn symbol(&self, bits: &mut Bits<'_>) -> Result<u8> {
        let (length, symbol) = self.short[bits.peek(SHORT) as usize];
        if length > 0 {
            bits.skip(length.into())?;
            return Ok(symbol);
        }
        for length in SHORT + 1..=16 {
            let code = bits.peek(length);
            if code < self.ends[length as usize] {
                bits.skip(length)?;
                let place = self.places[length as usize] + code as i32;
                let symbol = usize::try_from(place).ok();
                return match symbol.and_then(|place| self.symbols.get(place)) {
                    Some(symbol) => Ok(*symbol),
                    None => damaged("it has bits that are no code"),
                };
            }
        }
        damaged("it has bits that are no code")
    }
}

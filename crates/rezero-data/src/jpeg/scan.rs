//! The coefficients of a scan.

use super::tables::{Huffman, Tables, ZIGZAG};
use super::{Frame, Result, damaged};

/// The bits of entropy-coded data.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    /// The next byte to be read.
    at: usize,
    /// Bits that were read and not used, from the highest on.
    held: u64,
    n: u32,
}

impl<'a> Bits<'a> {
    pub fn new(bytes: &'a [u8], at: usize) -> Self {
        Self {
            bytes,
            at,
            held: 0,
            n: 0,
        }
    }

    /// Where the bytes begin that were not read. A marker is never read.
    pub fn at(&self) -> usize {
        self.at
    }

    fn fill(&mut self) {
        while self.n <= 56 {
            let step = match self.bytes.get(self.at..).unwrap_or_default() {
                [0xff, 0x00, ..] => 2,
                [] | [0xff, ..] => break,
                _ => 1,
            };
            self.held |= u64::from(self.bytes[self.at]) << (56 - self.n);
            self.n += 8;
            self.at += step;
        }
    }

    /// The next `n` bits, at most 16; behind the last one there are zeros.
    pub fn peek(&mut self, n: u32) -> u32 {
        if self.n < n {
            self.fill();
        }
        (self.held >> (64 - n)) as u32
    }

    pub fn skip(&mut self, n: u32) -> Result<()> {
        if n > self.n {
            return damaged("its data end early");
        }
        self.held <<= n;
        self.n -= n;
        Ok(())
    }

    /// The next `n` bits, from 1 to 16, as a number.
    fn number(&mut self, n: u32) -> Result<i32> {
        let value = self.peek(n) as i32;
        self.skip(n)?;
        Ok(value)
    }

    fn bit(&mut self) -> Result<bool> {
        Ok(self.number(1)? != 0)
    }

    /// A value of `n` bits, from 0 to 15: those that begin with 0 are negative (T.81, figure F.12).
    fn value(&mut self, n: u32) -> Result<i32> {
        if n == 0 {
            return Ok(0);
        }
        let value = self.number(n)?;
        Ok(match value < 1 << (n - 1) {
            true => value - (1 << n) + 1,
            false => value,
        })
    }

    /// Passes the restart marker number `i`.
    fn restart(&mut self, i: usize) -> Result<()> {
        let mut rest = super::Segments {
            bytes: self.bytes,
            at: self.at,
        };
        match rest.marker()? == 0xd0 + (i % 8) as u8 {
            true => {
                *self = Self::new(self.bytes, rest.at);
                Ok(())
            }
            false => damaged("it lacks a restart marker"),
        }
    }
}

/// What the scans so far have told of a component.
#[derive(Clone)]
pub(super) struct Progress {
    /// The bits that each coefficient still lacks, in the order of the file; None: it has not begun.
    lacks: [Option<u32>; 64],
}

impl Default for Progress {
    fn default() -> Self {
        Self { lacks: [None; 64] }
    }
}

impl Progress {
    pub fn has_begun(&self) -> bool {
        self.lacks[0].is_some()
    }
}

/// The header of a scan.
pub(super) struct Scan {
    /// The place of each component in the frame, and the places of its two Huffman tables.
    pub components: Vec<(usize, [usize; 2])>,
    /// The first and the last coefficient.
    band: (usize, usize),
    /// The bits that coefficients lacked before, if they have begun, and that they lack after this.
    before: u32,
    after: u32,
}

impl Scan {
    /// Reads the header, and checks that it goes on where the scans so far have ended.
    pub fn read(segment: &[u8], frame: &Frame, progress: &mut [Progress]) -> Result<Self> {
        let bad = "the header of a scan is damaged";
        let [n, rest @ ..] = segment else {
            return damaged(bad);
        };
        let n = usize::from(*n);
        let Some((described, &[first, last, bits])) = rest.split_at_checked(2 * n) else {
            return damaged(bad);
        };
        let mut components: Vec<(usize, [usize; 2])> = Vec::with_capacity(n);
        for of in described.chunks_exact(2) {
            let place = frame.components.iter().position(|have| have.id == of[0]);
            let tables = [usize::from(of[1] >> 4), usize::from(of[1] & 15)];
            match place {
                Some(place)
                    if tables.iter().all(|t| *t < 4)
                        && components.iter().all(|(other, _)| *other != place) =>
                {
                    components.push((place, tables));
                }
                _ => return damaged(bad),
            }
        }
        let scan = match frame.progressive {
            false => Self {
                components,
                band: (0, 63),
                before: 0,
                after: 0,
            },
            true => Self {
                components,
                band: (first.into(), last.into()),
                before: u32::from(bits >> 4),
                after: u32::from(bits & 15),
            },
        };
        let (first, last) = scan.band;
        let of_one_kind = !frame.progressive || (first == 0) == (last == 0);
        let alone = first == 0 || scan.components.len() == 1;
        if scan.components.is_empty()
            || !of_one_kind
            || !alone
            || first > last
            || last > 63
            || scan.after > 13
        {
            return damaged(bad);
        }
        for (place, _) in &scan.components {
            let lacks = &mut progress[*place].lacks;
            let in_order = first == 0 || lacks[0].is_some();
            for lacks in &mut lacks[first..=last] {
                let expected = match *lacks {
                    None => scan.before == 0,
                    Some(bits) => {
                        frame.progressive && bits == scan.before && scan.before == scan.after + 1
                    }
                };
                if !expected || !in_order {
                    return damaged("its scans are not in order");
                }
                *lacks = Some(scan.after);
            }
        }
        Ok(scan)
    }

    /// Reads the coefficients; those of a sequential frame become samples.
    pub fn decode(&self, bits: &mut Bits<'_>, frame: &mut Frame, tables: &Tables) -> Result<()> {
        let mut codes = Vec::with_capacity(self.components.len());
        for (_, places) in &self.components {
            let of = |class: usize| tables.huffman[class][places[class]].as_ref();
            codes.push([of(0), of(1)]);
        }
        let mut state = State {
            scan: self,
            last: vec![0; self.components.len()],
            run: 0,
        };
        let alone = match self.components[..] {
            [(place, _)] => Some(place),
            _ => None,
        };
        // A component alone has units of one block, and none outside the image.
        let units = alone.map_or(frame.units, |place| frame.components[place].blocks);
        for unit in 0..units.0 * units.1 {
            if tables.restart > 0 && unit > 0 && unit % tables.restart == 0 {
                bits.restart(unit / tables.restart - 1)?;
                state.last.fill(0);
                state.run = 0;
            }
            let (row, column) = (unit / units.0, unit % units.0);
            for (i, (place, _)) in self.components.iter().enumerate() {
                let component = &mut frame.components[*place];
                let (h, v) = match alone {
                    Some(_) => (1, 1),
                    None => component.sampling,
                };
                for (y, x) in (0..v).flat_map(|y| (0..h).map(move |x| (y, x))) {
                    let at = (row * v + y) * component.padded.0 + column * h + x;
                    match frame.progressive {
                        true => {
                            state.progressive(bits, i, codes[i], &mut component.coefficients[at])?
                        }
                        false => {
                            let mut block = [0; 64];
                            state.sequential(bits, i, codes[i], &mut block)?;
                            component.put(at, &block)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// What passes from block to block.
struct State<'a> {
    scan: &'a Scan,
    /// The last first coefficient of each component.
    last: Vec<i32>,
    /// The blocks that have no more new coefficients.
    run: i32,
}

/// The two codes of a component.
type Codes<'a> = [Option<&'a Huffman>; 2];

fn code<'a>(codes: Codes<'a>, class: usize) -> Result<&'a Huffman> {
    match codes[class] {
        Some(code) => Ok(code),
        None => damaged("it lacks a Huffman table"),
    }
}

/// The zeros before a coefficient, and its bits.
fn run_and_bits(bits: &mut Bits<'_>, code: &Huffman) -> Result<(usize, u32)> {
    let symbol = code.symbol(bits)?;
    Ok((usize::from(symbol >> 4), u32::from(symbol & 15)))
}

impl State<'_> {
    /// The first coefficient of component `i`: its difference to the last one.
    fn first(&mut self, bits: &mut Bits<'_>, i: usize, codes: Codes<'_>) -> Result<i32> {
        let n = code(codes, 0)?.symbol(bits)?;
        let difference = bits.value(n.into())?;
        self.last[i] = self.last[i].wrapping_add(difference);
        Ok(self.last[i])
    }

    fn sequential(
        &mut self,
        bits: &mut Bits<'_>,
        i: usize,
        codes: Codes<'_>,
        block: &mut [i16; 64],
    ) -> Result<()> {
        block[0] = self.first(bits, i, codes)? as i16;
        let code = code(codes, 1)?;
        let mut k = 1;
        while k < 64 {
            match run_and_bits(bits, code)? {
                (15, 0) => k += 16,
                (_, 0) => break,
                (zeros, n) => {
                    k += zeros;
                    if k > 63 {
                        return damaged("a block has too many coefficients");
                    }
                    block[ZIGZAG[k]] = bits.value(n)? as i16;
                    k += 1;
                }
            }
        }
        Ok(())
    }

    fn progressive(
        &mut self,
        bits: &mut Bits<'_>,
        i: usize,
        codes: Codes<'_>,
        block: &mut [i16; 64],
    ) -> Result<()> {
        let scan = self.scan;
        match (scan.band.0, scan.before) {
            (0, 0) => block[0] = (self.first(bits, i, codes)? << scan.after) as i16,
            (0, _) => block[0] |= i16::from(bits.bit()?) << scan.after,
            (_, 0) => self.begin(bits, code(codes, 1)?, block)?,
            _ => self.refine(bits, code(codes, 1)?, block)?,
        }
        Ok(())
    }

    /// The blocks of a run of `2^zeros` and more.
    fn run(bits: &mut Bits<'_>, zeros: usize) -> Result<i32> {
        Ok((1 << zeros)
            + match zeros {
                0 => 0,
                n => bits.number(n as u32)?,
            })
    }

    /// The high bits of a band (T.81, G.1.2.2).
    fn begin(&mut self, bits: &mut Bits<'_>, code: &Huffman, block: &mut [i16; 64]) -> Result<()> {
        if self.run > 0 {
            self.run -= 1;
            return Ok(());
        }
        let (mut k, last) = self.scan.band;
        while k <= last {
            match run_and_bits(bits, code)? {
                (15, 0) => k += 16,
                (zeros, 0) => {
                    self.run = Self::run(bits, zeros)? - 1;
                    break;
                }
                (zeros, n) => {
                    k += zeros;
                    if k > last {
                        return damaged("a block has too many coefficients");
                    }
                    block[ZIGZAG[k]] = (bits.value(n)? << self.scan.after) as i16;
                    k += 1;
                }
            }
        }
        Ok(())
    }

    /// One more bit of a band (T.81, G.1.2.3): of each coefficient that is not 0, and new coefficients.
    fn refine(&mut self, bits: &mut Bits<'_>, code: &Huffman, block: &mut [i16; 64]) -> Result<()> {
        let one = 1i16 << self.scan.after;
        let (mut k, last) = self.scan.band;
        while self.run == 0 && k <= last {
            let (mut zeros, n) = run_and_bits(bits, code)?;
            let new = match n {
                0 if zeros < 15 => {
                    self.run = Self::run(bits, zeros)?;
                    break;
                }
                0 => 0,
                1 if bits.bit()? => one,
                1 => -one,
                _ => return damaged("a coefficient has too many bits"),
            };
            while k <= last {
                let old = &mut block[ZIGZAG[k]];
                match *old {
                    0 if zeros == 0 => break,
                    0 => zeros -= 1,
                    _ => more(bits, old, one)?,
                }
                k += 1;
            }
            if new != 0 {
                if k > last {
                    return damaged("a block has too many coefficients");
                }
                block[ZIGZAG[k]] = new;
            }
            k += 1;
        }
        if self.run > 0 {
            for place in &ZIGZAG[k.min(64)..(last + 1).max(k.min(64))] {
                if block[*place] != 0 {
                    more(bits, &mut block[*place], one)?;
                }
            }
            self.run -= 1;
        }
        Ok(())
    }
}

/// One more bit of a coefficient.
fn more(bits: &mut Bits<'_>, old: &mut i16, one: i16) -> Result<()> {
    if bits.bit()? && *old & one == 0 {
        *old = old.wrapping_add(one * old.signum());
    }
    Ok(())
}

//! Loops over values in memory, for readers of files.

use burn::tensor::{bf16, f16};

/// The type of floating-point numbers in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFloat {
    /// IEEE 754 half precision.
    F16,
    /// The upper half of an f32.
    Bf16,
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 double precision.
    F64,
}

impl FileFloat {
    /// The number of bytes of a number.
    pub const fn size(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// Appends the numbers in `bytes`, which are little-endian, to `values`. A remainder that is no whole
    /// number is left out.
    pub fn append_le(self, bytes: &[u8], values: &mut Vec<f32>) {
        match self {
            Self::F16 => each(bytes, values, |b| f16::from_le_bytes(b).to_f32()),
            Self::Bf16 => each(bytes, values, |b| bf16::from_le_bytes(b).to_f32()),
            Self::F32 => each(bytes, values, f32::from_le_bytes),
            Self::F64 => each(bytes, values, |b| f64::from_le_bytes(b) as f32),
        }
    }

    /// The same of numbers in the machine's own order of bytes.
    pub fn append_ne(self, bytes: &[u8], values: &mut Vec<f32>) {
        match self {
            Self::F16 => each(bytes, values, |b| f16::from_ne_bytes(b).to_f32()),
            Self::Bf16 => each(bytes, values, |b| bf16::from_ne_bytes(b).to_f32()),
            Self::F32 => each(bytes, values, f32::from_ne_bytes),
            Self::F64 => each(bytes, values, |b| f64::from_ne_bytes(b) as f32),
        }
    }
}

fn each<const N: usize>(bytes: &[u8], values: &mut Vec<f32>, number: impl Fn([u8; N]) -> f32) {
    let (numbers, _) = bytes.as_chunks::<N>();
    values.extend(numbers.iter().map(|bytes| number(*bytes)));
}

/// Adds `values` to `sum`, number by number, in f32.
///
/// ```
/// let mut sum = [1.0, 2.0];
/// rezero_kernels::add_to(&mut sum, &[0.5, -2.0]);
/// assert_eq!(sum, [1.5, 0.0]);
/// ```
///
/// # Panics
///
/// If they are not equally many.
pub fn add_to(sum: &mut [f32], values: &[f32]) {
    assert_eq!(sum.len(), values.len(), "a sum of as many numbers");
    for (sum, value) in sum.iter_mut().zip(values) {
        *sum += value;
    }
}

/// The bits of each value as a bf16, rounded to the nearest, to even ones in the middle.
///
/// ```
/// let bits = rezero_kernels::to_bf16(&[1.0, 1.0 + 1.0 / 512.0]);
/// assert_eq!(rezero_kernels::from_bf16(&bits), [1.0, 1.0]);
/// ```
pub fn to_bf16(values: &[f32]) -> Vec<u16> {
    let narrow = |value: &f32| {
        let bits = value.to_bits();
        // A NaN stays one, whichever of its bits are cut.
        let rounded = match value.is_nan() {
            true => bits | 0x0040_0000,
            false => bits.wrapping_add(0x7FFF + (bits >> 16 & 1)),
        };
        (rounded >> 16) as u16
    };
    values.iter().map(narrow).collect()
}

/// The values of the bits of bf16s.
pub fn from_bf16(bits: &[u16]) -> Vec<f32> {
    bits.iter().map(|bits| widened(*bits)).collect()
}

/// [`add_to`] with values that are bits of bf16s.
///
/// # Panics
///
/// If they are not equally many.
pub fn add_bf16_to(sum: &mut [f32], bits: &[u16]) {
    assert_eq!(sum.len(), bits.len(), "a sum of as many numbers");
    for (sum, bits) in sum.iter_mut().zip(bits) {
        *sum += widened(*bits);
    }
}

fn widened(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Whether no value is infinite or NaN.
pub fn all_finite(values: &[f32]) -> bool {
    // Block by block, so that the comparisons of a block run at once.
    let finite = |block: &[f32]| block.iter().fold(true, |all, v| all & v.is_finite());
    values.chunks(1024).all(finite)
}

/// A row-major matrix of `rows` × `columns`, transposed.
///
/// # Panics
///
/// If there are not `rows · columns` values.
pub fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    // In blocks, since a whole column of a large matrix lies in as many cache lines as it has rows.
    const BLOCK: usize = 16;
    assert!(
        Some(values.len()) == rows.checked_mul(columns),
        "a matrix of {rows} × {columns} must have as many values, got {}.",
        values.len()
    );
    let mut out = vec![0.0; values.len()];
    for top in (0..rows).step_by(BLOCK) {
        let bottom = rows.min(top + BLOCK);
        for left in (0..columns).step_by(BLOCK) {
            for column in left..columns.min(left + BLOCK) {
                let to = &mut out[column * rows..][top..bottom];
                let from = values[top * columns + column..].iter().step_by(columns);
                for (to, from) in to.iter_mut().zip(from) {
                    *to = *from;
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the crate that Burn takes its bf16 from.
    #[test]
    fn bf16s_are_rounded_as_elsewhere() {
        let mut values: Vec<f32> = (0..=u16::MAX)
            .map(|i| f32::from_bits(u32::from(i) << 16 | 0x8000))
            .collect();
        values.extend((0..200_000u32).map(|i| f32::from_bits(i.wrapping_mul(0x9E37_79B9))));
        values.extend([
            0.0,
            -0.0,
            f32::MAX,
            f32::MIN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NAN,
        ]);
        let bits = to_bf16(&values);
        let back = from_bf16(&bits);
        let mut sum = vec![1.0; values.len()];
        add_bf16_to(&mut sum, &bits);
        for (i, value) in values.iter().enumerate() {
            let expected = bf16::from_f32(*value);
            assert_eq!(bits[i], expected.to_bits(), "{value}");
            assert!(back[i] == expected.to_f32() || back[i].is_nan() && value.is_nan());
            assert!(sum[i] == 1.0 + back[i] || sum[i].is_nan() && back[i].is_nan());
        }
    }

    #[test]
    fn a_matrix_is_transposed() {
        for (rows, columns) in [(0, 0), (0, 3), (1, 1), (1, 40), (40, 1), (17, 33), (64, 16)] {
            let at = |i: usize| i as f32;
            let values: Vec<f32> = (0..rows * columns).map(at).collect();
            let turned = transpose(&values, rows, columns);
            for row in 0..rows {
                for column in 0..columns {
                    assert_eq!(turned[column * rows + row], at(row * columns + column));
                }
            }
        }
    }

    #[test]
    fn values_that_are_not_finite_are_found_anywhere() {
        let mut values = vec![1.0; 3000];
        assert!(all_finite(&values) && all_finite(&[]));
        for (at, value) in [
            (0, f32::NAN),
            (1023, f32::INFINITY),
            (2999, f32::NEG_INFINITY),
        ] {
            let old = std::mem::replace(&mut values[at], value);
            assert!(!all_finite(&values), "{at}");
            values[at] = old;
        }
    }

    #[test]
    fn numbers_of_every_type_are_read() {
        let wanted = [1.5f32, -0.25, 0.0];
        for (kind, bytes) in [
            (
                FileFloat::F16,
                wanted.map(|v| f16::from_f32(v).to_le_bytes().to_vec()),
            ),
            (
                FileFloat::Bf16,
                wanted.map(|v| bf16::from_f32(v).to_le_bytes().to_vec()),
            ),
            (FileFloat::F32, wanted.map(|v| v.to_le_bytes().to_vec())),
            (
                FileFloat::F64,
                wanted.map(|v| f64::from(v).to_le_bytes().to_vec()),
            ),
        ] {
            let mut values = vec![7.0];
            kind.append_le(&[bytes.concat(), vec![1]].concat(), &mut values);
            assert_eq!(values, [7.0, 1.5, -0.25, 0.0], "{kind:?}");
        }
    }
}

//! Text from a language model, byte by byte.

use std::fmt;

use burn::config::Config;
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::lm::{LmCache, RztxLm};

/// How the next token is sampled from the model's distribution. Create the [`Sampler`] with
/// [`init`](SamplingConfig::init).
#[derive(Config, Debug)]
pub struct SamplingConfig {
    /// Divides the logits; 0 takes the most likely token. Default: 1
    #[config(default = 1.0)]
    pub temperature: f64,
    /// Samples among the `top_k` most likely tokens only. Default: None, all tokens
    pub top_k: Option<usize>,
    /// Samples among the most likely tokens only: the smallest set whose probabilities sum to at
    /// least `top_p`. Holtzman et al., [arXiv 1904.09751](https://arxiv.org/abs/1904.09751).
    /// Default: 1, all tokens
    #[config(default = 1.0)]
    pub top_p: f64,
    /// The same seed gives the same tokens for the same logits. Default: 0
    #[config(default = 0)]
    pub seed: u64,
}

/// Why nothing can be sampled.
#[derive(Clone, Debug, PartialEq)]
pub enum SamplingError {
    /// The temperature is negative or not finite.
    Temperature(f64),
    /// `top_k` is 0.
    TopK,
    /// `top_p` is not in (0, 1].
    TopP(f64),
    /// The prompt is empty.
    EmptyPrompt,
    /// The prompt is longer than the model's context: its length and the context.
    PromptTooLong(usize, usize),
}

impl fmt::Display for SamplingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Temperature(t) => write!(f, "temperature must be finite and at least 0, got {t}"),
            Self::TopK => write!(
                f,
                "top_k must be at least 1, got 0; leave it out for all tokens"
            ),
            Self::TopP(p) => write!(f, "top_p must be above 0 and at most 1, got {p}"),
            Self::EmptyPrompt => write!(f, "the prompt must have at least one byte, got none"),
            Self::PromptTooLong(length, context) => write!(
                f,
                "the prompt must be at most the model's context of {context} bytes, got {length}; \
                 give the end of it"
            ),
        }
    }
}

impl std::error::Error for SamplingError {}

/// Samples tokens. Should be created using [SamplingConfig].
#[derive(Clone, Debug)]
pub struct Sampler {
    config: SamplingConfig,
    state: u64,
}

impl SamplingConfig {
    /// Creates the sampler.
    ///
    /// # Errors
    ///
    /// If a value is out of its range.
    pub fn init(&self) -> Result<Sampler, SamplingError> {
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return Err(SamplingError::Temperature(self.temperature));
        }
        if self.top_k == Some(0) {
            return Err(SamplingError::TopK);
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(SamplingError::TopP(self.top_p));
        }
        Ok(Sampler {
            config: self.clone(),
            state: self.seed,
        })
    }
}

impl Sampler {
    /// Samples a token; `logits` has one value per token.
    ///
    /// # Panics
    ///
    /// If there are no logits.
    pub fn sample(&mut self, logits: &[f32]) -> usize {
        let mut order: Vec<usize> = (0..logits.len()).collect();
        // Equal logits keep the order of tokens, so that the sample is the same everywhere.
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
        let Some(&best) = order.first() else {
            panic!("a token is drawn from at least one logit.");
        };
        let SamplingConfig {
            temperature, top_p, ..
        } = self.config;
        if temperature == 0.0 {
            return best;
        }
        order.truncate(self.config.top_k.unwrap_or(order.len()));
        let highest = f64::from(logits[best]);
        let weight = |i: &usize| ((f64::from(logits[*i]) - highest) / temperature).exp();
        let mut weights: Vec<f64> = order.iter().map(weight).collect();
        let total: f64 = weights.iter().sum();
        let (mut kept, mut n) = (0.0, 0);
        while n < weights.len() && (n == 0 || kept < top_p * total) {
            kept += weights[n];
            n += 1;
        }
        weights.truncate(n);
        let mut left = self.uniform() * kept;
        for (i, w) in weights.iter().enumerate() {
            left -= w;
            if left < 0.0 {
                return order[i];
            }
        }
        order[n - 1]
    }

    /// Uniform in [0, 1), by SplitMix64 (Steele, Lea and Flood, 2014).
    fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

impl RztxLm {
    /// Continues `prompt`, byte by byte. The iterator ends only at the byte `stop`, which it does
    /// not return.
    ///
    /// When the text becomes longer than the model's context, the model forgets all but the last
    /// `context / 2` bytes and goes on from them.
    ///
    /// ```
    /// # use burn::tensor::Device;
    /// # use rezero_nn::transformer::{RztxEncoderConfig, RztxLmConfig, SamplingConfig};
    /// let device = Device::flex();
    /// let encoder = RztxEncoderConfig::new(16, 32, 2, 2);
    /// let lm = RztxLmConfig::new(encoder, 64).init(&device);
    /// let sampler = SamplingConfig::new().with_seed(7).init()?;
    /// let text: Vec<u8> = lm.generate(b"[[", sampler, None, &device)?.take(100).collect();
    /// assert_eq!(text.len(), 100);
    /// # Ok::<(), rezero_nn::transformer::SamplingError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the prompt is empty or longer than the context.
    pub fn generate(
        &self,
        prompt: &[u8],
        sampler: Sampler,
        stop: Option<u8>,
        device: &Device,
    ) -> Result<Generation<'_>, SamplingError> {
        if prompt.is_empty() {
            return Err(SamplingError::EmptyPrompt);
        }
        if prompt.len() > self.context {
            return Err(SamplingError::PromptTooLong(prompt.len(), self.context));
        }
        Ok(Generation {
            model: self,
            device: device.clone(),
            sampler,
            stop,
            text: prompt.to_vec(),
            fed: 0,
            stopped: false,
            cache: LmCache::default(),
        })
    }
}

/// The bytes that follow a prompt, see [`RztxLm::generate`].
#[derive(Clone, Debug)]
pub struct Generation<'a> {
    model: &'a RztxLm,
    device: Device,
    sampler: Sampler,
    stop: Option<u8>,
    /// The bytes in the cache and, after the first `fed`, the bytes to feed next.
    text: Vec<u8>,
    fed: usize,
    /// Whether the stop byte was sampled: nothing follows it.
    stopped: bool,
    cache: LmCache,
}

impl Iterator for Generation<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        if self.stopped {
            return None;
        }
        if self.text.len() > self.model.context {
            let half = (self.model.context / 2).max(1);
            self.text.drain(..self.text.len() - half);
            self.fed = 0;
            self.cache = LmCache::default();
        }
        let new: Vec<i32> = self.text[self.fed..]
            .iter()
            .map(|b| i32::from(*b))
            .collect();
        let length = new.len();
        let tokens = Tensor::<1, Int>::from_data(TensorData::new(new, [length]), &self.device);
        let logits = self
            .model
            .forward_cached(tokens.unsqueeze(), &mut self.cache)
            .slice_dim(1, length - 1..length);
        self.fed = self.text.len();
        let logits: Vec<f32> = logits.into_data().iter::<f32>().collect();
        // In a larger vocabulary, only the first 256 tokens are bytes.
        let byte = self.sampler.sample(&logits[..logits.len().min(256)]) as u8;
        if self.stop == Some(byte) {
            self.stopped = true;
            return None;
        }
        self.text.push(byte);
        Some(byte)
    }
}

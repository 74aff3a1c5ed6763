//! Masks: padding, forbidden pairs, causality, alone and together.

use burn::module::Param;
use burn::nn::attention::{MultiHeadAttention, generate_autoregressive_mask};
use burn::nn::transformer::{
    PositionWiseFeedForward, TransformerDecoderConfig, TransformerDecoderInput,
    TransformerEncoderConfig, TransformerEncoderInput,
};
use burn::nn::{LayerNorm, Linear};
use burn::tensor::{Bool, Device, Tensor};
use rezero_nn::transformer::{
    Activation, Attention, AttentionConfig, AttentionMask, FeedForward, RztxDecoderConfig,
    RztxDecoderInput, RztxEncoderConfig, RztxEncoderInput, RztxEncoderLayerConfig,
};
use rezero_nn::{Residual, ResidualScheme};

use crate::helpers::{near, opened, random, scheme, values};

fn layer() -> RztxEncoderLayerConfig {
    RztxEncoderLayerConfig::new(16, 24, 4)
        .with_dropout(0.0)
        .with_residual(opened(ResidualScheme::ReZero, 0.7))
}

fn attention(device: &Device) -> Attention {
    AttentionConfig::new(16, 4).with_dropout(0.0).init(device)
}

#[test]
fn padded_positions_change_nothing() {
    let device = Device::flex();
    let encoder = RztxEncoderConfig::new(16, 24, 4, 3)
        .with_dropout(0.0)
        .with_residual(opened(ResidualScheme::ReZero, 0.7))
        .init(&device);
    let x = random([2, 7, 16], &device);
    let mut padding = [[false; 7]; 2];
    padding[0][4..].fill(true);
    padding[1][0] = true;
    let padding = Tensor::<2, Bool>::from_data(padding, &device);
    let masked = |x| RztxEncoderInput::new(x).mask_pad(padding.clone());
    let keep = padding.clone().bool_not().float().reshape([2, 7, 1]);
    let y = encoder.forward(masked(x.clone())) * keep.clone();
    let other =
        x.clone() * keep.clone() + random([2, 7, 16], &device) * 100.0 * (-keep.clone() + 1.0);
    let z = encoder.forward(masked(other)) * keep;
    assert_eq!(values(y.clone()), values(z));
    // And they are as good as absent.
    let short = encoder.forward(x.slice([0..1, 0..4, 0..16]));
    near(y.slice([0..1, 0..4, 0..16]), short, 1e-5);
}

#[test]
fn a_query_that_may_see_nothing_gets_zeros_not_nan() {
    let device = Device::flex().autodiff();
    let attention = attention(&device);
    let x = random([1, 3, 16], &device).require_grad();
    let all = Tensor::<2, Bool>::from_data([[true, true, true]], &device);
    let y = attention.forward(x.clone(), &AttentionMask::none().with_padding(all));
    // Biases of attention are 0 at the start.
    assert!(values(y.clone()).iter().all(|v| *v == 0.0));
    let gradient = x.grad(&y.sum().backward()).unwrap();
    assert!(values(gradient).iter().all(|v| v.is_finite()));
}

#[test]
fn masks_are_united() {
    let device = Device::flex();
    let attention = attention(&device);
    let x = random([2, 4, 16], &device);
    let causal = Tensor::<2, Bool>::tril_mask([4, 4], 0, &device);
    let by_flag = attention.forward(x.clone(), &AttentionMask::causal());
    let by_mask = attention.forward(
        x.clone(),
        &AttentionMask::none().with_attention(causal.clone()),
    );
    near(by_flag.clone(), by_mask, 1e-6);
    let batch = causal.unsqueeze::<3>().expand([2, 4, 4]);
    let both = AttentionMask::causal().with_batch_attention(batch);
    near(by_flag, attention.forward(x, &both), 1e-6);
}

#[test]
#[should_panic(
    expected = "an attention mask must be [1 or batch, queries, keys] = [1 or 2, 4, 4], got [1, 4, 5]"
)]
fn a_mask_must_fit() {
    let device = Device::flex();
    let mask = Tensor::<2, Bool>::tril_mask([4, 5], 0, &device);
    layer().init(&device).forward(
        random([2, 4, 16], &device),
        &AttentionMask::none().with_attention(mask),
    );
}

#[test]
#[should_panic(expected = "a padding mask must be [batch, keys] = [2, 4], got [4, 2]")]
fn a_padding_mask_must_fit() {
    let device = Device::flex();
    let mask = Tensor::<2, Bool>::from_data([[false; 2]; 4], &device);
    layer().init(&device).forward(
        random([2, 4, 16], &device),
        &AttentionMask::none().with_padding(mask),
    );
}

/// Our modules with the weights of Burn's.
fn take_attention(ours: &mut Attention, theirs: &MultiHeadAttention) {
    let parts = [&theirs.query, &theirs.key, &theirs.value];
    let weight = Tensor::cat(parts.map(|part| part.weight.val()).to_vec(), 1);
    let bias = |part: &Linear| part.bias.as_ref().unwrap().val();
    ours.in_proj.weight = Param::from_tensor(weight);
    ours.in_proj.bias = Some(Param::from_tensor(Tensor::cat(parts.map(bias).to_vec(), 0)));
    ours.out_proj = theirs.output.clone();
}

fn take_feed_forward(ours: &mut FeedForward, theirs: &PositionWiseFeedForward) {
    ours.linear1 = theirs.linear_inner.clone();
    ours.linear2 = theirs.linear_outer.clone();
}

fn take_norms<const N: usize>(ours: &mut [Residual], theirs: [&LayerNorm; N]) {
    assert_eq!(ours.len(), N);
    for (ours, theirs) in ours.iter_mut().zip(theirs) {
        ours.norm.as_mut().unwrap().layer_norm = Some(theirs.clone());
    }
}

/// True where `keys` are padding: the last ones, but more of them in the second item.
fn padding(keys: usize, device: &Device) -> Tensor<2, Bool> {
    let ends = [keys - 1, keys - 3];
    let rows = ends
        .iter()
        .flat_map(|end| (0..keys).map(move |key| key >= *end));
    let rows: Vec<i32> = rows.map(i32::from).collect();
    Tensor::<1, burn::tensor::Int>::from_ints(rows.as_slice(), device)
        .equal_elem(1)
        .reshape([2, keys])
}

/// Other pairs are forbidden in the second item than in the first; the first key never.
fn pairs(queries: usize, keys: usize, device: &Device) -> Tensor<3, Bool> {
    let cells = (0..2 * queries * keys).map(|i| i32::from(i % keys > 0 && i * 7 % 5 < 2));
    let cells: Vec<i32> = cells.collect();
    Tensor::<1, burn::tensor::Int>::from_ints(cells.as_slice(), device)
        .equal_elem(1)
        .reshape([2, queries, keys])
}

#[test]
fn an_encoder_takes_burns_masks_with_burns_meaning() {
    let device = Device::flex();
    let theirs = TransformerEncoderConfig::new(16, 24, 4, 2)
        .with_dropout(0.0)
        .init(&device);
    let mut ours = RztxEncoderConfig::new(16, 24, 4, 2)
        .with_dropout(0.0)
        .with_activation(Activation::Gelu)
        .with_residual(scheme(ResidualScheme::PostNorm))
        .init(&device);
    for (ours, theirs) in ours.layers.iter_mut().zip(&theirs.layers) {
        take_attention(&mut ours.attention, &theirs.mha);
        take_feed_forward(&mut ours.feed_forward, &theirs.pwff);
        take_norms(
            &mut ours.residual.sub_layers,
            [&theirs.norm_1, &theirs.norm_2],
        );
    }
    let x = random([2, 6, 16], &device);
    let (pad, attn) = (padding(6, &device), pairs(6, 6, &device));
    let mut outputs = Vec::new();
    for (padded, paired) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut input = RztxEncoderInput::new(x.clone());
        let mut expected = TransformerEncoderInput::new(x.clone());
        if padded {
            (input, expected) = (input.mask_pad(pad.clone()), expected.mask_pad(pad.clone()));
        }
        if paired {
            (input, expected) = (
                input.mask_attn(attn.clone()),
                expected.mask_attn(attn.clone()),
            );
        }
        let y = ours.forward(input);
        near(y.clone(), theirs.forward(expected), 1e-5);
        assert!(!outputs.contains(&values(y.clone())));
        outputs.push(values(y));
    }
    let causal = TransformerEncoderInput::new(x.clone())
        .mask_attn(generate_autoregressive_mask(2, 6, &device));
    near(
        ours.forward(RztxEncoderInput::new(x.clone()).causal()),
        theirs.forward(causal),
        1e-5,
    );
    // A tensor is an input without a mask.
    assert_eq!(values(ours.forward(x)), outputs[0]);
}

#[test]
fn a_decoder_takes_burns_masks_with_burns_meaning() {
    let device = Device::flex();
    let theirs = TransformerDecoderConfig::new(16, 24, 4, 2)
        .with_dropout(0.0)
        .init(&device);
    let mut ours = RztxDecoderConfig::new(16, 24, 4, 2)
        .with_dropout(0.0)
        .with_activation(Activation::Gelu)
        .with_residual(scheme(ResidualScheme::PostNorm))
        .init(&device);
    for (ours, theirs) in ours.layers.iter_mut().zip(&theirs.layers) {
        take_attention(&mut ours.attention, &theirs.self_attn);
        take_attention(&mut ours.cross_attention, &theirs.cross_attn);
        take_feed_forward(&mut ours.feed_forward, &theirs.pwff);
        take_norms(
            &mut ours.residual.sub_layers,
            [&theirs.norm_1, &theirs.norm_2, &theirs.norm_3],
        );
    }
    let (x, memory) = (random([2, 5, 16], &device), random([2, 7, 16], &device));
    for mask in 0..5 {
        let input = RztxDecoderInput::new(x.clone(), memory.clone());
        let expected = TransformerDecoderInput::new(x.clone(), memory.clone());
        let (input, expected) = match mask {
            0 => (input, expected),
            1 => {
                let mask = padding(5, &device);
                (
                    input.target_mask_pad(mask.clone()),
                    expected.target_mask_pad(mask),
                )
            }
            2 => {
                let mask = generate_autoregressive_mask(2, 5, &device);
                (input.causal(), expected.target_mask_attn(mask))
            }
            3 => {
                let mask = padding(7, &device);
                (
                    input.memory_mask_pad(mask.clone()),
                    expected.memory_mask_pad(mask),
                )
            }
            _ => {
                let mask = pairs(5, 7, &device);
                (
                    input.memory_mask_attn(mask.clone()),
                    expected.memory_mask_attn(mask),
                )
            }
        };
        near(ours.forward(input), theirs.forward(expected), 1e-5);
    }
}

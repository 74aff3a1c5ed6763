//! The sets as Burn's own loaders and transforms see them.

use std::sync::Arc;

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::Dataset;
use burn::data::dataset::transform::{PartialDataset, SelectionDataset, ShuffledDataset};
use burn::tensor::Device;
use rezero_data::{
    ImageItem, ImageShape, START_BYTE, ScoringConfig, Split, TextItem, TextLoader, shapes,
};

use crate::support::{batches, numbered, text};

/// Hands the items on.
struct AsTheyAre;

impl<T> Batcher<T, Vec<T>> for AsTheyAre {
    fn batch(&self, items: Vec<T>, _: &Device) -> Vec<T> {
        items
    }
}

#[test]
fn items_are_the_records() {
    for shape in [ImageShape::new(1, 28, 28), ImageShape::new(3, 40, 24)] {
        let set = numbered(12, shape).take(10);
        let items: Vec<ImageItem> = set.iter().map(Result::unwrap).collect();
        assert_eq!(items.len(), 10);
        for (i, item) in items.iter().enumerate() {
            assert_eq!(item.pixels, *set.pixels(i).unwrap());
            assert_eq!((item.shape, item.label), (shape, set.label(i)));
        }
        let two: Vec<ImageItem> = set.get_many(vec![7, 2]).unwrap();
        assert_eq!(two, [items[7].clone(), items[2].clone()]);
        assert!(Dataset::<ImageItem>::is_empty(&set.take(0)));
    }
}

#[test]
#[should_panic(expected = "record 3 of an image set of 3")]
fn an_image_beyond_the_end_panics_as_burn_demands() {
    let _ = Dataset::<ImageItem>::get(&shapes::generate(Split::Train, 3, 0), 3);
}

#[test]
fn burns_loader_and_transforms_take_the_sets() {
    let set = shapes::generate(Split::Train, 40, 3);
    let expected: Vec<ImageItem> = set.iter().map(Result::unwrap).collect();
    for workers in [0, 2] {
        let loader: Arc<dyn DataLoader<Vec<ImageItem>>> = DataLoaderBuilder::new(AsTheyAre)
            .batch_size(16)
            .num_workers(workers)
            .set_device(Device::flex())
            .build(set.clone());
        assert_eq!(loader.num_items(), 40);
        let mut items: Vec<ImageItem> = loader.iter().flat_map(Result::unwrap).collect();
        // Two workers hand over their batches in any order.
        let key = |item: &ImageItem| expected.iter().position(|e| e == item);
        items.sort_by_key(key);
        assert!(items == expected, "{workers} workers");
    }
    let part = PartialDataset::new(set.clone(), 10, 15);
    assert_eq!(Dataset::<ImageItem>::len(&part), 5);
    assert_eq!(part.get(0).unwrap(), expected[10]);
    let chosen = SelectionDataset::from_indices_checked(set.clone(), vec![39, 0]);
    assert_eq!(chosen.get(0).unwrap(), expected[39]);
    let shuffled: Vec<ImageItem> = ShuffledDataset::new(set, 5u64)
        .iter()
        .map(Result::unwrap)
        .collect();
    assert!(shuffled != expected && shuffled.iter().all(|item| expected.contains(item)));
}

#[test]
fn windows_are_those_that_a_scoring_loader_scores() {
    for (n, context) in [(1, 1), (1, 5), (9, 5), (10, 5), (11, 5), (200, 7), (7, 200)] {
        let text = text(n);
        let windows = text.windows(context);
        let items: Vec<TextItem> = windows.iter().map(Result::unwrap).collect();
        assert_eq!(items.len(), n.div_ceil(context));
        assert_eq!(Dataset::<TextItem>::len(&windows), items.len());
        let targets: Vec<u8> = items.iter().flat_map(|item| item.targets.clone()).collect();
        assert_eq!(targets, text.bytes());
        let inputs: Vec<u8> = items.iter().flat_map(|item| item.inputs.clone()).collect();
        assert_eq!(inputs, [&[START_BYTE], &text.bytes()[..n - 1]].concat());
        let whole = &items[..items.len() - 1];
        assert!(whole.iter().all(|item| item.inputs.len() == context));

        let config = ScoringConfig {
            batch_size: 3,
            context,
            stride: context,
            prefetch: 0,
        };
        let loader = TextLoader::scoring(text, config, &Device::flex()).unwrap();
        let scored: Vec<TextItem> = batches(&loader)
            .into_iter()
            .flat_map(|batch| batch.inputs.into_iter().zip(batch.targets))
            .map(|(inputs, targets)| TextItem { inputs, targets })
            .collect();
        assert_eq!(items, scored);
    }
    let none = text(5).take(0).windows(3);
    assert!(Dataset::<TextItem>::is_empty(&none));
    let endless = text(5).windows(usize::MAX);
    assert_eq!(Dataset::<TextItem>::len(&endless), 1);
    assert_eq!(endless.get(0).unwrap().targets.len(), 5);
}

#[test]
fn burns_loader_takes_windows() {
    let windows = text(64 * 7 + 3).windows(64);
    let loader: Arc<dyn DataLoader<Vec<TextItem>>> = DataLoaderBuilder::new(AsTheyAre)
        .batch_size(3)
        .set_device(Device::flex())
        .build(windows.clone());
    let items: Vec<TextItem> = loader.iter().flat_map(Result::unwrap).collect();
    assert_eq!(items.len(), 8);
    assert_eq!(items[7], windows.get(7).unwrap());
}

#[test]
#[should_panic(expected = "window 2 of 2")]
fn a_window_beyond_the_end_panics_as_burn_demands() {
    let _ = text(10).windows(5).get(2);
}

#[test]
#[should_panic(expected = "a window of a text has at least 1 byte")]
fn windows_have_bytes() {
    text(10).windows(0);
}

//! Images that lie on the device as bytes, where a kernel makes the batches.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::Device;
use rezero_data::{ImageCutter, ImageLoader, ImageSet, ImageShape, ImageWindow};
use rezero_kernels::{ByteImages, Cut};

use crate::error::{Error, Result};
use crate::recipe::{OnDevice, Run};
use crate::say::say;
use crate::words;

/// The loader with the images of its set on the device, where a kernel makes its batches: crops, flips and normalises them. The
/// host draws only the windows. `run.on_device` and `run.device_memory` say whether. The batches are the loader's own, to the bit.
///
/// The bytes are copied to a device when its first batch is asked for, and stay there as long as the loader or a copy of it.
///
/// # Errors
///
/// Under `run.on_device = "always"`, why it cannot be on `device`.
pub fn on_device(loader: ImageLoader, run: &Run, device: &Device) -> Result<ImageLoader> {
    if run.on_device == OnDevice::Never {
        return Ok(loader);
    }
    let Some(obstacle) = obstacle(&loader, run, device) else {
        return held(loader);
    };
    if run.on_device == OnDevice::Always {
        return Err(Error::RecipeValue {
            key: "run.on_device".to_owned(),
            message: format!("is always, but the images cannot be on the device: {obstacle}"),
        });
    }
    // Where there is no kernel, nobody expects it.
    if ByteImages::most_bytes(device).is_some() {
        say!("images are prepared on the host: {obstacle} (run.on_device)");
    }
    Ok(loader)
}

/// [`on_device`] for scoring: `always` is for the images to train on, and here as `auto`.
pub(super) fn scored(loader: ImageLoader, run: &Run, device: &Device) -> Result<ImageLoader> {
    match run.on_device != OnDevice::Never && obstacle(&loader, run, device).is_none() {
        true => held(loader),
        false => Ok(loader),
    }
}

/// Why the images cannot be on the device.
fn obstacle(loader: &ImageLoader, run: &Run, device: &Device) -> Option<String> {
    const MB: u64 = 1_000_000;

    let Some(most) = ByteImages::most_bytes(device) else {
        return Some(
            "it has no kernel for them, only the GPU backends have (cuda, rocm, metal, vulkan, webgpu, wgpu)".to_owned(),
        );
    };
    let augment = &loader.config().augment;
    if !augment.only_moves() {
        return Some(format!(
            "the kernel crops and flips, and data.augment={augment} does more"
        ));
    }
    let Some(pixels) = loader.set().all_pixels() else {
        return Some(
            "they are not all in memory on the host (run.image_memory), but read from files"
                .to_owned(),
        );
    };
    let bytes = pixels.len() as u64;
    let given = (run.device_memory as u64).saturating_mul(MB);
    if bytes > given {
        return Some(format!(
            "they take {}, and run.device_memory={} allows {}",
            words::bytes(bytes),
            run.device_memory,
            words::bytes(given)
        ));
    }
    (bytes > most).then(|| {
        format!(
            "they take {}, and a buffer of the device has at most {}",
            words::bytes(bytes),
            words::bytes(most)
        )
    })
}

/// The loader with its images on whatever device it loads for, if that can hold them.
fn held(loader: ImageLoader) -> Result<ImageLoader> {
    let set = loader.set().clone();
    let table = loader.config().normalization.table();
    let copies: Mutex<Vec<(Device, Arc<ByteImages>)>> = Mutex::default();
    let cuts = move |device: &Device| {
        let mut copies = copies.lock().unwrap_or_else(PoisonError::into_inner);
        let known = copies.iter().find(|(other, _)| other == device);
        let images = match known {
            Some((_, images)) => images.clone(),
            None => {
                let images = Arc::new(copied(&set, &table, device)?);
                copies.push((device.clone(), images.clone()));
                images
            }
        };
        let device = device.clone();
        let cut = move |windows: &[ImageWindow]| {
            let windows: Vec<Cut> = windows.iter().map(of_kernel).collect();
            let batch = images.cut(&windows);
            match device.gradient_checkpointing_strategy() {
                Some(strategy) => batch
                    .autodiff()
                    .with_gradient_checkpointing_strategy(strategy),
                None => batch,
            }
        };
        Some(Arc::new(cut) as ImageCutter)
    };
    Ok(loader.cut_by(cuts)?)
}

fn copied(set: &ImageSet, table: &[[f32; 256]], device: &Device) -> Option<ByteImages> {
    let ImageShape {
        channels,
        height,
        width,
    } = set.shape();
    ByteImages::new(set.all_pixels()?, [channels, height, width], table, device)
}

fn of_kernel(window: &ImageWindow) -> Cut {
    let ImageWindow {
        record,
        down,
        right,
        flip,
    } = *window;
    Cut {
        image: record,
        down,
        right,
        flip,
    }
}

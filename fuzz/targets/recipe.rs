//! Recipes: text becomes a recipe whose own text gives the same recipe, or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rezero_train::recipe::Recipe;

#[global_allocator]
static ALLOCATOR: rezero_fuzz::Counting = rezero_fuzz::Counting;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    rezero_fuzz::within(64, bytes, || {
        let Ok(resolved) = Recipe::parse("fuzz", text) else {
            return;
        };
        let again =
            Recipe::parse("fuzz", &resolved.recipe.to_toml()).expect("it reads its own text");
        assert_eq!(again.recipe.fingerprint(), resolved.recipe.fingerprint());
        let _ = (resolved.recipe.identity(), resolved.run_name());
    });
});

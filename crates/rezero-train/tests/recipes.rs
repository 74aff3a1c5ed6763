//! The recipe parser: shipped recipes, sections, overrides, bad input.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use rezero_nn::ResidualScheme;
use rezero_train::recipe::{
    EMBEDDED, Optimizer, Override, Recipe, Schedule, Settings, Sgd, TaskRecipe, TextSource, schema,
};
use rezero_train::task::{Domain, Images};
use rezero_train::zoo::Families;

use crate::support::{families, kinds, of_images, of_text, recipe, resolve, with_family};

fn sgd(recipe: &Recipe) -> &Sgd {
    match &recipe.settings.optimizer {
        Optimizer::Sgd(sgd) => sgd,
        other => panic!("not SGD: {other:?}"),
    }
}

fn refused(file: &str, parts: &[&str]) {
    let error = Recipe::parse("file", &with_family(file)).map(|r| r.recipe);
    let error = error.expect_err(file).to_string();
    for part in parts {
        assert!(error.contains(part), "{file:?}: no `{part}` in: {error}");
    }
}

fn refused_change(name: &str, changes: &[&str], parts: &[&str]) {
    let error = resolve(name, changes).map(|r| r.recipe);
    let error = error.expect_err(&format!("{changes:?}"));
    for part in parts {
        assert!(error.contains(part), "{changes:?}: no `{part}` in: {error}");
    }
}

#[test]
fn every_shipped_recipe_resolves_and_survives_a_round_trip() {
    for (name, _) in EMBEDDED {
        let whole = recipe(name, &[]);
        let again = Recipe::parse(name, &whole.to_toml()).unwrap().recipe;
        assert_eq!(again, whole, "{name}");
        assert_eq!(again.fingerprint(), whole.fingerprint(), "{name}");
        // And with every scheme that its family has.
        let family = match &whole.task {
            TaskRecipe::Images(of) => of.model.name(),
            TaskRecipe::Text(of) => of.model.name(),
        };
        let family = families().into_iter().find(|f| f.name == family);
        for scheme in family.expect("a family").schemes {
            let changed = recipe(name, &[&format!("scheme={scheme}")]);
            let again = Recipe::parse(name, &changed.to_toml()).unwrap().recipe;
            assert_eq!(again, changed, "{name} {scheme}");
        }
    }
}

#[test]
fn the_two_published_recipes_differ_where_the_authors_code_does() {
    let table = recipe("cifar10-resnet56", &[]);
    let notebook = recipe("cifar10-resnet56-notebook", &[]);
    let (table, notebook) = (sgd(&table), sgd(&notebook));
    assert_eq!((table.weight_decay, notebook.weight_decay), (5e-4, 1e-4));
    assert_eq!((table.bias_lr, notebook.bias_lr), (0.01, 0.0));
    let notebook = recipe("cifar10-resnet20-notebook", &[]);
    assert_eq!(notebook.settings.optimizer.lr(), 0.2);
}

#[test]
fn overrides_are_typed_and_echoed() {
    let resolved = resolve("quickstart", &["lr=1", "scheme=residual"]).unwrap();
    let recipe = &resolved.recipe;
    assert_eq!(recipe.settings.optimizer.lr(), 1.0);
    assert_eq!(of_images(recipe).model.scheme(), ResidualScheme::Residual);
    assert_eq!(
        resolved.changes,
        ["lr: 0.05 -> 1.0", "scheme: \"rezero\" -> \"residual\""]
    );
    assert_eq!(resolved.run_name(), "quickstart_lr=1_scheme=residual");
    let milestones = resolve("cifar10-resnet20", &["milestones=[3, 5]"]).unwrap();
    let Schedule::MultiStep(schedule) = &milestones.recipe.settings.schedule else {
        panic!("{milestones:?}");
    };
    assert_eq!(schedule.milestones, [3, 5]);
    // The last of several overrides wins, and an override that changes nothing is not listed.
    let resolved = resolve("quickstart", &["lr=1", "optimizer.lr=0.05", "seed=1"]).unwrap();
    assert!(resolved.changes.is_empty(), "{:?}", resolved.changes);
}

/// A key by its own name or with its section's name, and a kind by its section alone.
#[test]
fn a_key_has_a_short_and_a_long_name() {
    for (short, long) in [
        ("lr=0.2", "optimizer.lr=0.2"),
        ("optimizer=adam", "optimizer.kind=adam"),
        ("schedule=constant", "schedule.kind=constant"),
        ("data=shapes", "data.set=shapes"),
        ("set=shapes", "data.set=shapes"),
        ("scheme=gated", "model.scheme=gated"),
        ("alpha_bound=2", "gates.alpha_bound=2"),
        ("seed=3", "train.seed=3"),
        ("epochs=3", "run.epochs=3"),
    ] {
        let of = |change: &str| resolve("cifar10-resnet20", &[change, "device=flex"]);
        let (a, b) = (of(short), of(long));
        let (a, b) = (a.unwrap(), b.unwrap());
        assert_eq!(a.recipe, b.recipe, "{short}");
        assert_eq!(a.run_name(), b.run_name(), "{short}");
        assert_eq!(a.changes, b.changes, "{short}");
    }
    let network = recipe("cifar10-mlp64", &["model=cifar-resnet", "depth=8"]);
    assert_eq!(of_images(&network).model.name(), "cifar-resnet");
    let text = recipe("enwik8-tiny", &["data=wiki-like"]);
    assert_eq!(of_text(&text).data.set, TextSource::WikiLike);
}

/// An override that selects another kind removes the file's keys of the old kind. The keys that
/// both kinds have stay.
#[test]
fn an_override_of_a_kind_takes_the_old_kinds_keys_with_it() {
    let base = recipe("cifar10-resnet20", &[]);
    assert_eq!(sgd(&base).bias_milestones, [100]);

    let adam = recipe("cifar10-resnet20", &["optimizer=adam", "lr=1e-3"]);
    let Optimizer::Adam(found) = &adam.settings.optimizer else {
        panic!("{:?}", adam.settings.optimizer);
    };
    assert_eq!((found.lr, found.weight_decay), (1e-3, 5e-4));
    let keys = &adam.to_tables()["optimizer"];
    assert!(!keys.contains_key("momentum") && !keys.contains_key("bias_lr"));

    let constant = recipe("cifar10-resnet20", &["schedule=constant"]);
    assert!(matches!(constant.settings.schedule, Schedule::Constant(_)));
    assert!(!constant.to_tables()["schedule"].contains_key("milestones"));

    // `definition` is a CIFAR ResNet's alone.
    let mlp = recipe("cifar10-resnet20", &["model=mlp", "depth=3"]);
    assert_eq!(of_images(&mlp).model.name(), "mlp");
    assert!(!mlp.to_tables()["model"].contains_key("definition"));

    // A scheme without a gate has no use for the file's gates.
    let gated = recipe("cifar10-preact18", &[]);
    assert_eq!(gated.settings.gates.alpha_lr, 0.1);
    assert!(gated.to_tables().contains_key("gates"));
    let plain = recipe("cifar10-preact18", &["scheme=residual"]);
    assert!(!plain.to_tables().contains_key("gates"));
    // Nor has the weights' own optimizer for the gates' rate.
    let shared = recipe("cifar10-preact18", &["alpha_optimizer=shared"]);
    assert!(!shared.to_tables()["gates"].contains_key("alpha_lr"));
    let fixed = recipe("cifar10-preact18", &["alpha_trainable=false"]);
    assert!(!fixed.to_tables()["gates"].contains_key("alpha_optimizer"));
    // Without a rate of its own, a bias has no milestones.
    let one_rate = recipe("cifar10-resnet20", &["bias_lr=0"]);
    assert!(!one_rate.to_tables()["optimizer"].contains_key("bias_gamma"));

    // The recipe is the same after a change and its reversal.
    let back = ["optimizer=adam", "optimizer=sgd"];
    assert_eq!(recipe("cifar10-resnet20", &back), base);
    for changed in [adam, constant, mlp, plain, shared, fixed, one_rate] {
        let again = Recipe::parse("again", &changed.to_toml()).unwrap().recipe;
        assert_eq!(again, changed);
    }
}

#[test]
fn bad_values_name_the_key_and_the_remedy() {
    for (changes, parts) in [
        (&["epoch=3"][..], &["`epoch`", "did you mean `epochs`?"][..]),
        (&["arm=rezero"], &["`arm`", "--keys"]),
        (&["learning_rate=1"], &["did you mean `lr`?"]),
        (&["batch_size=1"], &["did you mean `batch`?"]),
        (&["Batch-Size=1"], &["did you mean `batch`?"]),
        (&["wd=1"], &["did you mean `weight_decay`?"]),
        (&["dropout_rate=1"], &["did you mean `dropout`?"]),
        (&["layers=1"], &["did you mean `depth`?"]),
        (&["optim=adam"], &["did you mean `optimizer`?"]),
        (
            &["optimizer.learning_rate=1"],
            &["did you mean `optimizer.lr`?"],
        ),
        (&["batch=-1"], &["`train.batch`", "-1"]),
        (&["batch=0"], &["`train.batch`", "between 1", "got 0"]),
        (&["batch=many"], &["`train.batch`", "many"]),
        (&["epochs=0"], &["`run.epochs`", "between 1", "got 0"]),
        (&["epochs=1.5"], &["`run.epochs`", "1.5"]),
        (&["keep=0"], &["`run.keep`", "at least 1"]),
        (&["log_every=0"], &["`run.log_every`", "at least 1"]),
        (&["target=-1"], &["`run.target`", "-1"]),
        (
            &["scheme=residul"],
            &["`model.scheme`", "did you mean `residual`?"],
        ),
        (&["depth=21"], &["`model.depth`", "6n+2", "21"]),
        (&["lr=nan"], &["`optimizer.lr`", "finite"]),
        (&["lr=inf"], &["`optimizer.lr`", "finite"]),
        (&["lr=-0.1"], &["`optimizer.lr`", "-0.1"]),
        (&["lr=[1]"], &["`optimizer.lr`", "sequence"]),
        (&["momentum=1"], &["`optimizer.momentum`", "[0, 1)"]),
        (&["milestones=[5, 3]"], &["`schedule.milestones`", "rise"]),
        (&["milestones=5"], &["`schedule.milestones`", "5"]),
        (&["gamma=-1"], &["`schedule.gamma`", "-1"]),
        (&["seed=-1"], &["`train.seed`"]),
        (&["drop_last=yes"], &["`data.drop_last`", "yes", "boolean"]),
        (
            &["augment=crop:padding=32"],
            &["`data.augment`", "crop padding", "31", "32"],
        ),
        (
            &["augment=crop,cutuot"],
            &["`data.augment`", "`cutuot` is no", "did you mean `cutout`"],
        ),
        (
            &["augment=cutout:sice=3"],
            &["`data.augment`", "the setting size", "`sice=3`"],
        ),
        (
            &["augment=cutout:size=-3"],
            &["`data.augment`", "cutout:size=-3", "-3"],
        ),
        (
            &["augment=cutout:size"],
            &["`data.augment`", "size=16 by default", "`size`"],
        ),
        (
            &["augment=flip:3"],
            &["`data.augment`", "no settings", "`3`"],
        ),
        (&["augment=flip,flip"], &["`data.augment`", "flip twice"]),
        (
            &["augment=crop:padding=1:padding=2"],
            &["`data.augment`", "padding twice"],
        ),
        (
            &["augment=mixup,flip"],
            &["`data.augment`", "mixup", "comes last", "flip after mixup"],
        ),
        (&["augment=mixup:alpha=0"], &["`data.augment`", "above 0"]),
        (&["augment=mixup:alpha=nan"], &["`data.augment`", "above 0"]),
        (
            &["augment=rand-augment:magnitude=31"],
            &["`data.augment`", "at most 30", "31"],
        ),
        (
            &["augment=rand-augment:n=0"],
            &["`data.augment`", "from 1 to 14", "0"],
        ),
        (
            &["augment=jitter:contrast=1.5"],
            &["`data.augment`", "jitter contrast", "from 0 to 1", "1.5"],
        ),
        (
            &["augment=jitter:brightness=0:contrast=0:saturation=0"],
            &["`data.augment`", "above 0", "no effect"],
        ),
        (
            &["augment=rotate:degrees=200"],
            &["`data.augment`", "at most 180", "200"],
        ),
        (&["augment="], &["`data.augment`", "there are crop, flip"]),
        (&["augment=[]"], &["`data.augment`", "string"]),
        (
            &["label_smoothing=1"],
            &["`data.label_smoothing`", "below 1"],
        ),
        (
            &["label_smoothing=nan"],
            &["`data.label_smoothing`", "below 1"],
        ),
        (&["alpha_init=nan"], &["`gates.alpha_init`", "finite"]),
        (&["alpha_bound=-1"], &["`gates.alpha_bound`", "-1"]),
        (
            &["model=preact-resnet"],
            &["`model.depth`", "18, 34 or 50", "20"],
        ),
        (&["accumulate=129"], &["`train.accumulate`", "128", "129"]),
        (
            &["device=flex,flex", "batch=9"],
            &["`train.batch`", "9", "multiple of 2"],
        ),
        (&["device=7"], &["`run.device`", "7"]),
        (&["epochs"], &["key=value"]),
        (&["=3"], &["key=value"]),
        (&["optimizer.=3"], &["`optimizer.`"]),
        (&["optimizer.lr.x=3"], &["`optimizer.lr.x`"]),
        (
            &["optimiser.lr=3"],
            &["`optimiser.lr`", "did you mean `optimizer.lr`?"],
        ),
        (&[".lr=3"], &["`.lr`"]),
    ] {
        refused_change("cifar10-resnet20", changes, parts);
    }
    refused_change(
        "cifar10-resnet2O",
        &[],
        &["did you mean `cifar10-resnet20`?"],
    );
    refused_change("absent.toml", &[], &["absent.toml"]);
}

/// The recipe that a user wants is the first that is suggested.
#[test]
fn a_part_of_a_recipes_name_finds_it() {
    let resnets = "did you mean `cifar10-resnet20`, `cifar10-resnet56` or `cifar10-resnet110`?";
    let texts = "did you mean `enwik8-small`, `enwik8-tiny` or `enwik8-rztx12`?";
    let transformers = "did you mean `cifar10-vit`, `enwik8-small` or `enwik8-tiny`?";
    let resnet20 = "did you mean `cifar10-resnet20` or `cifar10-resnet20-notebook`?";
    for (name, meant) in [
        ("resnet20", resnet20),
        ("resnet-20", resnet20),
        ("ResNet20", resnet20),
        ("resnet21", "did you mean `cifar10-resnet20`?"),
        ("resnet", resnets),
        ("cifar10", resnets),
        ("enwik8", texts),
        ("transformer", transformers),
        ("byte-lm", texts),
        ("tiny", "did you mean `enwik8-tiny`?"),
        ("quick-start", "did you mean `quickstart`?"),
        ("quikstart", "did you mean `quickstart`?"),
        ("mlp", "did you mean `cifar10-mlp64` or `cifar10-mlp10000`?"),
    ] {
        refused_change(name, &[], &[meant, "`rezero recipes` lists them"]);
    }
    refused_change("banana", &[], &["no recipe `banana`; `rezero recipes`"]);
    refused_change("", &[], &["no recipe"]);
}

/// Errors about the place of a file's keys.
#[test]
fn sections_of_a_file() {
    for (file, parts) in [
        (
            "[optimiser]\nlr = 0.1",
            &["unknown section [optimiser]", "did you mean [optimizer]?"][..],
        ),
        (
            "[banana]\nlr = 0.1",
            &["unknown section [banana]", "there are model, data"],
        ),
        (
            "[optimizer]\nlr = 0.1\n[model]\ndepth = 8\n[optimizer]\nmomentum = 0.5",
            &["optimizer", "duplicate", "line 5"],
        ),
        (
            "[optimizer]\nlr = 0.1\nlr = 0.2",
            &["lr", "duplicate", "line 3"],
        ),
        (
            "lr = 0.1\n[model]\ndepth = 8",
            &["`lr`", "outside of a section", "[optimizer]"],
        ),
        (
            "banana = 1",
            &["`banana`", "outside of a section", "model, data"],
        ),
        ("model = 'mlp'", &["`model` is a section", "[model]"]),
        ("[[model]]\nfamily = 'mlp'", &["`model` is a section"]),
        (
            "[optimizer]\nkind = 'sgd'\nmomentun = 0.9",
            &["`optimizer.momentun`", "did you mean `optimizer.momentum`?"],
        ),
        ("[train]\nlr = 0.1", &["`train.lr`"]),
        ("[model]\nfamily = 3", &["`model.family`", "name", "3"]),
        (
            "[model]\nfamily = 'mpl'",
            &["`model.family`", "`mpl`", "did you mean `mlp`?"],
        ),
        (
            "[model]\nfamily = 'mlp'\ndepth = 'deep'",
            &["`model.depth`", "deep"],
        ),
        (
            "[model]\nfamily = 'mlp'\n[model.depth]\nx = 1",
            &["`model.depth`", "map"],
        ),
        (
            "[model]\ndepth = 8",
            &["[model]", "`family`", "cifar-resnet"],
        ),
        ("[optimizer]\nlr = 0.1", &["[optimizer]", "`kind`", "adamw"]),
        (
            "[schedule]\ngamma = 1",
            &["[schedule]", "`kind`", "one-cycle"],
        ),
        ("# no [model]", &["[model]", "`family`", "byte-lm"]),
    ] {
        refused(file, parts);
    }
}

/// A key of another kind of the section is refused with the section and the key, in a file and on
/// the command line.
#[test]
fn a_key_of_another_kind_is_refused() {
    for (kind, section, key, value, owner) in [
        ("family=mlp", "model", "d_model", "8", "family=byte-lm"),
        (
            "family=preact-resnet",
            "model",
            "definition",
            "'table'",
            "family=cifar-resnet",
        ),
        ("kind=adam", "optimizer", "momentum", "0.9", "kind=sgd"),
        ("kind=sgd", "optimizer", "beta1", "0.9", "kind=adam"),
        ("kind=lamb", "optimizer", "bias_lr", "0.1", "kind=sgd"),
        (
            "kind=constant",
            "schedule",
            "milestones",
            "[3]",
            "kind=multi-step",
        ),
        (
            "kind=multi-step",
            "schedule",
            "peak_at",
            "0.2",
            "kind=one-cycle",
        ),
        (
            "kind=one-cycle",
            "schedule",
            "warmup_steps",
            "2",
            "kind=constant",
        ),
    ] {
        let full = format!("`{section}.{key}`");
        let parts = [full.as_str(), "is a key of", owner, kind];
        let (tag, name) = kind.split_once('=').unwrap();
        let file = format!("[{section}]\n{tag} = '{name}'\n{key} = {value}");
        refused(&file, &parts);
        let changes = [
            format!("{section}.{tag}={name}"),
            format!("{key}={value}"),
            format!("{section}.{key}={value}"),
        ];
        let [kind, short, long] = changes.each_ref().map(String::as_str);
        refused_change("quickstart", &["depth=18", kind, short], &parts);
        refused_change("quickstart", &["depth=18", long, kind], &parts);
    }
    // Data goes with the family.
    let of_text = "[model]\nfamily = 'byte-lm'\n[run]\nsteps = 3\n";
    refused(
        &format!("{of_text}[data]\naugment = 'flip'"),
        &["`data.augment`", "[data] of images"],
    );
    refused("[data]\nstride = 3", &["`data.stride`", "[data] of text"]);
    refused_change("quickstart", &["stride=3"], &["`data.stride`", "of text"]);
    refused_change(
        "enwik8-tiny",
        &["augment=flip"],
        &["`data.augment`", "of images"],
    );
    refused(
        &format!("{of_text}[data]\nset = 'cifar10'"),
        &["`data.set`", "cifar10"],
    );
    refused_change(
        "quickstart",
        &["data=enwik8"],
        &["`data.set`", "enwik8", "cifar10"],
    );
}

/// A key that the section has and that changes nothing beside the others.
#[test]
fn a_key_without_an_effect_is_refused() {
    let no_gate = "has no effect: the scheme residual has no gate";
    let residual = "[model]\nfamily = 'mlp'\nscheme = 'residual'\n";
    let text = "[model]\nfamily = 'byte-lm'\n[run]\nsteps = 3\n";
    for (file, parts) in [
        (
            format!("{residual}[gates]\nalpha_lr = 0.1"),
            &["`gates.alpha_lr`", no_gate][..],
        ),
        (
            format!("{residual}[gates]\nalpha_init = 0.0"),
            &["`gates.alpha_init`", no_gate],
        ),
        (
            "[gates]\nalpha_lr = 0.1".to_owned(),
            &["`gates.alpha_lr`", "no effect", "alpha_optimizer"],
        ),
        (
            "[gates]\nalpha_shared = true".to_owned(),
            &["`gates.alpha_shared`", "no effect", "cifar-resnet"],
        ),
        (
            "[gates]\nalpha_trainable = false\nalpha_optimizer = 'adam'".to_owned(),
            &["`gates.alpha_optimizer`", "no effect", "alpha_trainable"],
        ),
        (
            "[optimizer]\nkind = 'sgd'\nbias_milestones = [3]".to_owned(),
            &["`optimizer.bias_milestones`", "no effect", "bias_lr"],
        ),
        (
            "[schedule]\nkind = 'constant'\nwarmup_steps = 3\nwarmup_epochs = 1".to_owned(),
            &["`schedule.warmup_epochs`", "no effect", "warmup_steps=3"],
        ),
        (
            "[train]\nrecompute = false".to_owned(),
            &["`train.recompute`", "no effect", "cifar-resnet"],
        ),
        (
            format!("{text}epochs = 3"),
            &["`run.epochs`", "no effect", "run.steps"],
        ),
    ] {
        refused(&file, parts);
    }
    for (name, changes, parts) in [
        (
            "quickstart",
            &["scheme=residual", "alpha_lr=0.1"][..],
            &["`gates.alpha_lr`", no_gate][..],
        ),
        (
            "cifar10-preact18",
            &["scheme=residual", "alpha_init=1"],
            &["`gates.alpha_init`", no_gate],
        ),
        (
            "quickstart",
            &["alpha_weight_decay=1"],
            &["`gates.alpha_weight_decay`", "no effect"],
        ),
        (
            "quickstart",
            &["bias_gamma=0.1"],
            &["`optimizer.bias_gamma`", "no effect"],
        ),
        (
            "enwik8-tiny",
            &["warmup_steps=3", "warmup_epochs=1"],
            &["`schedule.warmup_epochs`", "no effect"],
        ),
        (
            "quickstart",
            &["recompute=true"],
            &["`train.recompute`", "no effect"],
        ),
        (
            "enwik8-tiny",
            &["epochs=3"],
            &["`run.epochs`", "no effect", "run.steps"],
        ),
        (
            "enwik8-tiny",
            &["scheme=layerscale", "alpha_shared=false"],
            &["`gates.alpha_shared`", "no effect"],
        ),
        (
            "enwik8-tiny",
            &["scheme=layerscale", "alpha_per_channel=true"],
            &["`gates.alpha_per_channel`", "no effect"],
        ),
        (
            "quickstart",
            &["on_device=never", "device_memory=5"],
            &["`run.device_memory`", "no effect", "on_device=never"],
        ),
        (
            "enwik8-tiny",
            &["on_device=never"],
            &["`run.on_device`", "no effect", "no images"],
        ),
    ] {
        refused_change(name, changes, parts);
    }
}

#[test]
fn a_key_of_two_sections_needs_its_section() {
    let kinds = ["`kind`", "optimizer.kind or schedule.kind"];
    refused_change("quickstart", &["kind=adam"], &kinds);
    // Every other key of every section is unique.
    let schema = schema();
    let mut keys: Vec<(String, String)> = Vec::new();
    for (section, kind) in crate::support::kinds(&schema) {
        let properties = kind["properties"].as_object().unwrap();
        keys.extend(properties.keys().map(|key| (key.clone(), section.clone())));
    }
    keys.sort_unstable();
    keys.dedup();
    let twice = keys.windows(2).filter(|pair| pair[0].0 == pair[1].0);
    let twice: Vec<&str> = twice.map(|pair| pair[0].0.as_str()).collect();
    assert_eq!(twice, ["kind"]);
}

/// Sections whose values must fit together.
#[test]
fn sections_agree() {
    for (name, changes, parts) in [
        (
            "quickstart",
            &["optimizer=adam"][..],
            &["`schedule.kind`", "optimizer=sgd"][..],
        ),
        (
            "enwik8-tiny",
            &["schedule=multi-step"],
            &["`schedule.kind`", "constant, one-cycle, cosine or linear"],
        ),
        ("enwik8-tiny", &["steps=0"], &["`run.steps`", "got 0"]),
        (
            "enwik8-tiny",
            &["schedule=cosine", "warmup_epochs=0.5"],
            &["`schedule.kind`", "cosine or linear", "warmup_steps"],
        ),
        (
            "enwik8-tiny",
            &["schedule=linear", "lr_end=-1"],
            &["`schedule.lr_end`", "at least 0"],
        ),
        (
            "cifar10-mlp64",
            &["recompute=true", "clip_norm=1"],
            &["`train.recompute`", "clip_norm=0"],
        ),
        (
            "enwik8-tiny",
            &["recompute=true", "dtype=f16"],
            &["`train.dtype`", "recompute"],
        ),
        (
            "cifar10-mlp64",
            &["recompute=true", "device=flex,flex"],
            &["`run.device`", "one device"],
        ),
    ] {
        refused_change(name, changes, parts);
    }
}

/// The settings for a user's own module have no sections for networks and data.
#[test]
fn settings_without_a_model() {
    let settings = Settings::parse("[run]\nepochs = 3\n[train]\nbatch = 7").unwrap();
    assert_eq!((settings.run.epochs, settings.train.batch), (3, 7));
    assert_eq!(Settings::parse("").unwrap(), Settings::default());
    for (text, parts) in [
        ("[model]\ndepth = 8", &["unknown section [model]"][..]),
        ("[optimizer]\nkind = 'adm'", &["`optimizer.kind`", "`adam`"]),
        ("[train]\nbatch = 0", &["`train.batch`"]),
        (
            "[gates]\nalpha_lr = 1.0",
            &["`gates.alpha_lr`", "no effect"],
        ),
        (
            "[optimizer]\nkind = 'adam'\n[schedule]\nkind = 'one-cycle'",
            &["`schedule.kind`", "sgd"],
        ),
        (
            "[optimizer]\nkind = 'muon'\nmomentum = 1.0",
            &["`optimizer.momentum`", "[0, 1)"],
        ),
        ("[train]\nema = 1.0", &["`train.ema`", "[0, 1)"]),
        (
            "[optimizer]\nkind = 'lion'\nbeta2 = 1.0",
            &["`optimizer.beta2`", "[0, 1)"],
        ),
        (
            "[optimizer]\nkind = 'muon'\nbeta2 = -0.1",
            &["`optimizer.beta2`", "[0, 1)"],
        ),
    ] {
        let error = Settings::parse(text).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{text:?}: no `{part}` in: {error}");
        }
    }
}

/// The fingerprint covers everything that decides the numbers: all sections but `[run]`, and the
/// length of a run if the rate of a step depends on the length.
#[test]
fn a_fingerprint_is_of_the_numbers() {
    let of = |name: &str, changes: &[&str]| recipe(name, changes).fingerprint();
    for changes in [
        "device=flex",
        "keep=7",
        "log_every=7",
        "prefetch=0",
        "target=90",
        "patience=3",
        "tensorboard=true",
        "eval_every=7",
        "epochs=7",
        "steps=7",
    ] {
        let base = of("cifar10-resnet20", &[]);
        assert_eq!(of("cifar10-resnet20", &[changes]), base, "{changes}");
    }
    for changes in [
        "lr=0.3",
        "seed=2",
        "ema=0.9",
        "batch=64",
        "augment=crop:padding=2,flip",
        "label_smoothing=0.1",
        "alpha_init=1",
    ] {
        let base = of("cifar10-resnet20", &[]);
        assert_ne!(of("cifar10-resnet20", &[changes]), base, "{changes}");
    }
    assert_ne!(of("quickstart", &["epochs=2"]), of("quickstart", &[]));
    let one_cycle = ["optimizer=sgd", "schedule=one-cycle"];
    let longer = [&one_cycle[..], &["steps=2000"]].concat();
    assert_ne!(of("enwik8-tiny", &longer), of("enwik8-tiny", &one_cycle));
    for schedule in ["schedule=cosine", "schedule=linear"] {
        let longer = of("enwik8-tiny", &[schedule, "steps=2000"]);
        assert_ne!(longer, of("enwik8-tiny", &[schedule]), "{schedule}");
    }
    assert_eq!(of("enwik8-tiny", &["steps=2000"]), of("enwik8-tiny", &[]));
}

#[test]
fn a_data_set_says_what_is_counted() {
    assert_eq!(Images::task().items, "images");
    assert_eq!(Images::task().measure().key, "accuracy");
}

fn a_key(i: usize) -> String {
    let schema = schema();
    let mut all = Vec::new();
    for (section, kind) in kinds(&schema) {
        let keys = kind["properties"].as_object().unwrap();
        all.extend(keys.keys().map(|key| format!("{section}.{key}")));
    }
    all[i % all.len()].clone()
}

#[test]
fn names_of_runs_differ_where_their_settings_do() {
    let long = |end: char| {
        let device: String = std::iter::repeat_n('x', 300).chain([end]).collect();
        Override::new("device", device)
    };
    let name = |over: Override| Recipe::resolve("quickstart", &[over]).unwrap().run_name();
    let (a, b) = (name(long('a')), name(long('b')));
    assert!(a.len() == 200 && b.len() == 200 && a != b, "{a} {b}");
    assert_eq!(name(long('a')), a);
    assert_ne!(
        name(Override::new("device", "a b")),
        name(Override::new("device", "a-b"))
    );
    assert_eq!(
        name(Override::new("device", "cuda:0")),
        "quickstart_device=cuda-0"
    );
}

/// A text of at most `len` characters, control characters among them.
fn text(len: usize) -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..=len).prop_map(String::from_iter)
}

/// Up to 12 of some letters.
fn letters(of: &'static str) -> impl Strategy<Value = String> {
    vec(select(of.chars().collect::<Vec<_>>()), 0..=12).prop_map(String::from_iter)
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in text(200)) {
        let _ = Recipe::parse("any", &text);
    }

    #[test]
    fn arbitrary_sections_never_panic(
        section in select(vec!["model", "data", "optimizer", "gates", "schedule", "train", "run"]),
        key in prop_oneof![letters("abcdefghijklmnopqrstuvwxyz_"), select(vec!["kind", "family", "set"]).prop_map(str::to_owned)],
        value in text(20),
    ) {
        let _ = Recipe::parse("any", &format!("[{section}]\n{key} = {value}"));
        let _ = Recipe::parse("any", &format!("{section}.{key} = \"{value}\""));
    }

    #[test]
    fn arbitrary_overrides_never_panic(key in letters("abcdefghijklmnopqrstuvwxyz_."), value in text(200)) {
        let _ = resolve("quickstart", &[&format!("{key}={value}")]);
    }

    #[test]
    fn arbitrary_values_of_real_keys_never_panic(i in 0usize..1000, value in text(20)) {
        let change = format!("{}={value}", a_key(i));
        let _ = resolve("quickstart", &[&change]);
        let _ = resolve("enwik8-tiny", &[&change]);
    }

    #[test]
    fn run_names_are_safe_file_names(value in text(200)) {
        let over = Override::new("device", value);
        // A number is no device name and is refused before it becomes part of a name.
        if let Ok(resolved) = Recipe::resolve("quickstart", &[over]) {
            let name = resolved.run_name();
            prop_assert!(!name.contains('/') && name.len() <= 200 && name.is_ascii());
        }
    }
}

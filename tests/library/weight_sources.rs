//! What other packages call their tensors, in lists made by them: every name finds its place, or is said to have none.

use std::collections::BTreeMap;

use segdist::model::layers::{Role, Store, Variable};
use segdist::model::weights::{Package, Part, Report, export, load_into};
use tch::{Device, Kind, Tensor};

/// Name and shape of each tensor.
type List = Vec<(String, Vec<i64>)>;

/// The lists of weight_sources.txt by their titles.
fn lists() -> BTreeMap<String, List> {
    let text = include_str!("../golden/weight_sources.txt");
    let mut lists = BTreeMap::new();
    for section in text.split("\n= ").skip(1) {
        let (title, lines) = section.split_once('\n').unwrap();
        let (title, count) = title.split_once(": ").unwrap();
        let list: List = lines.lines().filter(|line| !line.is_empty()).flat_map(unfold).collect();
        assert_eq!(list.len().to_string(), count, "{title}");
        lists.insert(title.to_string(), list);
    }
    lists
}

/// `a.{0,1}.b 2x3` stands for a.0.b and a.1.b.
fn unfold(line: &str) -> List {
    let (name, shape) = line.split_once(' ').unwrap_or((line, ""));
    let shape: Vec<i64> = shape.split('x').filter(|size| !size.is_empty()).map(|size| size.parse().unwrap()).collect();
    match name.split_once('{') {
        None => vec![(name.to_string(), shape)],
        Some((before, after)) => {
            let (numbers, after) = after.split_once('}').unwrap();
            numbers.split(',').map(|number| (format!("{before}{number}{after}"), shape.clone())).collect()
        }
    }
}

fn zeros(shape: &[i64]) -> Tensor {
    Tensor::zeros(shape, (Kind::Uint8, Device::Cpu))
}

/// A network's part of the tensors of `list` that begin with one of `prefixes`, without it.
fn store(part: &str, list: &List, prefixes: &[&str]) -> Store {
    let bare = |name: &str| prefixes.iter().find_map(|prefix| name.strip_prefix(prefix).map(str::to_string));
    let variables = list.iter().filter(|(name, _)| !name.ends_with("num_batches_tracked"));
    let variables = variables.filter_map(|(name, shape)| {
        let name = format!("{part}.{}", bare(name)?);
        Some(Variable { name, tensor: zeros(shape), role: Role::Weight, above: 0 })
    });
    Store { variables: variables.collect() }
}

/// The whole of the list `title` loaded into the network.
fn load(lists: &BTreeMap<String, List>, title: &str, store: &Store, part: Part) -> Report {
    let file: Vec<(String, Tensor)> =
        lists[title].iter().map(|(name, shape)| (name.clone(), zeros(&[]).expand(shape, false))).collect();
    let report = load_into(store, part, &file, false).unwrap_or_else(|problem| panic!("{title}: {problem}"));
    assert_eq!(report.loaded.len() + report.lacking.len(), store.variables.len(), "{title}");
    report
}

/// Files that fill a network of the same names: title, source that is said, beginnings of what is unused.
type Case = (&'static str, &'static str, &'static [&'static str]);

fn check(lists: &BTreeMap<String, List>, store: &Store, part: Part, cases: &[Case]) {
    for (title, source, unused) in cases {
        let report = load(lists, title, store, part);
        assert_eq!(report.source, *source, "{title}");
        let expected = |name: &String| unused.iter().any(|start| name.starts_with(start));
        assert!(report.unused.iter().all(expected), "{title}: {:?}", report.unused);
        assert!(unused.iter().all(|start| report.unused.iter().any(|name| name.starts_with(start))), "{title}");
        assert!(report.lacking.iter().all(|name| name.starts_with("hidden_states_norms.")), "{title}");
    }
}

#[test]
fn a_mit_is_filled_from_every_package_that_has_one() {
    let lists = lists();
    let encoder = store("encoder", &lists["transformers SegFormer"], &["segformer.encoder."]);
    let cases: [Case; 8] = [
        ("transformers SegFormer", "transformers SegFormer", &[]),
        ("transformers 5 SegFormer", "transformers 5 SegFormer", &[]),
        ("transformers SegFormer classification", "transformers SegFormer", &["classifier."]),
        ("NVIDIA MiT", "NVIDIA MiT", &["head."]),
        ("NVIDIA SegFormer", "NVIDIA SegFormer", &[]),
        ("SMP Unet MiT", "segmentation_models_pytorch MiT", &[]),
        ("SMP Segformer MiT", "segmentation_models_pytorch SegFormer", &[]),
        ("mmsegmentation MiT", "mmsegmentation MiT", &["decode_head."]),
    ];
    check(&lists, &encoder, Part::Encoder, &cases);
}

#[test]
fn a_segformer_head_is_filled_from_every_package_that_has_one() {
    let lists = lists();
    let decoder = store("decoder", &lists["transformers SegFormer"], &["decode_head."]);
    let cases: [Case; 4] = [
        ("transformers SegFormer", "transformers SegFormer", &[]),
        ("transformers 5 SegFormer", "transformers 5 SegFormer", &[]),
        ("NVIDIA SegFormer", "NVIDIA SegFormer", &[]),
        ("SMP Segformer MiT", "segmentation_models_pytorch SegFormer", &[]),
    ];
    check(&lists, &decoder, Part::Decoder, &cases);
}

#[test]
fn a_convnext_is_filled_from_every_package_that_has_one() {
    let lists = lists();
    let encoder = store("encoder", &lists["transformers UPerNet"], &["backbone.encoder.", "backbone."]);
    let cases: [Case; 6] = [
        ("transformers UPerNet", "transformers UPerNet", &[]),
        ("transformers ConvNeXt", "transformers ConvNeXt", &["classifier.", "convnext.layernorm."]),
        ("timm ConvNeXt", "timm ConvNeXt", &["head."]),
        ("Meta ConvNeXt", "Meta ConvNeXt", &["head.", "norm."]),
        ("torchvision ConvNeXt", "torchvision ConvNeXt", &["classifier."]),
        ("mmsegmentation ConvNeXt", "mmsegmentation ConvNeXt", &[]),
    ];
    check(&lists, &encoder, Part::Encoder, &cases);
    let has_norms = |title: &str| load(&lists, title, &encoder, Part::Encoder).lacking.is_empty();
    assert!(has_norms("mmsegmentation ConvNeXt") && !has_norms("timm ConvNeXt"));
}

#[test]
fn an_upernet_head_with_its_auxiliary_head_is_filled() {
    let lists = lists();
    let list: List = lists["transformers UPerNet"]
        .iter()
        .filter(|(name, _)| !name.starts_with("backbone."))
        .map(|(name, shape)| (name.strip_prefix("decode_head.").unwrap_or(name).into(), shape.clone()))
        .collect();
    let decoder = store("decoder", &list, &[""]);
    let cases: [Case; 2] = [
        ("transformers UPerNet", "transformers UPerNet", &[]),
        ("mmsegmentation ConvNeXt", "mmsegmentation ConvNeXt", &[]),
    ];
    check(&lists, &decoder, Part::Decoder, &cases);
}

#[test]
fn resnets_are_filled_and_only_the_classifier_is_unused() {
    let lists = lists();
    let encoder = |title: &str| {
        let list: List = lists[title].iter().filter(|(name, _)| !name.starts_with("fc.")).cloned().collect();
        store("encoder", &list, &[""])
    };
    let small: [Case; 5] = [
        ("torchvision ResNet", "torchvision ResNet", &["fc."]),
        ("timm ResNet", "torchvision ResNet", &["fc."]),
        ("SMP Unet ResNet", "segmentation_models_pytorch", &[]),
        ("SMP DeepLabV3Plus ResNet", "segmentation_models_pytorch", &[]),
        ("mmsegmentation ResNet", "mmsegmentation", &[]),
    ];
    check(&lists, &encoder("torchvision ResNet"), Part::Encoder, &small);
    let grouped: [Case; 1] = [("torchvision ResNeXt", "torchvision ResNet", &["fc."])];
    check(&lists, &encoder("torchvision ResNeXt"), Part::Encoder, &grouped);
    let list = &lists["torchvision FCN"];
    let backbone: [Case; 1] = [("torchvision FCN", "torchvision ResNet", &["classifier."])];
    check(&lists, &store("encoder", list, &["backbone."]), Part::Encoder, &backbone);
}

#[test]
fn decoders_of_smp_are_filled() {
    let lists = lists();
    for title in ["SMP Unet ResNet", "SMP Unet MiT", "SMP DeepLabV3Plus ResNet"] {
        let mut list = lists[title].clone();
        list.iter_mut()
            .for_each(|(name, _)| *name = name.replacen("segmentation_head.", "decoder.segmentation_head.", 1));
        let report = load(&lists, title, &store("decoder", &list, &["decoder."]), Part::Decoder);
        assert_eq!(report.unused, Vec::<String>::new(), "{title}");
    }
}

#[test]
fn vision_transformers_are_filled_with_query_key_and_value_joined() {
    let lists = lists();
    let cases: [Case; 2] = [
        ("timm DINOv2", "segdist, one part", &[]),
        ("transformers DINOv2", "transformers DINOv2", &["embeddings.mask_token"]),
    ];
    check(&lists, &store("encoder", &lists["timm DINOv2"], &[""]), Part::Encoder, &cases);
    let cases: [Case; 2] = [
        ("timm DINOv3", "segdist, one part", &[]),
        ("transformers DINOv3", "transformers DINOv3", &["embeddings.mask_token", "layer."]),
    ];
    check(&lists, &store("encoder", &lists["timm DINOv3"], &[""]), Part::Encoder, &cases);
}

#[test]
fn joined_and_split_tensors_keep_their_rows_in_order() {
    let ramp = |from: i64| (Tensor::arange(4, (Kind::Float, Device::Cpu)) + from * 4).reshape([2, 2]);
    let variable = |name: &str, size: [i64; 2]| Variable {
        name: format!("encoder.{name}"),
        tensor: Tensor::zeros(size, (Kind::Float, Device::Cpu)),
        role: Role::Weight,
        above: 0,
    };
    let joined = Store { variables: vec![variable("blocks.0.attn.qkv.weight", [6, 2])] };
    let layer = "encoder.layer.0.attention.attention";
    let file: Vec<_> = [("value", 2), ("query", 0), ("key", 1)]
        .map(|(name, from)| (format!("{layer}.{name}.weight"), ramp(from)))
        .into();
    load_into(&joined, Part::Encoder, &file, false).unwrap();
    assert_eq!(
        Vec::<f32>::try_from(joined.variables[0].tensor.flatten(0, -1)).unwrap(),
        (0..12).map(|v| v as f32).collect::<Vec<_>>()
    );

    let attention = "block.0.0.attention.self";
    let split = Store {
        variables: ["value", "key"].map(|name| variable(&format!("{attention}.{name}.weight"), [2, 2])).into(),
    };
    load_into(&split, Part::Encoder, &[("block1.0.attn.kv.weight".into(), Tensor::cat(&[ramp(1), ramp(2)], 0))], false)
        .unwrap();
    assert!(split.variables[0].tensor.equal(&ramp(2)) && split.variables[1].tensor.equal(&ramp(1)));
    // Rows that do not divide, and a part that is absent, are the file's fault and no panic.
    let odd = [("block1.0.attn.kv.weight".to_string(), Tensor::zeros([3, 2], (Kind::Float, Device::Cpu)))];
    assert!(load_into(&split, Part::Encoder, &odd, false).is_err());
    assert!(load_into(&joined, Part::Encoder, &file[..2], false).unwrap_err().to_string().contains("missing"));
}

#[test]
fn position_embeddings_of_another_grid_are_resized_and_said() {
    let tokens = |side: i64| 1 + side * side;
    let make = |side: i64| Tensor::arange(tokens(side) * 2, (Kind::Float, Device::Cpu)).reshape([1, tokens(side), 2]);
    let variable =
        Variable { name: "encoder.pos_embed".into(), tensor: make(8).zeros_like(), role: Role::NoDecay, above: 0 };
    let store = Store { variables: vec![variable] };
    let report = load_into(&store, Part::Encoder, &[("pos_embed".into(), make(4))], false).unwrap();
    assert!(report.lines(Part::Encoder, "file").iter().any(|line| line.contains("4 x 4 in the file, 8 x 8 here")));
    let resized = &store.variables[0].tensor;
    // The token before the grid stays, and the grid keeps its mean.
    assert!(resized.narrow(1, 0, 1).equal(&make(4).narrow(1, 0, 1)));
    let mean = |grid: &Tensor| grid.narrow(1, 1, grid.size()[1] - 1).mean(Kind::Float).double_value(&[]);
    assert!((mean(resized) - mean(&make(4))).abs() < 1e-3);
    // Other channels are no other grid.
    assert!(load_into(&store, Part::Encoder, &[("pos_embed".into(), make(4).repeat([1, 1, 2]))], false).is_err());
}

/// The whole file `title`, loaded into networks of its names and written again for `package`.
fn there_and_back(lists: &BTreeMap<String, List>, title: &str, stores: [&Store; 2], package: Package) {
    let file: Vec<(String, Tensor)> = lists[title]
        .iter()
        .enumerate()
        .map(|(index, (name, shape))| (name.clone(), zeros(&[]).fill_(index as i64 % 251).expand(shape, false)))
        .collect();
    let mut ours = Vec::new();
    for (part, store) in [Part::Encoder, Part::Decoder].into_iter().zip(stores) {
        load_into(store, part, &file, false).unwrap();
        ours.extend(store.variables.iter().map(|variable| (variable.name.clone(), variable.tensor.shallow_clone())));
    }
    let mut written = export(&ours, package).unwrap_or_else(|problem| panic!("{title}: {problem}")).tensors;
    let mut file = file;
    let by_name = |tensors: &mut Vec<(String, Tensor)>| tensors.sort_by(|left, right| left.0.cmp(&right.0));
    by_name(&mut written);
    by_name(&mut file);
    let names = |tensors: &[(String, Tensor)]| tensors.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&written), names(&file), "{title}");
    for ((name, written), (_, read)) in written.iter().zip(&file) {
        let same = written.size() == read.size() && (name.ends_with("num_batches_tracked") || written.equal(read));
        assert!(same, "{title}: {name}");
    }
}

#[test]
fn what_is_written_for_a_package_has_its_names_and_shapes_and_values() {
    let lists = lists();
    let segformer = &lists["transformers SegFormer"];
    let mit = store("encoder", segformer, &["segformer.encoder."]);
    let head = store("decoder", segformer, &["decode_head."]);
    there_and_back(&lists, "transformers SegFormer", [&mit, &head], Package::Transformers);
    there_and_back(&lists, "SMP Segformer MiT", [&mit, &head], Package::Smp);

    let upernet = &lists["transformers UPerNet"];
    let convnext = store("encoder", upernet, &["backbone.encoder.", "backbone."]);
    let heads: List = upernet
        .iter()
        .filter(|(name, _)| !name.starts_with("backbone."))
        .map(|(name, shape)| (name.replacen("decode_head.", "", 1), shape.clone()))
        .collect();
    there_and_back(
        &lists,
        "transformers UPerNet",
        [&convnext, &store("decoder", &heads, &[""])],
        Package::Transformers,
    );

    for title in ["SMP Unet ResNet", "SMP Unet MiT", "SMP DeepLabV3Plus ResNet"] {
        let mut list = lists[title].clone();
        list.iter_mut()
            .for_each(|(name, _)| *name = name.replacen("segmentation_head.", "decoder.segmentation_head.", 1));
        let decoder = store("decoder", &list, &["decoder."]);
        let resnet = store("encoder", &list, &["encoder."]);
        let encoder = if title.ends_with("MiT") { &mit } else { &resnet };
        there_and_back(&lists, title, [encoder, &decoder], Package::Smp);
    }
}

#[test]
fn a_network_that_a_package_lacks_is_refused_with_what_it_takes() {
    let tensor = |name: &str| vec![(name.to_string(), zeros(&[2]))];
    for (package, part) in [
        (Package::Transformers, "mit_* with segformer"),
        (Package::Torchvision, "MODEL.stem plain"),
        (Package::Smp, "deeplabv3plus"),
    ] {
        let message = export(&tensor("encoder.conv3.weight"), package).err().unwrap().to_string();
        assert!(message.contains("encoder.conv3.weight") && message.contains(part), "{message}");
        assert!(export(&[], package).is_err());
    }
}

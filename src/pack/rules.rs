//! What a set's labels are read by, and what is known of its classes.

use super::PackOptions;
use crate::data::instances::Instances;
use crate::data::label_file::LabelFile;
use crate::data::label_map::LabelMap;
use crate::data::label_rule::{self, LabelRule};
use crate::data::layout::Layout;
use crate::data::source::DataError;
use std::collections::BTreeMap;
use std::path::Path;

/// Where labels come from.
pub enum Labels {
    /// A file for each image.
    Files(LabelRule),
    /// Outlines of objects; with the rule of what is drawn.
    Drawn(Instances, LabelRule),
}

/// How labels are read and what their classes are.
pub struct Rules {
    /// Where labels come from.
    pub labels: Labels,
    /// Number of classes, where it is known.
    pub num_class: Option<usize>,
    /// Class names, where they are known.
    pub names: Option<Vec<String>>,
    /// Colours, where they are known.
    pub palette: Option<Vec<[u8; 3]>>,
    /// A map that is stored with the set; without it the set is read by the reference's rule or DATASET.label_map.
    pub stored: Option<BTreeMap<u8, Option<u8>>>,
    /// Tells rules apart when a run goes on where another was interrupted.
    pub stamp: String,
}

impl Rules {
    /// The label map that is named, else the layout's, else the reference's rule.
    pub fn new(options: &PackOptions, layout: Option<&Layout>) -> Result<Rules, DataError> {
        let known = layout.map(Layout::classes);
        let num_class = options.num_class.or(known.as_ref().map(|(names, _)| names.len()));
        if let Some(path) = &options.label_map {
            let mut file = label_rule::load(path, num_class)?;
            if let Some(distance) = options.nearest_color {
                file.accept_nearest(distance);
            }
            return Ok(Rules::of_file(path, file, num_class, known));
        }
        let (names, palette) = known.unzip();
        let (rule, stored) = match layout.and_then(|layout| Some((layout.name, layout.label_map()?))) {
            Some((name, map)) => (LabelRule::bytes(map.clone(), Path::new(name)), Some(map.entries())),
            None => {
                let lacking = num_class.map(|classes| format!("is above the number of classes, {classes}"));
                // 255 classes leave no byte without one: nothing is checked.
                (LabelRule::reference(num_class.unwrap_or(255), lacking.unwrap_or_default()), None)
            }
        };
        let stamp = format!("{:?}\n", rule.map);
        Ok(Rules { labels: Labels::Files(rule), num_class, names, palette, stored, stamp })
    }

    /// The classes of outlines, which no label map changes.
    pub fn drawn(instances: Instances, background: impl std::fmt::Debug) -> Rules {
        let names = instances.names.clone();
        let rule = LabelRule::reference(names.len(), "is no category");
        let (num_class, stamp) = (Some(names.len()), format!("{background:?}\n{names:?}\n"));
        let labels = Labels::Drawn(instances, rule);
        Rules { labels, num_class, names: Some(names), palette: None, stored: None, stamp }
    }

    fn of_file(
        path: &Path,
        file: LabelFile,
        num_class: Option<usize>,
        known: Option<(Vec<String>, Vec<[u8; 3]>)>,
    ) -> Rules {
        let (known_names, known_palette) = known.unzip();
        let names = Some(file.names.clone()).filter(|names| !names.is_empty()).or(known_names);
        let palette = Some(file.colors.clone()).filter(|colors| !colors.is_empty()).or(known_palette);
        let num_class = num_class.or(Some(file.num_class()));
        let stamp = format!("{file:?}\n");
        let rule = LabelRule::of_file(path, file);
        let stored = (!rule.translates()).then(|| rule.map.entries());
        Rules { labels: Labels::Files(rule), num_class, names, palette, stored, stamp }
    }

    /// From stored bytes to classes.
    pub fn map(&self) -> &LabelMap {
        match &self.labels {
            Labels::Files(rule) | Labels::Drawn(_, rule) => &rule.map,
        }
    }

    /// Whether stored bytes are class + 1 whatever the label files hold.
    pub fn translates(&self) -> bool {
        match &self.labels {
            Labels::Files(rule) => rule.translates(),
            Labels::Drawn(..) => true,
        }
    }
}

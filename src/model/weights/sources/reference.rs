//! The reference's own names, which are ours.

use crate::model::weights::source::Source;

/// Both parts in one file.
pub const COMBINED: Source = Source {
    name: "segdist",
    rows: &[("", &[("encoder.{rest}", "encoder.{rest}"), ("decoder.{rest}", "decoder.{rest}")])],
    lacks: &[],
};

/// One part alone. timm's vision transformers are called the same.
pub const PART: Source =
    Source { name: "segdist, one part", rows: &[("", &[("{rest}", "{part}.{rest}")])], lacks: &[] };

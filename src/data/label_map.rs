//! From the bytes that stored labels hold to the classes that a network learns.

use std::collections::BTreeMap;

/// The class of pixels that neither the loss nor the metrics count.
pub const IGNORED: i64 = -1;

const UNMAPPED: i16 = -2;

/// Raw label value → class, [`IGNORED`] or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelMap {
    table: [i16; 256],
    /// All values below this one are mapped: most label maps are checked against it alone.
    mapped_below: u16,
}

impl LabelMap {
    /// The rule of the reference (`segm_transform` in mit_semseg/dataset.py): 0 is ignored, k is class k - 1.
    pub fn reference(num_class: usize) -> LabelMap {
        LabelMap::from_fn(|raw| match usize::from(raw) {
            0 => Some(None),
            k if k <= num_class => Some(Some(raw - 1)),
            _ => None,
        })
    }

    /// The map with these entries: raw value → class, None for ignored.
    pub fn from_entries(entries: &BTreeMap<u8, Option<u8>>) -> LabelMap {
        LabelMap::from_fn(|raw| entries.get(&raw).copied())
    }

    /// What [`LabelMap::from_entries`] takes.
    pub fn entries(&self) -> BTreeMap<u8, Option<u8>> {
        let entry = |raw: u8| Some((raw, u8::try_from(self.class(raw)?).ok()));
        (0..=255).filter_map(entry).collect()
    }

    /// The class of a raw value, [`IGNORED`], or None where the map has no entry.
    pub fn class(&self, raw: u8) -> Option<i64> {
        let class = self.table[usize::from(raw)];
        (class != UNMAPPED).then_some(class.into())
    }

    /// The classes of all 256 raw values: -1 ignored, -2 no entry. A label that [`LabelMap::first_unmapped`] passed
    /// never meets a -2.
    pub fn table(&self) -> &[i16; 256] {
        &self.table
    }

    /// The first value of a label that has no entry.
    pub fn first_unmapped(&self, label: &[u8]) -> Option<u8> {
        // The maximum is a vectorised loop, the search is not.
        let largest = label.iter().copied().max().unwrap_or(0);
        if u16::from(largest) < self.mapped_below {
            return None;
        }
        label.iter().copied().find(|&raw| self.table[usize::from(raw)] == UNMAPPED)
    }

    /// The map that says this of every raw value.
    pub fn from_fn(entry: impl Fn(u8) -> Option<Option<u8>>) -> LabelMap {
        let table = std::array::from_fn(|raw| match entry(raw as u8) {
            None => UNMAPPED,
            Some(None) => IGNORED as i16,
            Some(Some(class)) => class.into(),
        });
        let mapped_below = table.iter().position(|&class| class == UNMAPPED).unwrap_or(256) as u16;
        LabelMap { table, mapped_below }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_reference_ignores_0_and_shifts_the_rest_by_one() {
        let map = LabelMap::reference(150);
        assert_eq!(map.class(0), Some(IGNORED));
        assert_eq!(map.class(1), Some(0));
        assert_eq!(map.class(150), Some(149));
        assert_eq!(map.class(151), None);
        assert_eq!(map.first_unmapped(&[0, 150, 151, 200]), Some(151));
        assert_eq!(map.first_unmapped(&[0, 150]), None);
        assert_eq!(LabelMap::reference(255).class(255), Some(254));
    }

    proptest! {
        #[test]
        fn entries_make_the_same_map_again(entries: BTreeMap<u8, Option<u8>>, label: Vec<u8>) {
            let map = LabelMap::from_entries(&entries);
            prop_assert_eq!(&map.entries(), &entries);
            let first = label.iter().copied().find(|raw| !entries.contains_key(raw));
            prop_assert_eq!(map.first_unmapped(&label), first);
        }
    }
}

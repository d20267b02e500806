//! The library in this process: pure functions, files, and ranks that are threads.

#[path = "../data_files/mod.rs"]
mod data_files;
#[path = "../golden/mod.rs"]
mod golden;

mod augment;
mod buckets;
mod checkpoint;
mod containers;
mod convert;
mod demo_data;
mod durable;
mod fused;
mod history;
mod loader;
mod losses;
mod metrics;
mod model_parts;
mod network_pairs;
mod networks;
mod optimizer;
mod order;
mod pack;
mod packages;
mod parameter_groups;
mod parity;
mod plan;
mod recipes_data;
mod recompute;
mod report;
mod report_html;
mod resize;
mod shards;
mod sources;
mod staging;
mod sync_batch_norm;
mod verify;
mod weight_sources;
mod weights;

//! segdist: distributed training of semantic segmentation networks.

#![allow(dead_code, unused_variables, unused_imports)] // SKELETON ONLY: goes when all parts are in

pub mod fault;

pub mod comm;
pub mod torch;
pub mod shard;

pub mod loss;
pub mod metrics;
pub mod schedule;

pub mod model;
pub mod optim;
pub mod data;
pub mod sync;
pub mod checkpoint;
pub mod report;

pub mod bench;
pub mod convert;
pub mod demo_data;
pub mod doctor;
pub mod eval;
pub mod pack;
pub mod plan;
pub mod predict;
pub mod train;
pub mod verify;

pub mod config;

pub mod cli;

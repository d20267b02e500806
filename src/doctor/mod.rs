//! `segdist doctor`: what MPI, cores, devices, network and files look like to every rank, and what to do about problems.
//!
//! Each rank looks at itself ([`facts`]), all measure together ([`probe`]), and a pure function draws the conclusions
//! ([`diagnosis`]). Only what makes training here impossible is an error; everything else is a warning with its remedy.

mod diagnosis;
mod facts;
mod machine;
mod probe;

use crate::comm::Comm;
use comfy_table::{ContentArrangement, Table, presets};
use diagnosis::{Finding, Level};
use facts::Facts;
use probe::Measured;
use serde::Serialize;
use std::path::Path;

#[derive(Serialize)]
struct Report<'a> {
    /// Whether training is possible here.
    ok: bool,
    findings: &'a [Finding],
    measured: &'a Measured,
    ranks: &'a [Facts],
}

/// Examines this job's ranks; rank 0 prints. A collective.
///
/// `folder` stands for the data and the run: its file system is examined.
/// Returns the exit code: 0, or 1 where training is impossible.
pub fn run(comm: &dyn Comm, folder: &Path, json: bool) -> anyhow::Result<u8> {
    let mine = serde_json::to_vec(&Facts::collect(folder))?;
    let ranks =
        comm.all_gather(&mine)?.iter().map(|bytes| serde_json::from_slice(bytes)).collect::<Result<Vec<Facts>, _>>()?;
    let measured = probe::measure(comm, folder, &probe::SIZES)?;
    let findings = diagnosis::diagnose(&ranks, &measured);
    let ok = findings.iter().all(|finding| finding.level != Level::Error);
    if comm.is_root() {
        let report = Report { ok, findings: &findings, measured: &measured, ranks: &ranks };
        println!("{}", if json { serde_json::to_string(&report)? } else { for_people(&report) });
    }
    Ok(u8::from(!ok))
}

fn for_people(report: &Report) -> String {
    let mut table = Table::new();
    // A fixed width: under mpirun the output looks like a terminal without one.
    table.load_style(presets::UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Dynamic).set_width(110);
    for finding in report.findings {
        let mark = match finding.level {
            Level::Ok => "ok",
            Level::Warning => "look",
            Level::Error => "WRONG",
        };
        let remedy = finding.remedy.as_ref().map_or(String::new(), |remedy| format!("\n→ {remedy}"));
        table.add_row([mark, finding.topic, &format!("{}{remedy}", finding.found)]);
    }
    let closing =
        if report.ok { "Training is possible here." } else { "Training is impossible here; see WRONG above." };
    format!("{table}\n{closing}")
}

//! Compiles the C++ shim and writes where libtorch and MPI are into the binary (rpath), so that it runs as it is.

use std::env;
use std::path::{Path, PathBuf};

fn main() {
    let torch_lib = PathBuf::from(env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys says where libtorch is"));
    let torch = torch_lib.parent().expect("libtorch/lib has a parent");
    let mpi =
        build_probe_mpi::probe().unwrap_or_else(|causes| panic!("no MPI found, run ./launch/setup.sh: {causes:?}"));

    println!("cargo:rerun-if-changed=build.rs");
    compile_torch_shim(torch);
    compile_mpi_shim(&mpi);
    // A package that is installed elsewhere says where its libraries will lie.
    println!("cargo:rerun-if-env-changed=SEGDIST_RPATH");
    if let Ok(paths) = env::var("SEGDIST_RPATH") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{paths}");
        return;
    }
    for path in mpi.lib_paths.iter().chain([&torch_lib]) {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", path.display());
    }
    // Where an installed binary finds them: PREFIX/bin/segdist beside PREFIX/lib.
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib");
}

fn compile_torch_shim(torch: &Path) {
    println!("cargo:rerun-if-changed=src/torch/shim.cpp");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .warnings(false)
        .include(torch.join("include"))
        .include(torch.join("include/torch/csrc/api/include"))
        .file("src/torch/shim.cpp")
        .compile("segdist_torch_shim");
}

fn compile_mpi_shim(mpi: &build_probe_mpi::Library) {
    println!("cargo:rerun-if-changed=src/comm/shim.c");
    cc::Build::new().includes(&mpi.include_paths).file("src/comm/shim.c").compile("segdist_mpi_shim");
}

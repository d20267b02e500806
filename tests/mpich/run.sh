#!/usr/bin/env bash
# Builds segdist against MPICH in place of Open MPI and runs the tests that start ranks.
#
#   tests/mpich/run.sh                 all that do not need what only Open MPI has
#   tests/mpich/run.sh --test ranks    what `cargo test` is given
#
# After launch/setup.sh. Debian's or Ubuntu's packages are laid out under .deps/mpich/ and not installed, the build under
# target/mpich/. Says SKIPPED where the packages cannot be had. Safe to run again at any time: what is there stays.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

say() { echo "[mpich $(date +%T)] $*"; }
skip() { say "SKIPPED: $*"; exit 0; }
fail() { say "FAILED: $*"; exit 1; }

# Left out: launch, failing_disk and elastic, which are about launch/mpirun.sh and Open MPI's way to outlive a rank; and what never
# starts a rank, for which the MPI library is nothing.
wanted=("$@")
if [ $# = 0 ]; then
    wanted=(--test ranks -- --skip launch:: --skip failing_disk:: --skip elastic::)
    # Once MPICH's mpiexec has passed SIGUSR1 on, it often returns 0, whatever its ranks return.
    wanted+=(--skip usr1_to_mpirun_stops_all)
    # It does not find rank 0's port below Hydra; what it proves does not hang on the MPI.
    wanted+=(--skip watchdog::)
fi

[ -e .deps/clang/include ] || fail "first: launch/setup.sh"
box=$(realpath .deps)/mpich

installed() { [ "$(dpkg-query --show --showformat '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }
libraries() { apt-cache depends --important "$1" | sed -n '/-dev$/d; s/^.*Depends: \(lib.*\)/\1/p'; }

# MPICH, its headers, and the libraries that they need and the machine has not; all or nothing.
fetch() {
    local packages=(mpich libmpich-dev) library i
    for ((i = 0; i < ${#packages[@]}; i++)); do
        for library in $(libraries "${packages[i]}"); do
            [[ " ${packages[*]} " != *" $library "* ]] || continue
            [[ $library == libmpich* ]] || ! installed "$library" || continue
            packages+=("$library")
        done
    done
    say "fetching ${packages[*]}"
    rm -rf "$box.part"
    mkdir -p "$box.part/packages"
    (cd "$box.part/packages" && timeout 600 apt-get download -qq -o APT::Sandbox::User=root "${packages[@]}") || return 1
    for package in "$box.part"/packages/*.deb; do dpkg -x "$package" "$box.part" || return 1; done
    rm -rf "$box" "$box.part/packages"
    mv "$box.part" "$box"
}
if [ ! -d "$box" ]; then
    for tool in apt-get apt-cache dpkg; do command -v "$tool" >/dev/null || skip "$tool is not here"; done
    apt-cache show mpich libmpich-dev >/dev/null 2>&1 || skip "apt-cache knows no mpich (apt-get update may help)"
    fetch || skip "the packages could not be downloaded; the lines above say why"
fi

# The compiler's wrapper is a script that believes itself in /usr.
mkdir -p "$box/bin"
sed -E "s#^(prefix|exec_prefix|includedir|libdir)=#&$box#" "$box/usr/bin/mpicc.mpich" >"$box/bin/mpicc"
chmod +x "$box/bin/mpicc"
shared=$(dirname "$box"/usr/lib/*/libmpich.so)
export MPICC=$box/bin/mpicc SEGDIST_MPIRUN=$box/usr/bin/mpiexec.hydra CARGO_TARGET_DIR=target/mpich
export LD_LIBRARY_PATH=$shared:$box/lib/$(basename "$shared")${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-2}

start=$SECONDS
# Dependencies that know nothing of MPI are those of the release build.
if [ ! -d target/mpich/release ] && [ -d target/release/deps ]; then
    mkdir -p target/mpich/seed/deps
    cp -a --reflink=auto target/release/{build,.fingerprint} target/mpich/seed/
    find target/release/deps -maxdepth 1 -name '*.*' -exec cp -a --reflink=auto -t target/mpich/seed/deps {} +
    rm -rf target/mpich/seed/.fingerprint/{mpi,mpi-sys,segdist}-*
    mv target/mpich/seed target/mpich/release
fi
cargo test --release --no-run "${wanted[@]}" || fail "segdist does not build"
# The program has the library that it was to have, and its ranks find each other.
OMP_NUM_THREADS=1 "$SEGDIST_MPIRUN" -np 2 target/mpich/release/segdist doctor | tee target/mpich/doctor.txt
grep -q 'MPICH' target/mpich/doctor.txt || fail "the program was built with another MPI"
say "built in $((SECONDS - start)) s"

start=$SECONDS log=target/mpich/test.log
cargo test --release --no-fail-fast "${wanted[@]}" 2>&1 | tee "$log"
status=${PIPESTATUS[0]}
read -r passed failed < <(awk '/^test result:/ { passed += $4; failed += $6 } END { print passed + 0, failed + 0 }' "$log")
say "tested in $((SECONDS - start)) s"
[ "$status" = 0 ] || { say "$failed of $((passed + failed)) tests failed"; exit 1; }
say "PASSED: $passed tests"

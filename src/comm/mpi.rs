//! MPI processes as ranks.

/* What MPI defines as macros, which bindgen cannot see. */
#include <mpi.h>

void *segdist_mpi_in_place(void) { return MPI_IN_PLACE; }

/* The class of errors that a rank's death causes; -1 where this MPI knows none. */
int segdist_mpi_err_proc_failed(void) {
#if defined(MPI_ERR_PROC_FAILED)
    return MPI_ERR_PROC_FAILED;
#elif defined(MPIX_ERR_PROC_FAILED)
    return MPIX_ERR_PROC_FAILED;
#else
    return -1;
#endif
}

/* What MPI defines as macros, which bindgen cannot see. */
#include <mpi.h>

void *segdist_mpi_in_place(void) { return MPI_IN_PLACE; }

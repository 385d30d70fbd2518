/* shrink.h: who of an MPI communicator's ranks is still there. */
#ifndef GS_TRANSPORT_SHRINK_H
#define GS_TRANSPORT_SHRINK_H

#include "../core.h"

#include <mpi.h>

/* *survivors = a communicator of the ranks of `comm` that call this too, each within `timeoutMs` of the others. `attempt`: how often this
 * has been called on `comm` before, alike on all survivors. */
gsResult_t gsMpiShrink(MPI_Comm comm, int attempt, int64_t timeoutMs, MPI_Comm *survivors);

#endif

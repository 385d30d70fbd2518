/* MPI processes: what a communicator says of itself. */
#ifndef GS_TESTS_PROCESSES_H
#define GS_TESTS_PROCESSES_H

#include <mpi.h>

namespace gst
{

inline int rankOf(MPI_Comm comm)
{
    int rank = 0;
    MPI_Comm_rank(comm, &rank);
    return rank;
}

inline int sizeOf(MPI_Comm comm)
{
    int ranks = 0;
    MPI_Comm_size(comm, &ranks);
    return ranks;
}

} // namespace gst
#endif

/* mpi.c: ranks as MPI processes, by what gradsieve's package says alone. Fails unless they sum. */
#include <gradsieve.h>
#include <mpi.h>

static int sums(gsComm_t comm, int nranks)
{
    gsReducerConfig_t config = GS_REDUCER_CONFIG_INIT;
    gsReducer_t reducer = NULL;
    float ones[3] = {1, 1, 1};
    config.count = 3;
    if (gsReducerCreate(&reducer, comm, &config) != GS_SUCCESS)
        return 0;
    gsResult_t result = gsAllReduce(ones, ones, 3, GS_FLOAT32, GS_SUM, reducer, NULL);
    return gsReducerDestroy(reducer) == GS_SUCCESS && result == GS_SUCCESS && ones[2] == (float)nranks;
}

int main(int argc, char **argv)
{
    gsComm_t comm = NULL;
    MPI_Comm world = MPI_COMM_WORLD;
    int nranks = 0;
    MPI_Init(&argc, &argv);
    MPI_Comm_size(world, &nranks);
    int right = gsCommInitMpi(&comm, &world, NULL) == GS_SUCCESS && sums(comm, nranks);
    right = gsCommDestroy(comm) == GS_SUCCESS && right;
    MPI_Finalize();
    return !right;
}

/* ranks.c: starting ranks, letting them meet, and ending them. */
#include "ranks.h"

#include "failure.h"
#include "options.h"

#include <errno.h> /* program_invocation_short_name */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef GS_HAVE_MPI
#include <mpi.h>

static void startMpi(ranks_t *ranks)
{
    int level;
    MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &level); /* streams call from threads of their own */
    MPI_Comm_size(MPI_COMM_WORLD, &ranks->count);
    MPI_Comm_rank(MPI_COMM_WORLD, &ranks->first);
    ranks->local = 1;
    ranks->mpi = true;
}

static gsResult_t connectMpi(ranks_t *ranks)
{
    MPI_Comm world = MPI_COMM_WORLD;
    return gsCommInitMpi(ranks->comms, &world, NULL);
}

static int smallestMpi(int mine)
{
    int smallest;
    MPI_Allreduce(&mine, &smallest, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
    return smallest;
}

static void gatherMpi(const void *mine, size_t bytes, void *all)
{
    MPI_Allgather(mine, (int)bytes, MPI_BYTE, all, (int)bytes, MPI_BYTE, MPI_COMM_WORLD);
}

static void stopMpi(void)
{
    MPI_Finalize();
}
#else
/* `mpi` stays false, so that ranksCheck refuses and none of the others is reached. */
static void startMpi(ranks_t *ranks)
{
    ranks->count = ranks->local = 1;
}

static gsResult_t connectMpi(ranks_t *ranks)
{
    return ranks->mpi ? GS_ERROR_UNSUPPORTED : GS_ERROR_INVALID_USAGE;
}

static int smallestMpi(int mine)
{
    return mine;
}

static void gatherMpi(const void *mine, size_t bytes, void *all)
{
    memcpy(all, mine, bytes);
}

static void stopMpi(void)
{
}
#endif

bool ranksUnderMpi(void)
{
    return getenv("OMPI_COMM_WORLD_SIZE") || getenv("PMI_SIZE") || getenv("PMIX_RANK");
}

void ranksStart(ranks_t *ranks, int transport, int wanted)
{
    *ranks = (ranks_t){0};
    if (transport == TRANSPORT_MPI)
        startMpi(ranks);
    else
        ranks->count = ranks->local = wanted ? wanted : RANKS_DEFAULT;
}

bool ranksCheck(const ranks_t *ranks, int transport, int wanted)
{
    if (transport == TRANSPORT_MPI && !ranks->mpi)
        return fail("--transport: mpi, the default under mpirun, but this program was built without MPI");
    if (wanted && wanted != ranks->count)
        return fail("--ranks: got %d, expected mpirun's %d, or no --ranks", wanted, ranks->count);
    return true;
}

bool ranksConnect(ranks_t *ranks)
{
    pthread_barrier_init(&ranks->barrier, NULL, (unsigned)ranks->local);
    ranks->comms = calloc((size_t)ranks->local, sizeof *ranks->comms);
    ranks->shared = malloc((size_t)ranks->count * RANKS_SHARE_BYTES);
    if (!ranks->comms || !ranks->shared)
        return fail("no memory for %d ranks", ranks->count);
    gsResult_t made = ranks->mpi ? connectMpi(ranks) : gsCommInitAll(ranks->comms, ranks->count, NULL);
    return made == GS_SUCCESS || fail("%d ranks cannot be connected: %s", ranks->count, gsGetLastError());
}

void ranksStop(ranks_t *ranks)
{
    for (int r = 0; ranks->comms && r < ranks->local; r++)
        gsCommDestroy(ranks->comms[r]);
    free(ranks->comms);
    free(ranks->shared);
    if (ranks->mpi)
        stopMpi();
}

bool ranksAgree(ranks_t *ranks, bool done)
{
    int failed = done ? INT_MAX : ranks->first;
    if (ranks->mpi)
        failed = smallestMpi(failed);
    if (failed == ranks->first)
        fprintf(stderr, "%s: %s\n", program_invocation_short_name, failureText());
    return failed == INT_MAX;
}

typedef struct {
    rank_t rank;
    void (*body)(const rank_t *rank, void *context);
    void *context;
    pthread_t thread;
} worker_t;

static void *runWorker(void *argument)
{
    worker_t *worker = argument;
    worker->body(&worker->rank, worker->context);
    return NULL;
}

void ranksRun(ranks_t *ranks, void (*body)(const rank_t *rank, void *context), void *context)
{
    worker_t workers[ranks->local];
    for (int r = 0; r < ranks->local; r++)
        workers[r] = (worker_t){{ranks, ranks->first + r, ranks->comms[r]}, body, context, pthread_self()};
    for (int r = 1; r < ranks->local; r++)
        if (pthread_create(&workers[r].thread, NULL, runWorker, &workers[r])) {
            fprintf(stderr, "%s: the system gives no thread for rank %d of %d\n", program_invocation_short_name, r,
                    ranks->count);
            exit(1); /* the ranks that run already wait for this one */
        }
    runWorker(&workers[0]); /* here, so that MPI is called from the thread that started it */
    for (int r = 1; r < ranks->local; r++)
        pthread_join(workers[r].thread, NULL);
}

const void *ranksShare(const rank_t *rank, const void *mine, size_t bytes)
{
    ranks_t *ranks = rank->ranks;
    if (ranks->mpi) {
        gatherMpi(mine, bytes, ranks->shared);
        return ranks->shared;
    }
    pthread_barrier_wait(&ranks->barrier); /* nobody reads the last share any more */
    memcpy(ranks->shared + (size_t)rank->number * bytes, mine, bytes);
    pthread_barrier_wait(&ranks->barrier);
    return ranks->shared;
}

/* ranks.h: the ranks of a training job, as threads of this process or as MPI processes. */
#ifndef TRAIN_RANKS_H
#define TRAIN_RANKS_H

#include "gradsieve.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

enum { RANKS_DEFAULT = 4, RANKS_SHARE_BYTES = 512 };

typedef struct {
    int count;
    int first; /* number of this process's first rank */
    int local; /* ranks in this process */
    bool mpi;  /* one rank a process */
    gsComm_t *comms;
    unsigned char *shared; /* what ranksShare has gathered */
    pthread_barrier_t barrier;
} ranks_t;

typedef struct {
    ranks_t *ranks;
    int number;
    gsComm_t comm;
} rank_t;

/* Whether this process was started by Open MPI, MPICH or one of Slurm's MPI plugins, by what they tell it. */
bool ranksUnderMpi(void);

/* transport: TRANSPORT_*. wanted: the number of ranks, 0 for the default. */
void ranksStart(ranks_t *ranks, int transport, int wanted);
void ranksStop(ranks_t *ranks);

/* False, with a failure text, where ranksStart could not give what was wanted. */
bool ranksCheck(const ranks_t *ranks, int transport, int wanted);

/* Makes the communicators. */
bool ranksConnect(ranks_t *ranks);

/* True if `done` on every process; otherwise the first process that failed prints its failure text. */
bool ranksAgree(ranks_t *ranks, bool done);

/* Runs the body once for each rank of this process, and returns when all have returned. */
void ranksRun(ranks_t *ranks, void (*body)(const rank_t *rank, void *context), void *context);

/* Every rank gives `bytes` bytes, up to RANKS_SHARE_BYTES, and sees those of all ranks, in order, until the next call. */
const void *ranksShare(const rank_t *rank, const void *mine, size_t bytes);

/* The one rank of each process that writes what the process's ranks have in common. */
static inline bool rankLeads(const rank_t *rank)
{
    return rank->number == rank->ranks->first;
}

/* The rank 0 of the job is here: this process prints and writes files. */
static inline bool ranksAreRoot(const ranks_t *ranks)
{
    return ranks->first == 0;
}

#endif

/*
 * gradsieve: data-parallel training that sends less.
 *
 * A call of gsAllReduce takes the place of ncclAllReduce on a gradient. The gradient is compared with what this rank still
 * owes its peers, most coordinates are dropped, and only a packed sparse record travels. All ranks end with the same bits.
 *
 * C99; needs neither cuda.h nor nccl.h nor mpi.h. The stable part comes first; the advanced part, at the end, is there
 * only where GS_ADVANCED is defined before inclusion.
 *
 * Libraries:  libgradsieve        everything but the functions below; CPU ranks as threads of one process
 *             libgradsieve_mpi    gsCommInitMpi
 *             libgradsieve_cuda   gsCommInitStagesCuda
 *             libgradsieve_nccl   gsCommInitNccl
 *
 * Rules that hold for every function
 *   Results   Every function returns a gsResult_t, except those that only read a constant. After an error,
 *             gsGetLastError() tells this thread the value that was wrong and what was expected. The library never
 *             prints (unless GS_DEBUG asks for it), aborts or exits.
 *   Threads   One thread at a time per communicator and per reducer. Different communicators are independent, and so are
 *             reducers of different communicators.
 *   Memory    Gradients live where the communicator computes: host memory for threads and MPI, device memory of the
 *             current device for NCCL and CUDA. Pointers need the alignment of their element type, no more.
 *   Streams   gsStream_t is a cudaStream_t on CUDA communicators: calls enqueue and return, without allocation,
 *             synchronisation or a host read, and may be captured into a CUDA graph. On the CPU a NULL stream makes a call
 *             synchronous, and a stream of gsStreamCreate makes it return at once; its error then comes from
 *             gsStreamSynchronize.
 */
#ifndef GRADSIEVE_H
#define GRADSIEVE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define GS_API __attribute__((visibility("default")))
#else
#define GS_API
#endif

#define GS_MAJOR 0
#define GS_MINOR 1
#define GS_PATCH 0
#define GS_VERSION(major, minor, patch) ((major)*10000 + (minor)*100 + (patch))
#define GS_VERSION_CODE GS_VERSION(GS_MAJOR, GS_MINOR, GS_PATCH)

/* ---- results ------------------------------------------------------------------------------------------------------ */

typedef enum {
    GS_SUCCESS = 0,
    GS_ERROR_INVALID_ARGUMENT = 1, /* null, a wrong count or type, a value out of its range */
    GS_ERROR_INVALID_RECIPE = 2, /* the text names the position of what cannot be read, or why the recipe cannot work */
    GS_ERROR_INVALID_USAGE = 3,  /* calls in an order that makes no sense, or on an object that has failed for good */
    GS_ERROR_OUT_OF_MEMORY = 4,
    GS_ERROR_MISMATCH = 5,     /* ranks disagree: recipe, count, type, seed, step */
    GS_ERROR_CORRUPT = 6,      /* bytes that are no valid record or no valid state */
    GS_ERROR_TIMEOUT = 7,      /* a rank did not arrive before the communicator's deadline */
    GS_ERROR_ABORTED = 8,      /* gsCommAbort was called */
    GS_ERROR_TRANSPORT = 9,    /* MPI or NCCL reported an error */
    GS_ERROR_DEVICE = 10,      /* CUDA reported an error */
    GS_ERROR_UNSUPPORTED = 11, /* valid, but not on this build, type or communicator */
    GS_ERROR_SYSTEM = 12       /* the operating system reported an error */
} gsResult_t;

GS_API const char *gsGetErrorString(gsResult_t result); /* a constant; never NULL */
GS_API const char *gsGetLastError(void);                /* of this thread, until its next failing call; never NULL */
GS_API gsResult_t gsGetVersion(int *version);           /* GS_VERSION_CODE of the library that is loaded */

/* ---- types: NCCL's values ------------------------------------------------------------------------------------------ */

typedef enum {
    GS_FLOAT16 = 6, /* not yet implemented: GS_ERROR_UNSUPPORTED */
    GS_FLOAT32 = 7,
    GS_FLOAT64 = 8, /* not yet implemented: GS_ERROR_UNSUPPORTED */
    GS_BFLOAT16 = 9
} gsDataType_t;

typedef enum {
    GS_SUM = 0,
    GS_AVG = 4 /* the sum times fl(1/ranks) */
} gsRedOp_t;

typedef struct gsComm *gsComm_t;
typedef struct gsReducer *gsReducer_t;
typedef void *gsStream_t; /* a cudaStream_t on CUDA communicators; otherwise NULL or made by gsStreamCreate */

/* ---- communicators ------------------------------------------------------------------------------------------------- */

typedef struct {
    size_t size;      /* sizeof(gsCommConfig_t) */
    uint32_t version; /* GS_VERSION_CODE */
    int32_t
        timeoutMs; /* deadline of every exchange, in milliseconds; 0: the environment's GS_TIMEOUT_MS, else 600000 */
} gsCommConfig_t;
#define GS_COMM_CONFIG_INIT                        \
    {                                              \
        sizeof(gsCommConfig_t), GS_VERSION_CODE, 0 \
    }

/* Ranks as threads of this process. Makes `nranks` (1..1024) communicators; each thread then uses its own. config may be
 * NULL. A rank that meets the deadline fails the exchange for all: each rank sees GS_ERROR_TIMEOUT once, with its state
 * untouched, and the call can be made again. */
GS_API gsResult_t gsCommInitAll(gsComm_t *comms, int nranks, const gsCommConfig_t *config);

/* Ranks as processes. mpiComm points to an MPI_Comm, which is duplicated (collective). After a deadline the communicator
 * has failed for good: destroy it, make another, import the states. MPI must have been initialised; with less than
 * MPI_THREAD_SERIALIZED all calls come from the main thread, and CPU streams cannot be used. In libgradsieve_mpi. */
GS_API gsResult_t gsCommInitMpi(gsComm_t *comm, const void *mpiComm, const gsCommConfig_t *config);

/* Ranks as NCCL ranks. ncclComm is the ncclComm_t itself; it stays the caller's and must outlive the communicator. Records
 * travel on the stream of the call, in the order of the calls, like any NCCL call, but not inside ncclGroupStart and
 * ncclGroupEnd. The communicator's device must be current. The deadline is watched by gsCommSynchronize. In
 * libgradsieve_nccl. */
GS_API gsResult_t gsCommInitNccl(gsComm_t *comm, void *ncclComm, const gsCommConfig_t *config);

GS_API gsResult_t gsCommCount(gsComm_t comm, int *nranks);
GS_API gsResult_t gsCommUserRank(gsComm_t comm, int *rank);

/* Waits for the work on `stream` (of this communicator's kind) and returns its first error. Past the deadline the
 * communicator is aborted and GS_ERROR_TIMEOUT returned. Synchronises. */
GS_API gsResult_t gsCommSynchronize(gsComm_t comm, gsStream_t stream);

/* GS_SUCCESS, or the error that has failed this communicator. Never blocks. */
GS_API gsResult_t gsCommGetAsyncError(gsComm_t comm, gsResult_t *asyncError);

/* Ends this rank's wait in an exchange (GS_ERROR_ABORTED) and fails the communicator for good. May be called from any thread.
 * Threads: every rank is woken. MPI: the peers end at their own deadline. NCCL: the ncclComm_t is aborted and gone, as after a
 * deadline or an error of NCCL; do not use or destroy it any more. Reducers keep their state, which can still be exported. */
GS_API gsResult_t gsCommAbort(gsComm_t comm);

/* After its reducers. NULL is allowed. */
GS_API gsResult_t gsCommDestroy(gsComm_t comm);

/* ---- ordered workers for the CPU ------------------------------------------------------------------------------------ */

/* A thread that runs calls in the order of their enqueuing. Buffers must stay valid until gsStreamSynchronize. */
GS_API gsResult_t gsStreamCreate(gsStream_t *stream);
GS_API gsResult_t gsStreamSynchronize(gsStream_t stream); /* the first error since the last synchronisation */
GS_API gsResult_t gsStreamDestroy(gsStream_t stream);     /* finishes what is enqueued; NULL is allowed */

/* ---- reducers ------------------------------------------------------------------------------------------------------- */

/*
 * A recipe is one line of text that names the whole pipeline: NAME or NAME:key=value,key=value
 *
 *   dense                    the plain sum, no state
 *   threshold                error feedback; coordinates with |g + e| > tau travel
 *       density=D            0 < D <= 1: tau follows this share of kept coordinates from step to step (default 0.01)
 *       tau=T                T >= 0: a fixed tau instead; give `capacity` with it
 *   chunk-topk               error feedback; the k largest of every 4096 coordinates travel, ties to the lower index
 *       k=K                  1..4096 (default 64)
 *   gspar                    unbiased, no feedback: coordinate i travels with probability min(s|g_i|, 1) as g_i/p_i
 *       density=D            expected share (default 0.05). Wangni, Wang, Liu, Zhang, "Gradient Sparsification for
 *                            Communication-Efficient Distributed Optimization", NeurIPS 2018, Algorithm 3
 *   randk                    unbiased, no feedback: uniform probability D; the mask comes from the seed, no index travels
 *       density=D            (default 0.01)
 *   for all but dense:
 *       value=f32|bf16       how a value travels (default bf16). With feedback the rounding stays in the residual; without
 *                            it bf16 rounds stochastically, so that the mean is kept
 *       value=shared         gspar only: values with p < 1 share one magnitude and travel as a sign bit
 *   for threshold, gspar and randk:
 *       capacity=C           0 < C <= 1: the share of coordinates that a record has room for. Default: 1.25 D plus six
 *                            standard deviations, sqrt(D/count) each. With feedback, what does not fit stays in the
 *                            residual; without, the kept are thinned to the capacity and scaled up, unbiased still
 */

typedef struct {
    size_t size;           /* sizeof(gsReducerConfig_t) */
    uint32_t version;      /* GS_VERSION_CODE */
    gsDataType_t datatype; /* of the gradient; alike on all ranks */
    const char *recipe;    /* see above; copied; alike on all ranks */
    uint64_t count;        /* elements of the gradient, from 0; alike on all ranks */
    uint64_t seed;         /* of every random draw; alike on all ranks (the rank enters the draws by itself) */
    int32_t cpuThreads;    /* CPU: threads of one call; 0: processors by local ranks, fewer for small counts */
    int32_t reserved;      /* 0 */
    void *(*allocate)(size_t bytes, void *context); /* NULL: the library's own. Memory of the communicator's kind, */
    void (*release)(void *pointer, void *context);  /* aligned to 256 bytes. Called at creation and destruction only */
    void *allocatorContext;
} gsReducerConfig_t;
#define GS_REDUCER_CONFIG_INIT                                                                        \
    {                                                                                                 \
        sizeof(gsReducerConfig_t), GS_VERSION_CODE, GS_FLOAT32, "dense", 0, 0, 0, 0, NULL, NULL, NULL \
    }

typedef struct {
    uint64_t stateBytes;   /* what lives from call to call: residuals, twice, for recipes with feedback */
    uint64_t wireBytes;    /* own record and all ranks' records */
    uint64_t scratchBytes; /* kept bits, block counts and sums */
} gsMemory_t;

/* Bytes that gsReducerCreate will ask for, without making anything. */
GS_API gsResult_t gsReducerGetMemory(const gsReducerConfig_t *config, int nranks, gsMemory_t *memory);

/* Collective: ranks whose configurations differ all get GS_ERROR_MISMATCH. Synchronises. */
GS_API gsResult_t gsReducerCreate(gsReducer_t *reducer, gsComm_t comm, const gsReducerConfig_t *config);
GS_API gsResult_t gsReducerDestroy(gsReducer_t reducer); /* NULL is allowed; synchronises */

/*
 * recvbuff = op over ranks of what their recipe lets through of sendbuff. count and datatype must be the reducer's.
 * In place if sendbuff == recvbuff; otherwise sendbuff is not modified and the two must not overlap. Every rank calls, in the
 * same order on each communicator and with the same op.
 *
 * Non-finite input: a NaN or Inf on one rank makes every element of recvbuff NaN on all ranks and changes no state. (A sum of
 * finite values that overflows is Inf in that element; `dense`, which cannot tell the two apart, makes it NaN everywhere.)
 * Failure: on an error, recvbuff and every state stay as they were, and the call can be made again. On CUDA, an error found
 * on the device is sticky: later calls change nothing until gsReducerGetAsyncError has told it.
 */
GS_API gsResult_t gsAllReduce(const void *sendbuff, void *recvbuff, size_t count, gsDataType_t datatype, gsRedOp_t op,
                              gsReducer_t reducer, gsStream_t stream);

/* Back to the state after creation: residual 0, step 0, no error. Statistics stay. Every rank calls it. */
GS_API gsResult_t gsReducerReset(gsReducer_t reducer, gsStream_t stream);

/* A loss scale that changed by `factor` (finite, > 0): the residual and tau are in gradient units and are multiplied by it, a
 * fixed tau too (until gsReducerReset). Not between gsEncode and gsDecode. */
GS_API gsResult_t gsReducerScale(gsReducer_t reducer, float factor, gsStream_t stream);

/* The error that an enqueued call has met on a device, which this call then clears; GS_SUCCESS if none. Synchronises. */
GS_API gsResult_t gsReducerGetAsyncError(gsReducer_t reducer, gsResult_t *asyncError);

typedef struct {
    uint64_t calls;      /* exchanges that ended well, non-finite ones included */
    uint64_t compressed; /* of these: sparse records travelled */
    uint64_t dense;      /* of these: the dense sum, by recipe */
    uint64_t bypassed;   /* of these: the dense sum, because GS_DISABLE is set */
    uint64_t nonFinite;  /* of these: NaN on all ranks */
    uint64_t thinned;    /* own record did not fit and was thinned (recipes without feedback) */
    uint64_t overflowed; /* own record did not fit, the rest stayed in the residual (recipes with feedback) */
    uint64_t failed;     /* calls that ended with an error */
    uint64_t lastKept;   /* coordinates selected by the last call on this rank, before the capacity was applied */
    uint64_t lastSent;   /* coordinates in its record */
    uint64_t keptTotal;  /* sums over the calls */
    uint64_t sentTotal;
    uint64_t payloadBytes;  /* sum of own records' lengths; dense: of the gradient's */
    uint64_t wireBytes;     /* bytes that left this rank: (P-1) slots a call, dense 2(P-1)/P of the gradient */
    double encodeSeconds;   /* CPU only: wall time in select and pack */
    double exchangeSeconds; /* CPU only: waiting for the other ranks included */
    double decodeSeconds;   /* CPU only */
    float tau;              /* threshold: the next call's; 0 while unknown */
    uint32_t reserved;
} gsStats_t;

/* Synchronises with the device. */
GS_API gsResult_t gsReducerGetStats(gsReducer_t reducer, gsStats_t *stats);

/* The state of this rank (residual, step, threshold), versioned and checksummed, in host memory. With buffer NULL only
 * *bytes is set; otherwise *bytes is the buffer's room and becomes what was written. Import refuses a state of another
 * recipe, count, type, seed, rank or number of ranks. Both synchronise. */
GS_API gsResult_t gsReducerExport(gsReducer_t reducer, void *buffer, size_t *bytes);
GS_API gsResult_t gsReducerImport(gsReducer_t reducer, const void *buffer, size_t bytes);

/* ---- advanced: single stages, for those who bring their own transport ------------------------------------------------ */
#ifdef GS_ADVANCED

/* A communicator that is rank `rank` of `nranks` and moves nothing itself: its reducers take gsEncode and gsDecode, not
 * gsAllReduce. The caller answers for equal configurations on all ranks; gsDecode checks them. */
GS_API gsResult_t gsCommInitStages(gsComm_t *comm, int rank, int nranks, const gsCommConfig_t *config);
GS_API gsResult_t gsCommInitStagesCuda(gsComm_t *comm, int rank, int nranks, const gsCommConfig_t *config);

/* Room that a record needs, a multiple of 16: the slot of `capacity` mode. 0 for dense. */
GS_API gsResult_t gsReducerGetSlotBytes(gsReducer_t reducer, size_t *slotBytes);

/* Writes this rank's record of this step into `record` (one slot, aligned to 16, in the memory of the communicator's kind).
 * Changes no state: a second gsEncode of the same step gives the same bytes. */
GS_API gsResult_t gsEncode(const void *sendbuff, void *record, size_t count, gsDataType_t datatype, gsReducer_t reducer,
                           gsStream_t stream);

/* Sums the records of all ranks (nranks slots in rank order, aligned to 16) into recvbuff and commits this rank's state.
 * Must follow the gsEncode of the same step. Records are checked first, whole, and may hold any bytes. */
GS_API gsResult_t gsDecode(const void *records, void *recvbuff, size_t count, gsDataType_t datatype, gsRedOp_t op,
                           gsReducer_t reducer, gsStream_t stream);

typedef struct {
    uint32_t rank;
    uint32_t flags; /* GS_RECORD_* */
    uint64_t step;
    uint64_t count;
    uint64_t kept;
    uint64_t configHash;
    uint64_t recordBytes;
    uint64_t indexBytes; /* tables and indices, padding left out */
    uint64_t valueBytes; /* padding left out */
    const char *layout;  /* "global", "chunked", "mask" */
    const char *value;   /* "f32", "bf16", "shared" */
} gsRecordInfo_t;
#define GS_RECORD_SKIP 1u        /* reserved: a rank that sends nothing */
#define GS_RECORD_NONFINITE 2u   /* NaN or Inf in this rank's input */
#define GS_RECORD_THINNED 4u     /* more was kept than fitted; unbiased thinning was applied */
#define GS_RECORD_DENSE 8u       /* reserved: values of all coordinates */
#define GS_RECORD_OVERFLOWED 16u /* more was kept than fitted; the rest stayed in the residual */
#define GS_RECORD_AVERAGE 32u    /* made by a gsAllReduce with GS_AVG */

/* Reads a record in host memory: `bytes` are there, any of them may be wrong. Checks everything but the configuration. */
GS_API gsResult_t gsRecordInspect(const void *record, size_t bytes, gsRecordInfo_t *info);

#endif /* GS_ADVANCED */

#ifdef __cplusplus
}
#endif
#endif /* GRADSIEVE_H */

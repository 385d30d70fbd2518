/*
 * The internal contract on one page: what a reducer holds, and the two operation tables behind it (backend, transport).
 * The POD structs (gsSpec, gsState) are seen by the C library and by the kernels alike; the rest is the host's.
 */
#ifndef GS_CORE_H
#define GS_CORE_H

#define GS_ADVANCED
#include "gradsieve.h"

#include "rules/call.h"
#include "rules/optimizer.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Exported for libgradsieve_cuda, _mpi and _nccl; not part of the public interface. */
#define GS_INTERNAL GS_API

/* ---- errors, log, environment (error.c, log.c, params.c) ------------------------------------------------------------- */

/* Remembers the text for gsGetLastError, logs it, and returns `result`. */
GS_INTERNAL gsResult_t gsFail(gsResult_t result, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define GS_CHECK(call)                     \
    do {                                   \
        gsResult_t gsCheckResult = (call); \
        if (gsCheckResult != GS_SUCCESS)   \
            return gsCheckResult;          \
    } while (0)

typedef enum { GS_LOG_NONE = 0, GS_LOG_WARN = 1, GS_LOG_INFO = 2, GS_LOG_TRACE = 3 } gsLogLevel;
GS_INTERNAL void gsLog(gsLogLevel level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The environment's value of a parameter in params.def; read when asked for, so that it may change between objects. */
GS_INTERNAL const char *gsParamText(const char *name, const char *fallback);
GS_INTERNAL gsResult_t gsParamInt(const char *name, int64_t low, int64_t high, int64_t fallback, int64_t *value);

/* ---- transport: moves bytes between ranks --------------------------------------------------------------------------- */

typedef struct gsTransport {
    const char *name;
    /* `bytes` from each rank to every rank: recv = ranks' bytes in rank order. send may be recv + rank * bytes. */
    gsResult_t (*allGather)(gsComm_t comm, const void *send, void *recv, size_t bytes, gsStream_t stream);
    /* The same where ranks' bytes differ, at most `slot`, and travel as they are: rank q's come to recv + q slot. NULL: not on
     * this transport. */
    gsResult_t (*allGatherExact)(gsComm_t comm, const void *send, size_t bytes, void *recv, size_t slot);
    /* Slice q of every rank's `send` to rank q: recv = slices in rank order, sliceBytes apart. A send of totalBytes has its
     * slices sliceBytes apart; the last ones may be short or empty. NULL where allReduce is not. */
    gsResult_t (*scatterSlices)(gsComm_t comm, const void *send, size_t totalBytes, void *recv, size_t sliceBytes,
                                gsStream_t stream);
    /* The transport's own dense sum; NULL where it has none and slices are summed by the backend. */
    gsResult_t (*allReduce)(gsComm_t comm, const void *send, void *recv, size_t count, gsDataType_t type, gsRedOp_t op,
                            gsStream_t stream);
    /* Small host buffers, synchronous, with the deadline: for creating reducers. */
    gsResult_t (*allGatherHost)(gsComm_t comm, const void *send, void *recv, size_t bytes); /* NULL: no comparison */
    gsResult_t (*synchronize)(gsComm_t comm, gsStream_t stream);
    gsResult_t (*asyncError)(gsComm_t comm);
    gsResult_t (*abort)(gsComm_t comm);
    void (*destroy)(gsComm_t comm); /* frees comm->impl */
} gsTransport;

struct gsComm {
    const gsTransport *transport;
    const struct gsBackend *backend;
    void *impl; /* the transport's */
    int rank, nranks;
    int localRanks; /* ranks that share this process's processors: for the default number of threads */
    int64_t timeoutMs;
    int reducers; /* alive: a communicator must outlive them */
};

/* comm.c. gsCommMake allocates and fills; the transport sets impl itself. */
GS_INTERNAL gsResult_t gsCommMake(gsComm_t *comm, const gsTransport *transport, const struct gsBackend *backend,
                                  int rank, int nranks, const gsCommConfig_t *config);
GS_INTERNAL gsResult_t gsCommConfigCheck(const gsCommConfig_t *config, int64_t *timeoutMs);
GS_INTERNAL extern const gsTransport gsNoTransport; /* gsCommInitStages: every exchange is a usage error */
extern const gsTransport gsSelfTransport;           /* transport/self.c: one rank */

/* ---- backend: computes -------------------------------------------------------------------------------------------------- */

/* Every stage enqueues on the stream (CPU: runs). The state's `call` carries results from stage to stage, on the device. */
typedef struct gsBackend {
    const char *name;
    int onDevice;                         /* calls are asynchronous: errors of decode are found later, in gsState */
    gsResult_t (*prepare)(gsReducer_t r); /* before a reducer's memory is allocated; NULL: nothing to do */
    gsResult_t (*allocate)(void **pointer, size_t bytes);
    void (*release)(void *pointer);
    gsResult_t (*put)(void *to, const void *hostFrom, size_t bytes, gsStream_t stream); /* synchronous */
    gsResult_t (*get)(void *hostTo, const void *from, size_t bytes, gsStream_t stream); /* synchronous */
    gsResult_t (*copy)(void *to, const void *from, size_t bytes, gsStream_t stream);
    gsResult_t (*fill)(void *pointer, int byte, size_t bytes, gsStream_t stream);

    /* gradient -> kept bits, block counts and offsets, state to be, and the plan of the record (gsState.call) */
    gsResult_t (*select)(gsReducer_t r, const void *sendbuff, gsStream_t stream);
    /* kept bits -> record; what was sent leaves the residual to be */
    gsResult_t (*pack)(gsReducer_t r, const void *sendbuff, void *record, gsStream_t stream);
    /* all records -> gsState.verdict; reads nothing beyond a slot, whatever the bytes */
    gsResult_t (*validate)(gsReducer_t r, const void *records, gsStream_t stream);
    /* all records -> sum in rank order -> recvbuff; NaN everywhere if a record says so; nothing after a bad verdict */
    gsResult_t (*accumulate)(gsReducer_t r, const void *records, void *recvbuff, gsRedOp_t op, gsStream_t stream);
    /* flips the phase and advances the step if the verdict allows; counts */
    gsResult_t (*commit)(gsReducer_t r, gsStream_t stream);

    /* a step that travels dense: gradient -> a, in `work`; and the sum of everybody's a -> result and memories */
    gsResult_t (*compare)(gsReducer_t r, const void *sendbuff, gsStream_t stream);
    gsResult_t (*accumulateDense)(gsReducer_t r, const void *sum, void *recvbuff, gsRedOp_t op, gsStream_t stream);
    /* what the server's trigger will say in the coming select; synchronous */
    gsResult_t (*wantsGradient)(gsReducer_t r, int *wants);

    /* dense: out[0..n) = op over ranks of slices (sliceElements apart); NULL where the transports have allReduce */
    gsResult_t (*sumSlices)(gsReducer_t r, gsDataType_t type, const void *slices, uint64_t sliceElements, void *out,
                            uint64_t n, gsRedOp_t op, gsStream_t stream);
    /* dense: sum -> recvbuff, NaN everywhere if one element is not finite; sets gsState.verdict */
    gsResult_t (*finishDense)(gsReducer_t r, const void *sum, void *recvbuff, gsStream_t stream);
    /* lists: addresses of tensors -> r->buffers, from the first on; wherever a stage above takes a gradient or a result, or a dense sum,
     * it then takes a part of that table */
    gsResult_t (*setTensors)(gsReducer_t r, void *const *tensors, uint32_t first, uint32_t n, gsStream_t stream);
    /* lists: the tensors of one table to those of another */
    gsResult_t (*gather)(gsReducer_t r, const void *from, void *to, gsStream_t stream);
    /* what the state holds in gradient units, and a remembered vector, times factor */
    gsResult_t (*scaleState)(gsReducer_t r, float factor, gsStream_t stream);
    gsResult_t (*scale)(gsReducer_t r, void *vector, float factor, gsStream_t stream);
    gsResult_t (*optimize)(const gsOptimizerCall *call, gsStream_t stream);
} gsBackend;

GS_INTERNAL extern const gsBackend gsCpuBackend;
GS_INTERNAL extern const gsBackend gsCudaBackend; /* in libgradsieve_cuda */

/* ---- the reducer -------------------------------------------------------------------------------------------------------- */

/* A list's call, also as it waits on a CPU stream. */
typedef struct {
    gsReducer_t reducer;
    gsRedOp_t op;
    void *tensors[]; /* all gradients, then all results */
} gsListCall;

/* A result, while results are compared with each other. */
typedef struct {
    uintptr_t begin, end;
    uint32_t tensor;
} gsListRange;

/* Rows of a list's `buffers`; the last two of a dense reducer. */
enum { GS_GRADIENTS = 0, GS_RESULTS = 1, GS_GATHERED = 2, GS_SUMS = 3 };

struct gsReducer {
    gsComm_t comm;
    gsSpec spec;
    int cpuThreads;
    const void *cpuStages; /* the instruction set's stages (cpu/) */
    int encoded;           /* gsEncode was called: gsDecode may follow */

    /* Memory of the backend's kind, one allocation each; vectors of the state's precision, whole blocks. NULL where the recipe has
     * no use for it. Of a pair [phase] is this call's and the other the next one's. */
    gsState *state;
    void *residual[2];       /* e */
    void *momentum[2];       /* u */
    void *previous[2];       /* the iterate of the last call */
    void *anchor;            /* the iterate of the last gradient sent */
    void *before[2];         /* the gradient of the last call */
    void *memory, *shared;   /* h; H, the sum of all ranks' h */
    void *pool[GS_MAX_POOL]; /* references that are vectors of their own */
    void *history;           /* [window]: the last results */
    void *work;              /* a, where no residual holds it */
    uint32_t *keptBits;      /* a bit an element, GS_BLOCK_WORDS words a block */
    uint32_t *blockKept;     /* [group][block]: kept coordinates of a block */
    uint32_t *blockOffset;   /* [group][block + 1]: kept coordinates before the block, at most 2^32 - 1 */
    double *blockSum;        /* [sum][block]: statistics; the tree folds in place */
    uint32_t *blockBelow;    /* [block]: gspar's count of coordinates with p < 1 */
    uint32_t *histogram;     /* GS_HISTOGRAM_BINS: threshold without a tau, topk */
    uint8_t *sendRecord;     /* one slot */
    uint8_t *recvRecords;    /* nranks slots; dense: slices, then sums */
    uint8_t *denseBuffer;    /* slices, then sums, of a */

    /* A list of tensors, in the backend's memory too. */
    gsListBlock *list;
    gsRecordSegment *entries;
    void **buffers;    /* [GS_GRADIENTS ..][tensor]: what a call reads and writes */
    uint8_t *gathered; /* dense: the gradients, one behind the other */
    /* And in host memory. */
    uint64_t *sizes; /* elements of each tensor */
    void **tensors;  /* a row of `buffers`, before it goes there */
    gsListCall *listCall;
    gsListRange *listRanges;

    const void *params, *xi, *stale; /* the caller's */
    gsReducer_t server; /* twoway: the second half, a reducer of one rank over the result; otherwise NULL */
    gsComm_t serverComm;
    const gsState
        *upstream;       /* of a second half: the first one's. Where that has failed, on a device, nothing may change */
    uint64_t steps;      /* committed, as the host knows */
    uint64_t exactBytes; /* left this rank in `exact` mode */
    uint64_t denseBytes; /* left this rank in dense steps */

    void *(*allocateBytes)(size_t bytes, void *context);
    void (*releaseBytes)(void *pointer, void *context);
    void *allocatorContext;

    gsStats_t stats; /* the host's part: seconds, failures; gsReducerGetStats adds gsState.counters */
};

/* recipe.c: text -> spec's recipe fields; type and count are there. Messages name the position of what is wrong. */
gsResult_t gsRecipeParse(const char *text, gsSpec *spec);
/* spec.c: configuration -> spec; of the second half of a two-way reducer too. */
gsResult_t gsSpecMake(const gsReducerConfig_t *config, int rank, int nranks, int secondHalf, gsSpec *spec);
/* list.c: a configuration's list of tensors: whether it makes sense, its sizes in the spec, its tables (in host memory). */
gsResult_t gsListCheck(const gsReducerConfig_t *config);
void gsListMeasure(const gsReducerConfig_t *config, gsSpec *spec);
uint64_t gsListFixed(const gsReducerConfig_t *config, uint32_t k); /* slots of layout "chunked" */
/* list.c: what a reducer of a list holds, once its memory is there; the host's part of it goes with gsListRelease. */
gsResult_t gsListPrepare(gsReducer_t r, const gsReducerConfig_t *config);
void gsListRelease(gsReducer_t r);
/* list.c: the tensors of a buffer in which they stand one behind the other, to r->tensors; results must not overlap. */
void gsListSpread(gsReducer_t r, const void *buffer);
gsResult_t gsListCheckResults(gsReducer_t r, void *const *recvbuffs);
/* configHash for any number of ranks. */
uint64_t gsRecipeHash(const gsSpec *spec);
/* exchange.c: own record -> all records; the dense sum; the sum of a vector of the state's precision, which *sum then points to. */
gsResult_t gsExchangeRecords(gsReducer_t r, gsStream_t stream);
gsResult_t gsExchangeDense(gsReducer_t r, const void *sendbuff, void *recvbuff, gsRedOp_t op, gsStream_t stream);
gsResult_t gsExchangeVector(gsReducer_t r, const void *vector, const void **sum, gsStream_t stream);
/* Where the dense exchange leaves the sum. */
uint8_t *gsDenseSums(gsReducer_t r);
/* reducer.c: every vector that lives from call to call, with the name that gsReducerRead knows it by. A pair counts as one: the
 * current one of the two. */
typedef struct {
    const char *name;
    void *const *place; /* one pointer, or the first of a pair */
    int pair;
    int ranks;  /* 0: alike on all ranks; 1: this rank's own, additive */
    int degree; /* of the gradient's unit: 1, or 0 for iterates */
    uint64_t elements;
} gsStateVector;
enum { GS_MAX_VECTORS = 16 };
int gsListVectors(gsReducer_t r, gsStateVector list[GS_MAX_VECTORS]);
void *gsVectorNow(const gsStateVector *v, uint32_t phase);
/* stream.c: runs `task` later on the stream's worker, with a copy of `arguments`. */
typedef gsResult_t (*gsTask)(void *arguments);
gsResult_t gsStreamPush(gsStream_t stream, gsTask task, const void *arguments, size_t bytes);

/* error.c: the state's fault as an error with its text, GS_SUCCESS for none; and what a GS_FAULT_ means. */
GS_INTERNAL gsResult_t gsVerdictError(const gsState *state);
GS_INTERNAL const char *gsFaultText(uint32_t fault);

static inline size_t gsRealBytes(const gsSpec *spec)
{
    return spec->wide ? 8 : 4;
}

static inline gsDataType_t gsRealType(const gsSpec *spec)
{
    return spec->wide ? GS_FLOAT64 : GS_FLOAT32;
}

/* Steps that travel dense, by the recipe. */
static inline int gsHasDenseSteps(const gsSpec *spec)
{
    return spec->firstDense || spec->refresh || spec->resync;
}

/* Elements of a rank's slice of `count`; the last slices may be short or empty. */
static inline uint64_t gsSliceElements(const gsSpec *spec, uint64_t count)
{
    return (count + spec->nranks - 1) / spec->nranks;
}

static inline size_t gsTypeBytes(gsDataType_t type)
{
    return gsTypeWidth(type);
}

static inline int gsIsFloating(gsDataType_t type)
{
    return type == GS_FLOAT16 || type == GS_FLOAT32 || type == GS_FLOAT64 || type == GS_BFLOAT16;
}

#ifdef __cplusplus
}
#endif
#endif

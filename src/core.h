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
#include "rules/seal.h"

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
    /* The same where ranks' bytes differ, at most `slot`, and travel as they are: rank q's come to recv + q slot. On devices the
     * host reads the lengths: the stream is waited for, within the deadline, and cannot be captured. */
    gsResult_t (*allGatherExact)(gsComm_t comm, const void *send, size_t bytes, void *recv, size_t slot,
                                 gsStream_t stream);
    /* Part q of every rank, the first bytes[q] at send + q slot, to rank q: rank r's comes to recv + r slot. Waits as
     * allGatherExact does. */
    gsResult_t (*allToAllExact)(gsComm_t comm, const void *send, const size_t *bytes, void *recv, size_t slot,
                                gsStream_t stream);
    /* Slice q of every rank's `send` to rank q: recv = slices in rank order, sliceBytes apart. A send of totalBytes has its
     * slices sliceBytes apart; the last ones may be short or empty. */
    gsResult_t (*scatterSlices)(gsComm_t comm, const void *send, size_t totalBytes, void *recv, size_t sliceBytes,
                                gsStream_t stream);
    /* The transport's own dense sum, and slice `rank` of it, countPerRank elements; NULL where slices are summed by the backend. */
    gsResult_t (*allReduce)(gsComm_t comm, const void *send, void *recv, size_t count, gsDataType_t type, gsRedOp_t op,
                            gsStream_t stream);
    gsResult_t (*reduceScatter)(gsComm_t comm, const void *send, void *recv, size_t countPerRank, gsDataType_t type,
                                gsRedOp_t op, gsStream_t stream);
    /* Small host buffers, synchronous, with the deadline: for creating reducers. */
    gsResult_t (*allGatherHost)(gsComm_t comm, const void *send, void *recv, size_t bytes); /* NULL: no comparison */
    /* Collective: *part has the ranks that name this color (0 or more), in the order of key and rank. Exchanges of parts are made by all
     * ranks of `comm` together, each on its own part: so a deadline, a mismatch or an abort is everyone's. A part lives as long as comm,
     * which ends it. NULL: this transport has no parts. */
    gsResult_t (*split)(gsComm_t comm, int color, int key, gsComm_t *part);
    gsResult_t (*synchronize)(gsComm_t comm, gsStream_t stream);
    gsResult_t (*asyncError)(gsComm_t comm);
    gsResult_t (*abort)(gsComm_t comm);
    void (*destroy)(gsComm_t comm); /* frees comm->impl and that of its parts */
} gsTransport;

enum { GS_MAX_COMM_NAME = 63 };

struct gsComm {
    const gsTransport *transport;
    const struct gsBackend *backend;
    void *impl; /* the transport's */
    int rank, nranks;
    char name[GS_MAX_COMM_NAME + 1]; /* for profilers */
    uint32_t made;                   /* reducers so far: the next one's number */
    int localRanks;                  /* ranks that share this process's processors: for the default number of threads */
    int64_t timeoutMs;
    int reducers;         /* alive: a communicator must outlive them */
    int ranksPerNode;     /* as configured; 0: ranks of equal `host` share a node */
    uint64_t host;        /* the transport's, of this rank */
    gsCluster_t known;    /* what exchange=auto need not measure */
    gsCluster_t measured; /* what it has, size 0: nothing yet; and its codec, for which recipe (measure.c) */
    uint32_t measuredFor;

    gsComm_t parts;        /* what it has been split into, the newest first; */
    gsComm_t node, across; /* of these: this rank's node, and the ranks of its place on all nodes (hierarchy.c) */
    /* of a part; parent is NULL otherwise */
    gsComm_t parent, next;
    int *members; /* by rank: the parent's ranks */
    int split, color;
};

/* What a configuration says, defaults filled in. */
typedef struct {
    int64_t timeoutMs, ranksPerNode;
    gsCluster_t known;
    const char *name; /* NULL: the transport's */
} gsCommSettings;

/* comm.c. gsCommMake allocates and fills; the transport sets impl itself. */
GS_INTERNAL gsResult_t gsCommMake(gsComm_t *comm, const gsTransport *transport, const struct gsBackend *backend,
                                  int rank, int nranks, const gsCommConfig_t *config);
/* split.c: the same for gsTransport.split; collective. */
GS_INTERNAL gsResult_t gsCommMakePart(gsComm_t parent, int color, int key, gsComm_t *part);
void gsCommFreeParts(gsComm_t parent);
GS_INTERNAL gsResult_t gsCommConfigCheck(const gsCommConfig_t *config, gsCommSettings *settings);
/* plan.c: refuses figures that no cluster has; ranks may be 0, not known yet. */
gsResult_t gsClusterCheck(const gsCluster_t *cluster);
/* nodes.c: collective. */
typedef struct {
    int nodes, node; /* how many, and this rank's */
    int ranks;       /* of this rank's node */
    int place;       /* of this rank among them */
    int even;        /* all nodes have as many */
    char sizes[80];  /* "4, 4, 3" */
} gsNodes;
GS_INTERNAL gsResult_t gsFindNodes(gsComm_t comm, gsNodes *nodes);
/* hierarchy.c: NULL, or why a recipe does not go with exchange=hierarchical on nodes of several ranks. */
const char *gsHierarchyRefusal(const gsSpec *s);
/* hierarchy.c: comm->node and comm->across, if they are not there yet; collective. */
gsResult_t gsCommDivide(gsComm_t comm, const gsNodes *nodes);
GS_INTERNAL extern const gsTransport gsNoTransport; /* gsCommInitStages: every exchange is a usage error */
extern const gsTransport gsSelfTransport;           /* transport/self.c: one rank */

/* ---- backend: computes -------------------------------------------------------------------------------------------------- */

/* exchange=hierarchical: the gradient is cut into as many slices as a node has ranks. */
typedef struct {
    int ranks;          /* of a node; 0: another mode */
    gsComm_t part;      /* of this node's ranks */
    uint64_t count;     /* elements of the gradient */
    uint64_t slice;     /* elements of a slice, whole blocks; the last ones may be short or empty */
    uint64_t slotBytes; /* a slice of the result, and GS_SEALS seals at the end */
    uint8_t *slots;     /* [ranks] */
    uint8_t *sum;       /* own slice of the node's sum */
    int32_t *members;   /* ranks of the reducer's communicator, by their numbers in the whole */
} gsHierarchy;

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

    /* owner (owner.c): select's plan, by parts; what came up in the own part's records -> the sum's state; the sum -> what its record is
     * made of; the sums' verdict -> the call's and its parts'; the two-way memories, once that is known */
    gsResult_t (*planParts)(gsReducer_t r, gsStream_t stream);
    gsResult_t (*handDown)(gsReducer_t r, gsStream_t stream);
    gsResult_t (*makeResult)(gsReducer_t r, gsRedOp_t op, gsStream_t stream);
    gsResult_t (*handBack)(gsReducer_t r, gsStream_t stream);
    gsResult_t (*rememberParts)(gsReducer_t r, gsStream_t stream);

    /* a step that travels dense: gradient -> a, in `work`; whether the sum of everybody's a can be used; that sum, or one that owners made
     * -> result and memories */
    gsResult_t (*compare)(gsReducer_t r, const void *sendbuff, gsStream_t stream);
    gsResult_t (*validateDense)(gsReducer_t r, const void *sum, gsStream_t stream);
    gsResult_t (*accumulateDense)(gsReducer_t r, const void *sum, void *recvbuff, gsRedOp_t op, gsStream_t stream);
    /* what the server's trigger will say in the coming select; synchronous */
    gsResult_t (*wantsGradient)(gsReducer_t r, int *wants);

    /* dense: out[0..n) = op over so many ranks of slices (sliceElements apart); NULL where the transports sum themselves */
    gsResult_t (*sumSlices)(gsReducer_t r, gsDataType_t type, const void *slices, uint32_t ranks,
                            uint64_t sliceElements, void *out, uint64_t n, gsRedOp_t op, gsStream_t stream);
    /* dense: sum -> recvbuff, NaN everywhere if one element is not finite; sets gsState.verdict */
    gsResult_t (*finishDense)(gsReducer_t r, const void *sum, void *recvbuff, gsStream_t stream);
    /* lists: addresses of tensors -> r->buffers, from the first on; wherever a stage above takes a gradient or a result, or a dense sum,
     * it then takes a part of that table */
    gsResult_t (*setTensors)(gsReducer_t r, void *const *tensors, uint32_t first, uint32_t n, gsStream_t stream);
    /* lists: the tensors of one table to those of another */
    gsResult_t (*gather)(gsReducer_t r, const void *from, void *to, gsStream_t stream);
    /* hierarchical: gsState.verdict -> the own slot's seal (ranks: gsSealOf's); all slots' seals -> gsState.verdict; slots -> recvbuff,
     * NaN everywhere if a seal says so, nothing after a bad verdict */
    gsResult_t (*seal)(gsReducer_t r, const int32_t *ranks, gsSeal *seal, gsStream_t stream);
    gsResult_t (*openSeals)(gsReducer_t r, const gsHierarchy *nodes, uint32_t half, gsStream_t stream);
    gsResult_t (*assemble)(gsReducer_t r, const gsHierarchy *nodes, void *recvbuff, gsStream_t stream);
    /* what the state holds in gradient units, and a remembered vector, times factor */
    gsResult_t (*scaleState)(gsReducer_t r, float factor, gsStream_t stream);
    gsResult_t (*scale)(gsReducer_t r, void *vector, float factor, gsStream_t stream);
    /* a step by a gradient that is there; and, for AdamW's by a result, what gsState.correct is in the coming step. Where accumulate,
     * accumulateDense, finishDense or assemble is given no recvbuff, the result is the gradient of r->optimizer's step */
    gsResult_t (*optimize)(const gsOptimizerCall *call, gsStream_t stream);
    gsResult_t (*countStep)(gsReducer_t r, const gsOptimizerCall *call, gsStream_t stream);
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

/* What a profiler is told of a reducer (range.c); all 0 where none listens. Strings are the tool's handles. */
typedef struct {
    int listens;
    void *communicator, *reducer;
    uint32_t rank, ranks;
} gsProfile;

/* What the host knows of a reducer's own record, and of which call's: on devices records are made behind its back. */
typedef enum { GS_KNOWN_CAPACITY, GS_KNOWN_EARLIER, GS_KNOWN_THIS } gsKnown;
typedef struct {
    uint64_t bytes;
    double density; /* coordinates in it, by elements */
    gsKnown of;
} gsKnownRecord;

/* Rows of a list's `buffers`; the last two of a dense reducer. */
enum { GS_GRADIENTS = 0, GS_RESULTS = 1, GS_GATHERED = 2, GS_SUMS = 3 };

/* How far the single stages of a step have come. */
typedef enum { GS_STAGED_NOTHING, GS_STAGED_RECORD, GS_STAGED_SUM } gsStaged;

struct gsReducer {
    gsComm_t comm; /* hierarchical: the part of the ranks that have this one's slice */
    gsSpec spec;   /* hierarchical: of the slice */
    gsHierarchy nodes;
    int cpuThreads;
    const void *cpuStages; /* the instruction set's stages (cpu/) */
    gsStaged staged;
    uint32_t number; /* among its communicator's, alike on all ranks */
    gsProfile profile;
    gsKnownRecord known;

    /* Memory of the backend's kind, one allocation each; vectors of the state's precision, whole blocks. NULL where the recipe has
     * no use for it. Of a pair [phase] is this call's and the other the next one's. */
    gsState *state;
    void *residual[2];       /* e */
    void *momentum[2];       /* u */
    void *previous[2];       /* the iterate of the last call */
    void *anchor;            /* the iterate of the last gradient sent */
    void *before[2];         /* the gradient of the last call */
    void *memory, *shared;   /* h; H, the sum of all ranks' h, or an owner's part of it */
    void *pool[GS_MAX_POOL]; /* references that are vectors of their own */
    void *history;           /* [window]: the last results */
    void *work;              /* a, where no residual holds it */
    uint32_t *keptBits;      /* a bit an element, GS_BLOCK_WORDS words a block */
    uint32_t *rowBits;       /* rows: a bit a row */
    uint32_t *blockKept;     /* [group][block]: kept coordinates of a block */
    uint32_t *blockOffset;   /* [group][block + 1]: kept coordinates before the block, at most 2^32 - 1 */
    double *blockSum;        /* [sum][block]: statistics; the tree folds in place */
    uint32_t *blockBelow;    /* [block]: gspar's count of coordinates with p < 1 */
    uint32_t *histogram;     /* GS_HISTOGRAM_BINS: threshold without a tau, topk */
    uint8_t *sendRecord;     /* one slot */
    uint8_t *recvRecords;    /* nranks slots; dense: slices, then sums */
    uint8_t *denseBuffer;    /* slices, then sums, of a */
    /* owner: a state for each part of the record, and its blocks' offsets, part by part; the sum of this rank's own blocks and, two-way,
     * what it becomes; all owners' sums, where something is remembered of them */
    gsState *partState;
    uint32_t *partOffset;
    void *ownSum, *ownResult, *sum;
    struct gsOwners *owners;
    gsSeal *seals;        /* a scattered sum: [ranks][GS_SEALS], what each has met; */
    int32_t *members;     /* and ranks by their numbers */
    uint64_t sharedCount; /* elements of H */
    enum {
        GS_OWNS_NOTHING,
        GS_OWNS_SHARED,
        GS_OWNS_OTHERS
    } owns;               /* which vectors are of this rank's own blocks alone */
    uint64_t recipeHash;  /* the configHash whatever the number of ranks */
    const void *denseSum; /* of a dense step under way: where the sum is */
    float *arrived;       /* 1, and its sum over all ranks: gsAwaitAll */

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

    const void *params, *xi, *stale;  /* the caller's */
    const gsOptimizerCall *optimizer; /* of the gsAllReduceStep under way: it has no recvbuff */
    gsReducer_t server; /* twoway: the second half, of one rank over the result; owner: of this rank's sum; or NULL */
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
/* How often a reducer's list stands in its tables: once; of a gathered half for every rank, so that all slices are found. */
static inline uint32_t gsListTables(const gsSpec *spec)
{
    return spec->half == GS_HALF_GATHER ? spec->nranks : 1;
}
/* list.c: what a reducer of a list holds, once its memory is there; the host's part of it goes with gsListRelease. */
gsResult_t gsListPrepare(gsReducer_t r, const gsReducerConfig_t *config);
void gsListRelease(gsReducer_t r);
/* list.c: the first n tensors of a buffer in which they stand one behind the other, to r->tensors; results must not overlap. */
void gsListSpread(gsReducer_t r, const void *buffer, uint32_t n);
gsResult_t gsListCheckResults(gsReducer_t r, void *const *recvbuffs);
/* owner: the spec of the record of an owner's sum; and of all owners' records together, whose sums are of this type. */
gsResult_t gsSpecMakeOwner(const gsReducerConfig_t *config, const gsSpec *whole, gsSpec *spec);
gsSpec gsSpecOfSums(const gsSpec *whole, const gsSpec *sums, uint32_t type);
/* The same without what stands around a codec: dense steps, silence, turns, the second half. */
gsResult_t gsSpecMakeStage(const gsReducerConfig_t *config, int rank, int nranks, gsSpec *spec);
/* configHash for any number of ranks. */
uint64_t gsRecipeHash(const gsSpec *spec);
/* plan.c: the recipe with this mode's exchange=, whatever its own, to be freed, NULL without memory; and with the one that exchange=auto
 * comes to on this communicator, the same on all ranks; collective. */
char *gsRecipeInMode(const char *recipe, gsMode_t mode);
gsResult_t gsPlanSettle(gsComm_t comm, const gsReducerConfig_t *config, char **recipe);
/* reducer.c: a reducer without what stands around its codec, for measure.c. */
gsResult_t gsReducerMakeStage(gsReducer_t *reducer, gsComm_t comm, const gsReducerConfig_t *config);
/* exchange.c: own record -> all records; the dense sum; the sum of a vector of the state's precision, which *sum then points to. */
gsResult_t gsExchangeRecords(gsReducer_t r, gsStream_t stream);
/* One way to exchange what reducer `of` has, with its range and its time, which is of r's call. */
gsResult_t gsExchangeTimed(gsReducer_t r, gsResult_t (*way)(gsReducer_t, gsStream_t), gsReducer_t of,
                           gsStream_t stream);
gsResult_t gsExchangeDense(gsReducer_t r, const void *sendbuff, void *recvbuff, gsRedOp_t op, gsStream_t stream);
gsResult_t gsExchangeVector(gsReducer_t r, const void *vector, const void **sum, gsStream_t stream);
/* exchange.c: a device goes on behind an exchange that was aborted, and what that has left looks like a sum or a slice. So all ranks count,
 * in r->arrived[1], who has come this far, before anything is settled. */
gsResult_t gsAwaitAll(gsReducer_t r, gsStream_t stream);
/* exchange.c: what the host does before it asks a device: waits for it, within the deadline, which its own wait has not. */
gsResult_t gsAwaitDevice(gsReducer_t r, gsStream_t stream);
/* Where the dense exchange leaves the sum. */
uint8_t *gsDenseSums(gsReducer_t r);
gsResult_t gsExchangeParts(gsReducer_t r, gsStream_t stream);
/* owner.c: the reducer as each of its parts sees it, once its memory is there; and the road by way of the owners. */
gsResult_t gsOwnersPrepare(gsReducer_t r);
gsResult_t gsReduceByOwners(gsReducer_t r, const void *sendbuff, void *recvbuff, gsRedOp_t op, gsStream_t stream);
/* owner.c: half of it: the own slice of the sum. And its stages: own parts; what was sent of the own slice -> its sum, and what came up;
 * all ranks' seals -> the slice, if they allow it. */
gsResult_t gsScatterEncode(gsReducer_t r, const void *sendbuff, void *parts, gsStream_t stream);
gsResult_t gsScatterSum(gsReducer_t r, const void *parts, gsSeal *seal, gsStream_t stream);
gsResult_t gsScatterDecode(gsReducer_t r, const void *seals, void *recvbuff, gsRedOp_t op, gsStream_t stream);
gsResult_t gsScatterToOwners(gsReducer_t r, const void *sendbuff, void *recvbuff, gsRedOp_t op, gsStream_t stream);
/* halves.c: whether a configuration's half makes sense, and then its recipe; what a half's records are a list of; the vector that the
 * reducer is about, where that is known to be dense a plain one. They leave a gsAllReduce's alone. */
gsResult_t gsHalfCheck(const gsReducerConfig_t *config, int nranks);
gsResult_t gsHalfSettle(const gsReducerConfig_t *config, gsSpec *spec);
gsReducerConfig_t gsHalfTensors(const gsReducerConfig_t *config, int nranks);
gsReducerConfig_t gsHalfOwn(const gsReducerConfig_t *config, int nranks, int dense);
/* halves.c: an error where a configuration is of a half, with `what` in its text; where a reducer is not of this half. */
gsResult_t gsHalfRefuse(const gsReducerConfig_t *config, const char *what);
gsResult_t gsHalfExpect(gsReducer_t r, uint32_t half);
/* halves.c: what a half's memory begins with; its dense call; the verdict that `finder`, a view of r, has come to -> a seal; the own one to
 * all; all ranks' -> r's verdict; bytes that this sends; the reducer, as it sees all ranks' records of their slices. */
gsResult_t gsHalfFill(gsReducer_t r);
gsResult_t gsHalfDense(gsReducer_t r, const void *sendbuff, void *recvbuff, gsRedOp_t op, gsStream_t stream);
gsResult_t gsHalfSeal(gsReducer_t r, gsReducer_t finder, gsSeal *seal, gsStream_t stream);
gsResult_t gsHalfTradeSeals(gsReducer_t r, gsStream_t stream);
gsResult_t gsHalfOpen(gsReducer_t r, const void *seals, gsStream_t stream);
uint64_t gsHalfSealBytes(const gsReducer_t r);
struct gsReducer gsHalfGathered(gsReducer_t r);
/* hierarchy.c: what recipe and nodes have to fulfil, the parts, and the slice that the reducer is about from here on; collective. What
 * its memory begins with. The two steps inside a node. */
gsResult_t gsHierarchyMake(gsReducer_t r, const gsReducerConfig_t *config, gsReducerConfig_t *slice);
gsResult_t gsHierarchyFill(gsReducer_t r);
gsResult_t gsHierarchyReduceScatter(gsReducer_t r, const void *sendbuff, gsRedOp_t op, gsStream_t stream);
gsResult_t gsHierarchyAllGather(gsReducer_t r, void *recvbuff, gsStream_t stream);
uint64_t gsHierarchyFirst(const gsReducer_t r); /* element of the gradient that the reducer's vectors begin with */
uint64_t gsHierarchyBytes(const gsReducer_t r); /* of a call, that stay inside the node */
/* reducer.c: of a configuration, a slice's where there is one. */
gsResult_t gsAddUpMemory(const gsReducerConfig_t *config, int nranks, const gsHierarchy *nodes, gsMemory_t *memory);
/* reducer.c: every vector that lives from call to call, with the name that gsReducerRead knows it by. A pair counts as one: the
 * current one of the two. */
typedef struct {
    const char *name;
    void *const *place; /* one pointer, or the first of a pair */
    int pair;
    int ranks;  /* 0: alike on all ranks; 1: this rank's own, additive */
    int degree; /* of the gradient's unit: 1, or 0 for iterates */
    uint64_t elements;
    int owned; /* of this rank's own blocks alone */
} gsStateVector;
enum { GS_MAX_VECTORS = 16 };
int gsListVectors(gsReducer_t r, gsStateVector list[GS_MAX_VECTORS]);
/* optimizer.c: whether settings make sense, and vectors, for a gradient of a type that may be another; and what a backend is told of
 * them. */
gsResult_t gsOptimizerCheck(const gsOptimizer_t *optimizer);
gsResult_t gsOptimizerCheckVectors(const gsOptimizer_t *optimizer, const void *gradient, gsDataType_t type,
                                   size_t count);
gsOptimizerCall gsOptimizerCallOf(const gsOptimizer_t *optimizer, size_t count);
/* reducer.c: a vector of the state's precision, times factor. */
gsResult_t gsScaleVector(gsReducer_t r, void *vector, uint64_t elements, float factor, gsStream_t stream);
void *gsVectorNow(const gsStateVector *v, uint32_t phase);
gsResult_t gsCheckReducer(gsReducer_t r); /* that there is one */
/* stream.c: runs `task` later on the stream's worker, with a copy of `arguments`. */
typedef gsResult_t (*gsTask)(void *arguments);
gsResult_t gsStreamPush(gsStream_t stream, gsTask task, const void *arguments, size_t bytes);

/* error.c: the state's fault as an error with its text, GS_SUCCESS for none; and what a GS_FAULT_ means. */
GS_INTERNAL gsResult_t gsVerdictError(const gsState *state);
GS_INTERNAL const char *gsFaultText(uint32_t fault);
/* A fault found on the CPU is this call's error, and gone; on a device it waits for gsReducerGetAsyncError. */
GS_INTERNAL gsResult_t gsCallError(gsReducer_t r);

/* A part's exchanges are its parent's: the deadline, and this rank's number there. */
static inline gsComm_t gsCommWhole(gsComm_t comm)
{
    return comm->parent ? comm->parent : comm;
}

static inline int gsCommMember(gsComm_t comm, int rank)
{
    return comm->parent ? comm->members[rank] : rank;
}

static inline size_t gsRealBytes(const gsSpec *spec)
{
    return spec->wide ? 8 : 4;
}

static inline gsDataType_t gsRealType(const gsSpec *spec)
{
    return spec->wide ? GS_FLOAT64 : GS_FLOAT32;
}

/* What gsAwaitAll has counted; NULL where an exchange that fails is the end of a call. */
static inline const float *gsArrivals(const gsReducer_t r)
{
    return gsCommWhole(r->comm)->transport->allReduce ? r->arrived : NULL;
}

/* Steps that travel dense, by the recipe. */
static inline int gsHasDenseSteps(const gsSpec *spec)
{
    return spec->firstDense || spec->refresh || spec->resync;
}

/* What a call has, where a reducer may be about a slice of it; a half's recvcount or sendcount. */
static inline uint64_t gsCallElements(const gsReducer_t r)
{
    if (r->spec.half)
        return gsSliceCount(&r->spec);
    return r->nodes.ranks ? r->nodes.count : r->spec.count;
}

/* A scattered sum: what this rank has met. */
static inline gsSeal *gsHalfOwnSeal(gsReducer_t r)
{
    return r->seals + GS_SEALS * r->spec.rank;
}

/* hierarchical: the own slice of the result. */
static inline void *gsHierarchySlot(gsReducer_t r)
{
    return r->nodes.slots + (uint64_t)r->nodes.part->rank * r->nodes.slotBytes;
}

/* Elements of a rank's slice of `count` in the dense exchange; the last slices may be short or empty. */
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

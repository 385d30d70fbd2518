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
 *             libgradsieve_mpi    gsCommInitMpi, gsCommShrinkMpi
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

typedef enum { GS_FLOAT16 = 6, GS_FLOAT32 = 7, GS_FLOAT64 = 8, GS_BFLOAT16 = 9 } gsDataType_t;

typedef enum {
    GS_SUM = 0,
    GS_AVG = 4 /* the sum times fl(1/ranks) */
} gsRedOp_t;

/* What a reducer is for. */
typedef enum { GS_ALL_REDUCE = 0, GS_REDUCE_SCATTER = 1, GS_ALL_GATHER = 2 } gsCollective_t;

typedef struct gsComm *gsComm_t;
typedef struct gsReducer *gsReducer_t;
typedef void *gsStream_t; /* a cudaStream_t on CUDA communicators; otherwise NULL or made by gsStreamCreate */

/* ---- communicators ------------------------------------------------------------------------------------------------- */

typedef struct {
    size_t size;      /* sizeof(gsCommConfig_t) */
    uint32_t version; /* GS_VERSION_CODE */
    int32_t
        timeoutMs; /* deadline of every exchange, in milliseconds; 0: the environment's GS_TIMEOUT_MS, else 600000 */
    int32_t ranksPerNode; /* rank r is on node r / ranksPerNode; 0: the environment's GS_RANKS_PER_NODE, else nodes
                              are found: MPI ranks that can share memory, NCCL ranks of one host, all threads */
    const struct gsCluster
        *cluster;         /* for recipes with exchange=auto: what need not be measured; NULL: nothing. Copied;
                                        alike on all ranks */
    const char *commName; /* in profiles: at most 63 bytes, copied; NULL: the transport's name */
} gsCommConfig_t;
#define GS_COMM_CONFIG_INIT                                       \
    {                                                             \
        sizeof(gsCommConfig_t), GS_VERSION_CODE, 0, 0, NULL, NULL \
    }

/* Ranks as threads of this process. Makes `nranks` (1..1024) communicators; each thread then uses its own. config may be
 * NULL. A rank that meets the deadline fails the exchange for all: each rank sees GS_ERROR_TIMEOUT once, with its state
 * untouched, and the call can be made again. */
GS_API gsResult_t gsCommInitAll(gsComm_t *comms, int nranks, const gsCommConfig_t *config);

/* Ranks as processes. mpiComm points to an MPI_Comm, which is duplicated (collective). After a deadline the communicator
 * has failed for good: destroy it, make another, import the states. MPI must have been initialised; with less than
 * MPI_THREAD_SERIALIZED all calls come from the main thread, and CPU streams cannot be used. In libgradsieve_mpi. */
GS_API gsResult_t gsCommInitMpi(gsComm_t *comm, const void *mpiComm, const gsCommConfig_t *config);

/* Who is left, where ranks of a communicator of gsCommInitMpi have died. *survivors, an MPI_Comm, has the ranks that call this within
 * timeoutMs of each other (0: twice the deadline of `comm`), in the order of `comm`, which may have failed. GS_ERROR_MISMATCH
 * and GS_ERROR_TIMEOUT: they did not agree; call again. With too short a timeoutMs a late rank is left out, and in the end
 * alone. In libgradsieve_mpi. A job goes on without its dead like this:
 *   1. It is started so that MPI leaves the others alone (Open MPI 4: mpirun --enable-recovery; MPI_ERRORS_RETURN), with a
 *      deadline (gsCommConfig_t.timeoutMs). From time to time ranks trade their exported states and keep all of them, with
 *      the parameters: a checkpoint.
 *   2. A rank dies. gsAllReduce is an error on every other one, its state as before; where an exchange had just ended, the
 *      next one is. Each exports its state and calls gsCommShrinkMpi.
 *   3. Reducers and communicator are destroyed, new ones made: gsCommInitMpi(&comm, survivors, ...), gsReducerCreate.
 *   4. The survivors trade their states and give them to gsReducerImportRanks, with NULL for the dead. That is
 *      GS_ERROR_MISMATCH where their steps differ, as one had finished what the others had not: then, or where nothing may
 *      be lost, they give it the states of the last checkpoint, and go back to its parameters. */
GS_API gsResult_t gsCommShrinkMpi(gsComm_t comm, void *survivors, int timeoutMs);

/* Ranks as NCCL ranks. ncclComm is the ncclComm_t itself; it stays the caller's and must outlive the communicator. The first
 * reducer with exchange=hierarchical splits it, into parts that gsCommDestroy ends: destroy graphs that use them before. Records
 * travel on the stream of the call, in the order of the calls, like any NCCL call, but not inside ncclGroupStart and
 * ncclGroupEnd. The communicator's device must be current. The deadline is watched by gsCommSynchronize. In
 * libgradsieve_nccl. */
GS_API gsResult_t gsCommInitNccl(gsComm_t *comm, void *ncclComm, const gsCommConfig_t *config);

GS_API gsResult_t gsCommCount(gsComm_t comm, int *nranks);
GS_API gsResult_t gsCommUserRank(gsComm_t comm, int *rank);

/* How many nodes the ranks are on, and which is this rank's; they count from 0 in the order of their lowest ranks. Collective:
 * every rank calls. Synchronises. */
GS_API gsResult_t gsCommGetNodes(gsComm_t comm, int *nodes, int *node);

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
 * A recipe is one line of text that names the whole pipeline: NAME or NAME:key=value,key=value g is a rank's gradient,
 * a what it is compressed as, C the compressor, sums run over the ranks. S is the size of the state's numbers: 4 bytes,
 * 8 for GS_FLOAT64. "State" is what lives from call to call, in bytes an element; gsReducerGetMemory tells all of it.
 *
 * With error feedback: a = g + e, e' = a - C(a). State 2 S (e, double-buffered).
 *   threshold                |a| > tau travels
 *       density=D            0 < D <= 1: tau follows this share of kept coordinates from step to step (default 0.01)
 *       tau=T | rms=R        a fixed tau; or R times the root mean square of a; give `capacity` with them
 *   topk                     the k largest |a| of the whole vector, ties to the lower index (EF-SGD, Stich et al.,
 *                            NeurIPS 2018)
 *       density=D | k=K      (default density=0.01)
 *   chunk-topk               the k largest of every 4096 coordinates: equal sizes, one pass
 *       k=K                  1..4096 (default 64)
 *   ef-sign                  all coordinates as signs, with the mean |a| of their bucket (Karimireddy et al., ICML
 *                            2019). 1 bit each
 *   dgc:select=topk          momentum correction: u = momentum u + g, a = e + u; u is 0 where a has travelled. Lin,
 *                            Han, Mao, Wang, Dally, "Deep Gradient Compression", ICLR 2018, sections 3.1-3.3. State 4
 *                            S. Use it with a plain SGD step: the momentum is in here
 *       momentum=M           0 <= M < 1 (default 0.9)
 *       clip=N               g is first cut to the norm N / sqrt(ranks) (default 0: not)
 *       warmup=W             the density falls to its own over W steps, in powers of its sixth root (default 0)
 *
 * Unbiased, no state: the mean of the result over the draws is the sum. An overflow is thinned, values are rounded
 * stochastically.
 *   gspar                    coordinate i travels with probability min(s|g_i|, 1) as g_i/p_i. Wangni, Wang, Liu, Zhang,
 *                            "Gradient Sparsification for Communication-Efficient Distributed Optimization", NeurIPS
 *                            2018
 *       density=D            expected share, by the greedy Algorithm 3 (default 0.05)
 *       epsilon=E            E|C(g)|^2 = (1 + E)|g|^2 with the fewest coordinates, by Algorithm 2; give `capacity` with
 *                            it
 *   randk | uniform          one probability D; randk's mask is drawn from the seed by all ranks alike and no index
 *                            travels, uniform's is each rank's own. The controls that other recipes have to beat
 *       density=D            (default 0.01)
 *   terngrad                 max|g| of a bucket with probability |g|/max|g|, signed (Wen et al., NeurIPS 2017). 2 bits
 *                            each
 *   qsgd:levels=L            |g|_2 l/L of a bucket, l rounded stochastically (Alistarh et al., NeurIPS 2017). L 1..127
 *                            (default), at 2 to 8 bits each
 *   natural                  powers of two (Horvath et al., 2019). 9 bits each
 *   sign                     ef-sign without its feedback: biased, a control
 *   identity                 everything, at full precision, in records: a control
 *   rows:width=W             rows of W elements that are not all 0 travel, whole, with a bit for each row; the last row
 *                            may be short. Lossless: the result is dense's, in every type, but for the sign of a 0 (-0 is
 *                            a 0, too: it makes no row travel). float16 travels as float32. For gradients of embeddings
 *                            and lookup tables, a row a token: most have not been in the batch. Bytes follow the rows, so
 *                            records have their true lengths (exchange=exact, the only one), and go to every rank: not
 *                            where a rank fills more than about 2/ranks of the rows (float16: 1/ranks), as with a table
 *                            that is tied to the output layer, whose gradient has no zeros. Memory for a whole gradient
 *                            of each rank
 *
 * With a memory h of each rank's own and H, their sum: a = g - h, h += lambda C(a), H += lambda sum C(a), result = H
 * before + nu sum C(a). State 2 S. What is compressed goes to 0 where gradients settle, on unlike shards too.
 *   ef21:select=topk         contractive C, lambda = nu = 1 (Richtarik, Sokolov, Fatkhullin, NeurIPS 2021).
 *                            select=threshold, chunk-topk, sign, grid (laq's points) or identity likewise
 *   diana:select=ternary     unbiased C, lambda = 1/(1 + omega) by default (Mishchenko et al., 2019). select=gspar,
 *                            randk, uniform, levels, natural or identity
 *       lambda=L | nu=N      in (0, 1]: EF-BV's two knobs (Condat, Yi, Richtarik, NeurIPS 2022)
 *       first=zero|dense     h = 0 at the start (default), or the first step travels dense and h = g
 *   cdadam:select=sign       ef21 in both directions: the result is compared with what was sent down before, and
 *                            compressed again. Wang, Lin, Chen, "Communication-Compressed Adaptive Gradient Method for
 *                            Distributed Nonconvex Optimization", AISTATS 2022, Algorithm 1; with
 *                            GS_AMSGRAD in gsAllReduceStep. State 4 S. select as for ef21, `first` too
 *   gdsec                    a = g - h + e; |a_i| > (xi/ranks)|theta_i - theta_i before| travels; h += beta C(a). Chen,
 *                            Blum, Takac, Sadler, "Distributed Learning With Sparsified Gradient Differences", IEEE
 *                            JSTSP 2022, Algorithm 1. The first step travels dense. Needs gsReducerSetParams. State 6
 *                            S. For full gradients of smooth functions: xi is some 10 to 100 times their smoothness L;
 *                            minibatch noise passes the threshold (SGD-SEC sends more)
 *       xi=X | beta=B        (default 100 and 0.01)
 *       ec=0                 without e: a control that stalls
 *       value=levels         QSGD-SEC: values as levels of their block's norm
 *       participate=K        K ranks a step take part, in turn (default 0: all); the others keep h and e
 *       resync=R             H is summed anew from all h before steps R, 2R, ..., from 0 on (default 0: never); for lag-*
 *                            too
 *   lag-wk, lag-ps           g itself travels, or nothing does: result = sum of the gradients last sent. Chen,
 *                            Giannakis, Sun, Yin, "LAG: Lazily Aggregated Gradient", NeurIPS 2018, conditions (7a) and
 *                            (7b). wk: the rank decides by |g - g sent|^2; ps: before it computes g, by L|theta - theta
 *                            sent| (gsReducerWantsGradient). A silent rank sends a header. State 4 S, ps 5 S. For full
 *                            gradients: minibatch noise keeps wk from ever being silent
 *       window=D | xi=X      the last D steps count, X each (default 10, and 0.1 for wk, 1 for ps). With
 *                            gsReducerSetParams steps of iterates over the step size; without (wk) norms of results,
 *                            the same for plain gradient descent
 *   lasg-wk                  lag-wk for minibatches: |g - gradient of the same minibatch at the iterate last sent|^2
 *                            decides; the caller computes that second gradient (gsParams_t.stale). T. Chen, Y. Sun, W.
 *                            Yin, 2020, rule WK2. State 5 S
 *   laq:levels=15            what has changed travels, each coordinate as one of levels + 1 points (4 bits by default),
 *                            or nothing does. Sun, Chen, Giannakis, Yang, NeurIPS 2019, conditions (7a) and (7b). State
 *                            4 S; xi 0.08 by default
 *   clag:select=topk         ef21 with silence: nothing travels while |g - h|^2 <= xi |g - g before|^2. Richtarik et
 *                            al., "3PC", ICML 2022. State 4 S; xi 1 by default
 *       staleness=N          of these three: silent for at most N steps (default 50, 100, and 0: any number)
 *
 * Against references r that all ranks know: a = g - r or g / r; the result is compared with nothing. J. Wangni, K. Li,
 * J. Shi, J. Malik, "Trajectory Normalized Gradients for Distributed Optimization", 2019. State S for each vector of
 * the pool, 2 S for params. A shared reference does not help where ranks' gradients differ from each other: that is
 * diana's.
 *   tng:select=ternary       any compressor; contractive ones keep e beside it
 *       reference=A+B+...    zero, mean (g's own, times ones), last (result), ema and ema2 (of results), window (their
 *                            mean over window=W steps), params (iterates' last step over the step size), snapshot (the
 *                            result of a dense step every refresh=N steps) (default last)
 *       mode=quotient        g / r, r's small elements replaced by 0.1 rms(r) (default difference)
 *       search=S             none; worker: each rank takes what leaves the least of its gradient, and says which;
 *                            hindsight: all take what would have been best for the last result, nothing is said; fit:
 *                            least squares over the pool, the coefficients travel. zero joins the pool. (default none)
 *       ema=B | ema2=B       weights of the newest result (default 0.25 and 1/24)
 *
 *   dense                    the plain sum, no state
 *
 *   for all but dense and rows:
 *       value=f64|f32|bf16|f16 how a value of threshold, topk, chunk-topk, gspar, randk, uniform, identity or gdsec
 *                            travels; f16 with one power of two a record. Default: f64 where gradients are; else bf16,
 *                            but full precision for identity, gdsec and lag-*. With feedback or memory the rounding is
 *                            not lost; otherwise it is stochastic
 *       value=2bit           threshold, topk, chunk-topk: one of four values a coordinate, the means of a block's bins,
 *                            as SparseLoCo does
 *       value=shared         gspar only: values with p < 1 share one magnitude and travel as a sign bit each, by index
 *                            or in a ternary map of all coordinates, whichever is shorter
 *       bucket=4096|all      ternary, levels, grid, sign: one scale for every 4096 elements (default), or for all
 *       capacity=C           threshold, gspar, randk, uniform, gdsec: 0 < C <= 1, the share of coordinates that a
 *                            record has room for. Default: 1.25 D plus six standard deviations, sqrt(D/count) each;
 *                            gdsec 1. What does not fit stays in the residual or in g - h; unbiased recipes thin the
 *                            kept to the capacity and scale them up
 *       exchange=capacity|exact records in slots of equal size (default), or with their true length: the default of
 *                            recipes that may be silent, which save nothing otherwise. On CUDA the host waits for the
 *                            lengths, and the call cannot be captured
 *       exchange=owner|owner-exact for many ranks: records go in parts to the ranks that own their blocks: see below
 *       exchange=hierarchical for nodes with fast links inside and slow ones between: see below
 *       twoway=1             the result is compressed again, as gspar's Algorithm 1 may; feedback or memory as the
 *                            first half has. On all ranks alike, or at the owners, each its own blocks. (cdadam is ef21
 *                            with it.) Not with tng and those that may be silent
 *
 * exchange=owner, owner-exact: block b of 4096 elements belongs to rank b mod ranks. A rank's record is cut into parts, one an
 * owner; an owner sums what it is sent of its blocks, in rank order, and all ranks gather the owners' sums: without loss, so that
 * results and states are those of exchange=capacity, bit for bit; or, with twoway=1, compressed again, so that what leaves a rank
 * does not grow with their number. Then each owner alone has what the second half remembers of its blocks (and H of the first
 * half), and densities hold in each owner's blocks. owner: parts have slots, of 1.5 times their share of the capacity and six
 * deviations, and what does not fit is treated as a full record's rest is; may be captured. owner-exact: true lengths; a part may
 * fill the whole capacity. Without a second half the owners send min(ranks * density, 1) of the vector, at full precision, and
 * where all coordinates travel a sum of finite values that overflows is NaN everywhere. A part's loss, or ranks that disagree, is
 * found by its owner and told to all. Not with recipes that may be silent, nor with mode=quotient; with twoway=1 neither first=dense,
 * gdsec nor randk. gsReducerImportRanks gives blocks to their new owners. Without a second half, recipes with memory or
 * references need 2 S more of work space; with one, H and the second half's e and h are an owner's, S / ranks each.
 *
 * exchange=hierarchical: the ranks of a node (gsCommGetNodes; all have as many) sum their gradients, each a slice of whole
 * blocks of 4096; ranks of equal place on all nodes exchange records of their slice, in slots; and the node's ranks gather
 * the result. What is remembered is about the slice of the node's sum (of its mean, with GS_AVG: stay with one op), statistics
 * too, and densities hold in each slice. With one rank a node results and states are those of exchange=capacity. A node's sum
 * is as dense's is: a sum of finite values that overflows is NaN everywhere. With several ranks a node, `participate` counts
 * nodes, and there is no lag-ps, lasg-wk or clip; who is silent saves nothing, as in exchange=capacity.
 *
 * Lists of tensors. A reducer may be one of a list: gsReducerConfig_t.segments has the elements of each tensor, `count` is
 * their sum, and gsAllReduceSegments takes a pointer to each. All go in one record and one exchange, with one launch a stage on CUDA. A
 * recipe then works as on one vector: densities, capacities, norms, scales with bucket=all are the list's, not a tensor's. Every
 * tensor begins a block of 4096 (and a bucket) of its own, state vectors are whole blocks, and chunk-topk keeps
 * ceil(k n / 4096) of a block of n.
 * Tensors of fewer than `wholeBelow` elements travel whole, in the record of the others: all their coordinates, as plain values
 * (value=f64, f32, bf16 or f16 where the recipe has one of these; else bf16, or float32 and float64 for gradients of these
 * types), and nothing of them is selected, thinned, cut by a capacity or counted by a density. What rounding takes away stays in
 * the residual or in g - h; without those it is stochastic where the recipe is unbiased. dgc's momentum goes on for them, as for
 * plain momentum SGD: nothing of them waits. They are silent where their rank is.
 * Not with rows, which are those of one matrix, and not with gdsec, the lag family but clag, or tng's reference params: iterates
 * are one vector. `dense` and GS_DISABLE copy the list together, sum it and copy it back; steps that travel dense (below) send
 * whole blocks.
 *
 * Steps that travel dense (first=dense, gdsec's first, refresh, resync) are decided on the host by the number of steps:
 * on CUDA such a call synchronises and cannot be captured; graphs replay the others.
 */

typedef struct {
    size_t size;              /* sizeof(gsReducerConfig_t) */
    uint32_t version;         /* GS_VERSION_CODE */
    gsDataType_t datatype;    /* of the gradient; alike on all ranks */
    const char *recipe;       /* see above; copied; alike on all ranks */
    uint64_t count;           /* elements of the gradient, from 0, of a half all slices'; alike on all ranks */
    uint64_t seed;            /* of every random draw; alike on all ranks (the rank enters the draws by itself) */
    int32_t cpuThreads;       /* CPU: threads of one call; 0: processors by local ranks, fewer for small counts */
    int32_t collective;       /* gsCollective_t: which call the reducer is for; alike on all ranks */
    const uint64_t *segments; /* a list of tensors: elements of each, of any size, `count` in all; NULL: one gradient.
                                 Copied; alike on all ranks */
    uint32_t segmentCount;    /* at most 65534 */
    uint32_t reserved2;       /* 0 */
    uint64_t wholeBelow;      /* tensors of fewer elements travel whole; 1: none does; 0: 4096, one block. Alike on all
                              ranks */
    void *(*allocate)(size_t bytes, void *context); /* NULL: the library's own. Memory of the communicator's kind, */
    void (*release)(void *pointer, void *context);  /* aligned to 256 bytes. Called at creation and destruction only */
    void *allocatorContext;
} gsReducerConfig_t;
#define GS_REDUCER_CONFIG_INIT                                                                                       \
    {                                                                                                                \
        sizeof(gsReducerConfig_t), GS_VERSION_CODE, GS_FLOAT32, "dense", 0, 0, 0, 0, NULL, 0, 0, 0, NULL, NULL, NULL \
    }

typedef struct {
    uint64_t stateBytes;   /* what lives from call to call: residuals, memories, references, iterates */
    uint64_t wireBytes;    /* own record and all ranks' records */
    uint64_t scratchBytes; /* kept bits, block counts and sums */
} gsMemory_t;

/* Bytes that gsReducerCreate will ask for, without making anything. */
GS_API gsResult_t gsReducerGetMemory(const gsReducerConfig_t *config, int nranks, gsMemory_t *memory);

/* The same for exchange=hierarchical, which gsReducerGetMemory refuses: of the rank with the longest slice. Other exchanges do not care
 * for nodes. */
GS_API gsResult_t gsReducerGetNodeMemory(const gsReducerConfig_t *config, int nranks, int ranksPerNode,
                                         gsMemory_t *memory);

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

/* The same of a list: sendbuffs and recvbuffs are arrays of segmentCount pointers, in host memory, to the tensors in the order of
 * gsReducerConfig_t.segments; a tensor of no elements may be NULL. Each is in place, or apart from its result; results must not
 * overlap each other. The arrays are copied: they may change or go once the call has returned, also between the calls of a
 * captured graph, which keeps the pointers that it was captured with. (gsAllReduce of a list's reducer takes the tensors one
 * behind the other, in one buffer.) */
GS_API gsResult_t gsAllReduceSegments(const void *const *sendbuffs, void *const *recvbuffs, uint32_t segmentCount,
                                      gsDataType_t datatype, gsRedOp_t op, gsReducer_t reducer, gsStream_t stream);

/*
 * The halves of an all-reduce, for optimizers whose state is sharded: every rank updates its slice of the parameters and no more. Each half
 * has a reducer and a recipe of its own, made with gsReducerConfig_t.collective = GS_REDUCE_SCATTER or GS_ALL_GATHER; `count` there is
 * that of the whole vector, of all ranks' slices, a multiple of the ranks: pad it. datatype must be the reducer's. Every rank calls, in
 * the same order on each communicator and with the same op. Buffers live where gradients do, streams, failures and NaNs are those of
 * gsAllReduce: a NaN or Inf in one rank's sendbuff, or an error, is every rank's, whatever the slice; only results differ.
 *
 * gsReduceScatter: sendbuff has ranks * recvcount elements, recvbuff gets slice `rank` of op over ranks of what their recipe lets through:
 * recvcount elements, the bits of that slice after gsAllReduce with the same recipe and exchange=owner. In place if recvbuff == sendbuff
 * + rank * recvcount. What is remembered is about all that a rank gives; ef21's and diana's H about its slice. Records travel in parts,
 * to the owners of the slices, and nothing comes back but 32 bytes of verdict a rank.
 *
 * gsAllGather: sendbuff has sendcount elements, the rank's slice; recvbuff, ranks * sendcount, gets all slices as they were decoded: the
 * same bits on all ranks, the own slice's too. In place if sendbuff == recvbuff + rank * sendcount. `dense` is lossless, for any vector.
 * Other recipes compress the slice, with a state of its size: give them what the optimizer changes, new parameters minus those that all
 * ranks have, and add the result to these, on all ranks and in all slices. What has not travelled stays in the residual: it is not in
 * the parameters, and must not be given again. An optimizer that keeps a copy of its slice at full precision keeps its own there, and
 * gives its own step, not its distance from the others.
 *
 * Slices are a list of tensors as far as blocks go: each begins one of its own, and no tensor is whole. So slices that are no multiple of
 * 4096 get the bits of gsAllReduceSegments. exchange= says capacity (default; owner is the same) or exact (owner-exact): slots of equal
 * size, or true lengths. A scattered part's slot has twice its share of the capacity, and six deviations; gradients are less even by
 * slices than by blocks in turn, and what does not fit stays in the residual, or is thinned.
 * Not with rows, recipes that may be silent, gdsec, tng, twoway=1, cdadam, first=dense, exchange=hierarchical or auto; gsAllGather neither with
 * dgc nor randk. Not for gsPlanChoose or gsReducerImportRanks: a state fits the same rank of as many.
 */
GS_API gsResult_t gsReduceScatter(const void *sendbuff, void *recvbuff, size_t recvcount, gsDataType_t datatype,
                                  gsRedOp_t op, gsReducer_t reducer, gsStream_t stream);
GS_API gsResult_t gsAllGather(const void *sendbuff, void *recvbuff, size_t sendcount, gsDataType_t datatype,
                              gsReducer_t reducer, gsStream_t stream);

/* Back to the state after creation: everything remembered 0, step 0, no error. Statistics stay. Every rank calls it. */
GS_API gsResult_t gsReducerReset(gsReducer_t reducer, gsStream_t stream);

/* A loss scale that changed by `factor` (finite, > 0): what is remembered in gradient units is multiplied by it, and tau, a fixed
 * one too (until gsReducerReset). Not between gsEncode and gsDecode. */
GS_API gsResult_t gsReducerScale(gsReducer_t reducer, float factor, gsStream_t stream);

/* The error that an enqueued call has met on a device, which this call then clears; GS_SUCCESS if none. Synchronises. */
GS_API gsResult_t gsReducerGetAsyncError(gsReducer_t reducer, gsResult_t *asyncError);

typedef struct {
    uint64_t calls;       /* exchanges that ended well, non-finite ones included */
    uint64_t compressed;  /* of these: sparse records travelled */
    uint64_t dense;       /* of these: the dense sum, by recipe */
    uint64_t bypassed;    /* of these: the dense sum, because GS_DISABLE is set */
    uint64_t nonFinite;   /* of these: NaN on all ranks */
    uint64_t thinned;     /* own record did not fit and was thinned (recipes without feedback) */
    uint64_t overflowed;  /* own record did not fit, the rest stayed in the residual (recipes with feedback) */
    uint64_t skipped;     /* of the calls: this rank said nothing */
    uint64_t denseRounds; /* of the dense calls: steps that a sparse recipe sends dense */
    uint64_t failed;      /* calls that ended with an error */
    uint64_t lastKept;    /* coordinates selected by the last call on this rank, before the capacity was applied */
    uint64_t lastSent;    /* coordinates in its record; tensors that travel whole count in both */
    uint64_t lastExact;   /* of these, with value=shared: those that carry a value of their own; otherwise all */
    uint64_t keptTotal;   /* sums over the calls */
    uint64_t sentTotal;
    uint64_t payloadBytes; /* sum of own records' lengths; dense: of the gradient's */
    uint64_t wireBytes;    /* bytes that left this rank: (P-1) slots a call, dense 2(P-1)/P of the gradient, a half 1 */
    uint64_t nodeBytes;    /* hierarchical: of these, what went to ranks of the same node */
    double encodeSeconds;  /* CPU only: wall time in select and pack */
    double exchangeSeconds; /* CPU only: waiting for the other ranks included */
    double decodeSeconds;   /* CPU only */
    uint64_t serverSent;    /* twoway: coordinates that the second half let through, over the calls; and in the last */
    uint64_t lastServerSent;
    double normalized;  /* tng: |g - r|^2 / |g|^2 of the last call */
    float tau;          /* threshold: the next call's; 0 while unknown */
    uint32_t reference; /* tng: the reference of the last call, by its place in the list above */
} gsStats_t;

/* Synchronises with the device. */
GS_API gsResult_t gsReducerGetStats(gsReducer_t reducer, gsStats_t *stats);

/* The state of this rank (what it remembers, step, threshold), versioned and checksummed, in host memory. With buffer NULL only
 * *bytes is set; otherwise *bytes is the buffer's room and becomes what was written. Import refuses a state of another
 * recipe, count, type, seed, rank or number of ranks. Both synchronise. */
GS_API gsResult_t gsReducerExport(gsReducer_t reducer, void *buffer, size_t *bytes);
GS_API gsResult_t gsReducerImport(gsReducer_t reducer, const void *buffer, size_t bytes);

/* The states of all `nstates` ranks of an earlier job, in rank order, into this one, whatever its number of ranks P: what is additive
 * (residual, momentum, memory) goes from rank r to rank r mod P by addition, what is a mean over ranks is scaled by nstates / P, a
 * residual that is owed to an average by P / nstates; triggers send at the next call. states[i] is NULL where rank i has died
 * and its state with it: what it owed is lost, the sum of memories is made anew, and the i-th state that is there counts as
 * rank i's, so that survivors keep their own. `report` (may be NULL) says what was done. Every rank calls it with the same
 * states. Not where nodes of several ranks exchange hierarchically: such a state fits the same rank of as many nodes of as many
 * ranks alone. Synchronises. */
GS_API gsResult_t gsReducerImportRanks(gsReducer_t reducer, const void *const *states, const size_t *bytes, int nstates,
                                       char *report, size_t reportBytes);

/* ---- iterates and turns --------------------------------------------------------------------------------------------- */

typedef struct {
    size_t size;           /* sizeof(gsParams_t) */
    uint32_t version;      /* GS_VERSION_CODE */
    gsDataType_t datatype; /* of params and xi: any floating type */
    const void *params;    /* `count` elements, where gradients live: the iterate of the gradients to come */
    const void *stale;     /* lasg-wk: the coming call's minibatch's gradient, of the reducer's type, at the iterate of
                              the last gradient sent; NULL for others */
    const void *xi;        /* gdsec: `count` factors on the key xi, by coordinate; NULL: 1 */
    double smoothness;     /* lag-ps: L of this rank's own function */
    double stepSize;       /* of the step that led here; lag-* and their kin, and tng's reference "params" */
} gsParams_t;
#define GS_PARAMS_INIT                                                          \
    {                                                                           \
        sizeof(gsParams_t), GS_VERSION_CODE, GS_FLOAT32, NULL, NULL, NULL, 0, 0 \
    }

/* Where the iterate is: gdsec and lag-ps need it, lag-wk and tng's "params" use it. The pointers are kept and read by every later
 * gsAllReduce of the reducer, before recvbuff is written; call again when the step size changes. Not while calls are queued. */
GS_API gsResult_t gsReducerSetParams(gsReducer_t reducer, const gsParams_t *params);

/* lag-ps: 0 where the coming gsAllReduce will not ask this rank for its gradient: it need not be computed, and sendbuff may hold
 * anything. The call has to be made all the same. Always 1 for other recipes. Synchronises. */
GS_API gsResult_t gsReducerWantsGradient(gsReducer_t reducer, int *wants);

/* takesPart 0: from its next call on this rank sends nothing and keeps what it remembers; its last contribution counts on, as h.
 * Recipes that remember h only, and not with randk, whose mask all ranks draw together. */
GS_API gsResult_t gsReducerSetParticipation(gsReducer_t reducer, int takesPart);

/* Writes the gradient at params; 0 on success. All pointers are host memory of one type. */
typedef int (*gsGradientFunction)(const void *params, void *gradient, void *context);

/* lag-ps's L where it is not known: the largest curvature of a function at params (host memory, `count` of GS_FLOAT32 or
 * GS_FLOAT64), by power iteration on differences of its gradient, iterations + 1 of which are computed. The estimate grows
 * towards the value with every iteration; for quadratics it is exact in the limit. */
GS_API gsResult_t gsEstimateSmoothness(gsGradientFunction gradient, void *context, const void *params, size_t count,
                                       gsDataType_t datatype, int iterations, uint64_t seed, double *smoothness);

/* ---- which exchange pays: the cost model ----------------------------------------------------------------------------- */

/* How a gradient travels: dense, or by a recipe's exchange=. */
typedef enum {
    GS_MODE_DENSE = 0,
    GS_MODE_CAPACITY = 1,
    GS_MODE_EXACT = 2,
    GS_MODE_OWNER = 3,
    GS_MODE_OWNER_EXACT = 4,
    GS_MODE_HIERARCHICAL = 5
} gsMode_t;
#define GS_MODES 6
GS_API const char *gsGetModeName(gsMode_t mode); /* as the recipe spells it; never NULL */

typedef enum { GS_OVER_MPI = 0, GS_OVER_THREADS = 1, GS_OVER_NCCL = 2 } gsOver_t;

/* A cluster, as far as the model knows it. All times in seconds. 0 where a figure is not known: gsCommMeasure measures it, others
 * take the default in brackets. */
typedef struct gsCluster {
    size_t size;      /* sizeof(gsCluster_t) */
    uint32_t version; /* GS_VERSION_CODE */
    int32_t ranks;
    int32_t ranksPerNode; /* (1) */
    int32_t over;         /* GS_OVER_ */
    double latency;       /* between nodes: until a short message has come (10 us) */
    double
        bandwidth; /* between nodes: bytes a second out of a node, and as many into it, its ranks together (12.5e9) */
    double nodeLatency;   /* inside a node (2 us) */
    double nodeBandwidth; /* inside a node: of a rank, each way, while all its ranks send (5e9; NCCL 200e9) */
    double message;       /* what a rank spends on a message besides (1 us) */
    double call;          /* encoding and decoding, however short the gradient (20 us) */
    double encode; /* an element encoded (by the recipe: 0.9 ns for threshold on one core; NCCL: a 100th of a core's) */
    double decode; /* a coordinate of a record decoded (3 ns, 0.15 where all coordinates travel) */
    double write;  /* an element of the result written by decoding (0.35 ns) */
    double sum;    /* an element of a dense sum: added over the ranks, where the library does it, and written (1 ns) */
} gsCluster_t;
#define GS_CLUSTER_INIT                                                             \
    {                                                                               \
        sizeof(gsCluster_t), GS_VERSION_CODE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/* Collective. Fills what is 0 in *cluster with what this communicator's own calls take, in well under a second, and ranks,
 * ranksPerNode and over with its own. The codec's speed is that of config's recipe, type and count; NULL: of
 * threshold:density=0.01. All ranks end with equal figures, the slowest rank's. Synchronises. */
GS_API gsResult_t gsCommMeasure(gsComm_t comm, const gsReducerConfig_t *config, gsCluster_t *cluster);

/* What the model says of one call. It knows no more of a gradient than its recipe does: records of recipes that may be silent
 * are taken to be sent, and those whose recipe names no density to fill their capacity. */
typedef struct {
    gsMode_t mode; /* the fastest that is possible */
    double
        seconds[GS_MODES];  /* by gsMode_t; below 0: the recipe, or this number of ranks or nodes, does not allow it */
    double bytes[GS_MODES]; /* that leave a rank, the mean */
    double nodeBytes[GS_MODES]; /* that leave a node, all its ranks together */
    double density;             /* of a record, as expected */
    double
        breakEven; /* where a flat all-gather of records sends as much as a dense ring: 2 b_dense / (ranks b_coordinate) bits;
                                     above it no link is slow enough for `capacity` */
} gsPlan_t;

/* Chooses for a recipe, whatever its own exchange= says. */
GS_API gsResult_t gsPlanChoose(const gsReducerConfig_t *config, const gsCluster_t *cluster, gsPlan_t *plan);

/* The same in words, at most `bytes` with the 0 at the end: each mode's time and bytes, and why one won. 4096 are enough. */
GS_API gsResult_t gsPlanExplain(const gsReducerConfig_t *config, const gsCluster_t *cluster, char *text, size_t bytes);

/* How this reducer's gradients travel: with exchange=auto, what was chosen. Steps that a recipe sends dense are not meant. */
GS_API gsResult_t gsReducerGetMode(gsReducer_t reducer, gsMode_t *mode);

/* ---- optimizer steps ------------------------------------------------------------------------------------------------ */

/* One pass over vectors of `count` elements, where the communicator computes; params, m, v and vmax change in place, and must overlap
 * neither each other nor the gradient.
 *   momentum  m = beta1 m + g; x -= stepSize m
 *   AMSGrad   m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2; vmax = max(vmax, v); x -= stepSize m / sqrt(vmax + epsilon)
 *             (Reddi, Kale, Kumar, ICLR 2018, without bias correction; epsilon inside the root as in CD-Adam)
 *   AdamW     Loshchilov, Hutter, ICLR 2019, Algorithm 2, with bias correction by `step` */
typedef enum { GS_MOMENTUM = 0, GS_AMSGRAD = 1, GS_ADAMW = 2 } gsOptimizerKind_t;

typedef struct {
    size_t size;            /* sizeof(gsOptimizer_t) */
    uint32_t version;       /* GS_VERSION_CODE */
    gsOptimizerKind_t kind; /* momentum reads and writes params and m; AdamW also v; AMSGrad also vmax */
    gsDataType_t datatype;  /* of these vectors: GS_FLOAT32 or GS_FLOAT64 */
    double stepSize, beta1, beta2, epsilon, weightDecay;
    uint64_t step; /* AdamW: which one this is, from 1; 0, with gsAllReduceStep alone: the reducer's next */
    void *params, *m, *v, *vmax;
} gsOptimizer_t;
#define GS_OPTIMIZER_INIT                                                                                           \
    {                                                                                                               \
        sizeof(gsOptimizer_t), GS_VERSION_CODE, GS_MOMENTUM, GS_FLOAT32, 1e-3, 0.9, 0.99, 1e-8, 0.0, 0, NULL, NULL, \
            NULL, NULL                                                                                              \
    }

/* A step by a gradient of the vectors' type. */
GS_API gsResult_t gsOptimizerStep(gsComm_t comm, const gsOptimizer_t *optimizer, const void *gradient, size_t count,
                                  gsStream_t stream);

/*
 * gsAllReduce and the step in one pass: where the result would be written, the parameters take their step by it. 8 bytes an element less
 * move than in two calls (float64: 16), and a launch less is made. The gradient is not modified, and no result remains.
 *
 * The vectors have the reducer's count and its state's type: GS_FLOAT64 for float64 gradients, otherwise GS_FLOAT32; of a list's reducer
 * its tensors, one behind the other. For float32 and float64 gradients the bits are those of gsAllReduce and gsOptimizerStep; a float16 or
 * bfloat16 result is not rounded before the step.
 *
 * A NaN or Inf on one rank: no rank takes a step, as with a loss scaler. It is counted (gsStats_t.nonFinite), and neither the vectors nor
 * any state has changed. Nor has an error left anything changed, and the call can be made again.
 *
 * In a captured graph the settings and addresses are those of the capture. AdamW with step = 0 counts with the reducer, on the
 * device: the exchanges that it has committed, a resumed job's (gsReducerImport) included, and no step that was not taken.
 *
 * Two-way recipes need a place for the result that comes between: ef21's, cdadam's among them, have one; others expect
 * exchange=owner or hierarchical. Lists of two-way recipes likewise.
 */
GS_API gsResult_t gsAllReduceStep(const void *gradient, size_t count, gsDataType_t datatype, gsRedOp_t op,
                                  const gsOptimizer_t *optimizer, gsReducer_t reducer, gsStream_t stream);

/* ---- advanced: single stages, for those who bring their own transport ------------------------------------------------ */
#ifdef GS_ADVANCED

/* A communicator that is rank `rank` of `nranks` and moves nothing itself: its reducers take the calls below, not gsAllReduce
 * or gsReduceScatter. The caller answers for equal configurations on all ranks; gsDecode checks them. What moves lies in memory
 * of the communicator's kind, aligned to 16. Not for gsAllGather, dense steps, second halves, and owners or nodes in an all-reduce.
 *
 *   all-reduce       gsEncode: a record          the caller moves it to all      gsDecode: nranks records -> the sum
 *   reduce-scatter   gsEncode: nranks parts      part q to rank q                gsSumParts: nranks parts -> a seal
 *                                                the seal to all                 gsDecode: nranks seals -> the slice of the sum
 *
 * Before all seals are there, no rank knows that the others were sent what they should; so it is gsDecode that settles the step, for
 * all ranks or for none. */
GS_API gsResult_t gsCommInitStages(gsComm_t *comm, int rank, int nranks, const gsCommConfig_t *config);
GS_API gsResult_t gsCommInitStagesCuda(gsComm_t *comm, int rank, int nranks, const gsCommConfig_t *config);

/* Room that a record needs, of a reduce-scatter a part, a multiple of 16: the slot of `capacity` mode. 0 for dense. */
GS_API gsResult_t gsReducerGetSlotBytes(gsReducer_t reducer, size_t *slotBytes);

/* Writes this rank's record of this step into `record` (one slot; of a reduce-scatter nranks slots, part q the q-th, and count is
 * its recvcount). Changes no state: a second gsEncode of the same step gives the same bytes. */
GS_API gsResult_t gsEncode(const void *sendbuff, void *record, size_t count, gsDataType_t datatype, gsReducer_t reducer,
                           gsStream_t stream);

/* A reduce-scatter: sums the parts that this rank was sent (nranks slots in rank order) for its gsDecode, and tells in `seal`
 * (GS_SEAL_BYTES) what came up: parts are checked first, whole, and may hold any bytes. Changes no state, and is no error where a
 * part is wrong: gsDecode's is, on all ranks. Must follow the gsEncode of the same step. */
#define GS_SEAL_BYTES 32
GS_API gsResult_t gsSumParts(const void *parts, void *seal, gsReducer_t reducer, gsStream_t stream);

/* Sums the records of all ranks (nranks slots in rank order) into recvbuff and commits this rank's state. Must follow the gsEncode of
 * the same step. Records are checked first, whole, and may hold any bytes. Of a reduce-scatter `records` are the seals of all ranks
 * (GS_SEAL_BYTES each, in rank order), of which one that tells of a wrong part, or is of another step, is an error; count is
 * recvcount, recvbuff gets the slice, in place too, and gsSumParts must have come before. */
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
    uint64_t whole;      /* elements of tensors that travel whole, beside `kept` */
    uint32_t tensors;    /* of a list; 0: one gradient */
    const char *layout;  /* "global", "chunked", "mask", "all", "rows" */
    const char *value;   /* "f32", "bf16", "shared", "f64", "f16", "sign", "ternary", "levels", "natural",
                            "grid", "2bit" */
} gsRecordInfo_t;
#define GS_RECORD_SKIP 1u        /* this rank sends nothing; there is no more than the header */
#define GS_RECORD_NONFINITE 2u   /* NaN or Inf in this rank's input */
#define GS_RECORD_THINNED 4u     /* more was kept than fitted; unbiased thinning was applied */
#define GS_RECORD_DENSE 8u       /* reserved: values of all coordinates */
#define GS_RECORD_OVERFLOWED 16u /* more was kept than fitted; the rest stayed in the residual */
#define GS_RECORD_AVERAGE 32u    /* made by a gsAllReduce with GS_AVG */
#define GS_RECORD_REFERENCES 64u /* coefficients of references follow the segment */
#define GS_RECORD_MAP 128u       /* shared: the coordinates of one magnitude travel as a ternary map */

/* The elements of the gradient that this rank's state is about: all of them, but with exchange=hierarchical and gsAllGather. */
GS_API gsResult_t gsReducerGetSlice(gsReducer_t reducer, size_t *first, size_t *count);

/* What a reducer remembers, to host memory: `count` (the slice's) floats (doubles for GS_FLOAT64), a list's tensors
 * one behind the other. name: "residual", "momentum",
 * "memory" (own h), "shared" (H, the sum of all ranks' h), "previous" and "anchor" (iterates), "before" (clag: the last
 * gradient), "last", "ema", "ema2", "snapshot"; "server." before it for the second half of a two-way reducer.
 * Synchronises. */
GS_API gsResult_t gsReducerRead(gsReducer_t reducer, const char *name, void *values, size_t count);

/* Reads a record in host memory: `bytes` are there, any of them may be wrong. Checks everything but the configuration. */
GS_API gsResult_t gsRecordInspect(const void *record, size_t bytes, gsRecordInfo_t *info);

#endif /* GS_ADVANCED */

#ifdef __cplusplus
}
#endif
#endif /* GRADSIEVE_H */

/* What is fixed for a reducer: the pipeline that a recipe names, and the sizes that follow from it. Travels by value into kernels. */
#ifndef GS_RULES_SPEC_H
#define GS_RULES_SPEC_H

#include "../wire.h"

enum {
    GS_SELECT_DENSE = 0,     /* no record: the plain sum */
    GS_SELECT_THRESHOLD = 1, /* |a| > tau */
    GS_SELECT_TOPK = 2,      /* the k largest of every 4096 */
    GS_SELECT_GSPAR = 3,     /* with probability min(s |a|, 1) */
    GS_SELECT_RANDK = 4,     /* with one probability; layout "mask": all ranks alike */
    GS_SELECT_LARGEST = 5,   /* the k largest of all */
    GS_SELECT_STEP = 6,      /* |a| > (xi / ranks) |theta - theta before| */
    GS_SELECT_ALL = 7,
    GS_SELECT_ROWS = 8 /* every row that is not all 0 */
};

/* When a rank sends nothing. */
enum {
    GS_TRIGGER_NONE = 0,
    GS_TRIGGER_WORKER = 1, /* lag-wk: |a|^2 against recent steps */
    GS_TRIGGER_SERVER = 2, /* lag-ps: L^2 |theta - theta sent|^2 against them */
    GS_TRIGGER_STALE = 3,  /* lasg-wk: |g - g at theta sent|^2, one minibatch, against them */
    GS_TRIGGER_CODED = 4,  /* laq: |C(a)|^2 against them and the coding's errors */
    GS_TRIGGER_CHANGE = 5  /* clag: |a|^2 against |g - g before|^2 */
};

/* References that a gradient can be compared with: the entries of a pool, in this order. */
enum {
    GS_REFERENCE_ZERO = 0,
    GS_REFERENCE_MEAN = 1, /* the gradient's own mean, times ones: its coefficient is the mean */
    GS_REFERENCE_LAST = 2,
    GS_REFERENCE_EMA = 3,
    GS_REFERENCE_EMA2 = 4,
    GS_REFERENCE_WINDOW = 5,
    GS_REFERENCE_PARAMS = 6,
    GS_REFERENCE_SNAPSHOT = 7
};

/* Who chooses among them. */
enum { GS_SEARCH_NONE = 0, GS_SEARCH_WORKER = 1, GS_SEARCH_HINDSIGHT = 2, GS_SEARCH_FIT = 3 };

/* A block of a list of tensors, each of which begins a block of its own. */
typedef struct {
    uint64_t offset; /* of its first element in its tensor, */
    uint64_t first;  /* and in all tensors, one behind the other */
    uint64_t place;  /* where its codes begin: among the whole values, the slots of "chunked", or all codes */
    uint32_t tensor;
    uint16_t length;
    uint16_t whole; /* of a tensor that travels whole */
} gsListBlock;

/* How records reach the ranks that sum them. */
enum {
    GS_EXCHANGE_CAPACITY = 0,     /* all to all, in fixed slots */
    GS_EXCHANGE_EXACT = 1,        /* with their true lengths */
    GS_EXCHANGE_OWNER = 2,        /* a part of each to the rank that owns its blocks, and the owners' sums to all */
    GS_EXCHANGE_OWNER_EXACT = 3,  /* likewise, with true lengths */
    GS_EXCHANGE_HIERARCHICAL = 4, /* dense inside a node, in slots between nodes */
    GS_EXCHANGE_AUTO = 5          /* what the cost model says; never left in a reducer's spec */
};

/* What a call is: the whole of an all-reduce, or one of its halves, whose vector is as many slices as ranks. gsCollective_t's values. */
enum { GS_HALF_NONE = 0, GS_HALF_SCATTER = 1, GS_HALF_GATHER = 2 };

#define GS_MAX_WINDOW 32
#define GS_WARMUP_STAGES 5 /* of a density that falls to its own, in powers of its sixth root (Lin et al. 2018) */

typedef struct {
    uint64_t count; /* elements */
    uint64_t seed;
    uint64_t configHash;   /* alike on all ranks; of everything here but rank and the call's own */
    uint64_t slotBytes;    /* room of a record; 0 for dense */
    uint64_t target;       /* wanted kept coordinates; threshold with fixed tau: 0 */
    uint64_t capacity;     /* most kept coordinates in a record */
    uint64_t partCapacity; /* owner: in a part's record, and that record's room */
    uint64_t partSlot;
    uint64_t warmTarget[GS_WARMUP_STAGES];
    double density;       /* as the recipe gives it */
    double capacityShare; /* likewise; 0: by default */
    double epsilon;       /* gspar: variance budget of the closed form; 0: the greedy one, by density */
    double rms;           /* threshold: tau = rms * the root mean square of a; 0: not so */
    double lambda;        /* memory: h += lambda C(a) */
    double nu;            /* memory: result = H + nu sum C(a) */
    double xi;            /* of the trigger and of GS_SELECT_STEP */
    double momentum;      /* u = momentum u + g; 0: none */
    double clip;          /* g is cut to this norm / sqrt(ranks) first; 0: not */
    double ema[2];        /* references: r += ema (result - r) */
    uint64_t listHash;    /* of a list of tensors: of their sizes */
    uint64_t whole;       /* of a list: elements of tensors that travel whole, in the record of the others */
    uint64_t places;      /* of a list: codes where every chosen coordinate has one, see gsListPlaces */
    uint32_t tensors;     /* of a list; 0: one gradient */
    uint32_t wholeValue;  /* GS_VALUE_ of the whole tensors */
    uint32_t blocks;      /* ceil(count / GS_BLOCK), of each tensor */
    uint32_t first;       /* block b stands for block first + b stride of the gradient and of what is remembered */
    uint32_t stride;
    uint32_t parts; /* ranks' records are of parts (part.h), as many as ranks; 0: each is of the whole */
    uint32_t half;  /* GS_HALF_; of a gather everything here is about the own slice */
    uint32_t rank;
    uint32_t nranks;
    uint32_t type;        /* gsDataType_t */
    uint32_t select;      /* GS_SELECT_ */
    uint32_t layout;      /* GS_LAYOUT_ */
    uint32_t value;       /* GS_VALUE_ */
    uint32_t k;           /* chunk-topk */
    uint32_t levels;      /* GS_VALUE_LEVELS: s */
    uint32_t width;       /* layout "rows": elements of a row */
    uint32_t aux;         /* layout "all": the segment's */
    uint32_t window;      /* remembered steps of the trigger, or vectors of a reference */
    uint32_t warmup;      /* steps of each stage of the warm-up; 0: none */
    uint32_t refresh;     /* every so many steps one travels dense and becomes the snapshot; 0: never */
    uint32_t resync;      /* every so many steps H is summed anew from all h; 0: never */
    uint32_t participate; /* so many ranks a step take part, in turn; 0: all */
    uint32_t pool;        /* a bit a reference */
    uint32_t search;      /* GS_SEARCH_ */
    uint32_t trigger;     /* GS_TRIGGER_ */
    uint32_t staleness;   /* the trigger: silent for at most so many steps; 0: any number */
    float tau;            /* threshold: fixed, or -1 when it follows the density */
    uint8_t wide;         /* state and sums are float64 */
    uint8_t feedback;     /* what does not travel stays in e */
    uint8_t memory;       /* own h, and H, the sum of everybody's */
    uint8_t random;     /* draws decide, the mean is kept: an overflow is thinned, values are rounded stochastically */
    uint8_t quotient;   /* a = g / r, not g - r */
    uint8_t firstDense; /* the first step travels dense */
    uint8_t exchange;   /* GS_EXCHANGE_ */
    uint8_t twoway;     /* the result is compressed again */
    uint8_t bypassed;   /* dense because of GS_DISABLE */
    /* of the call under way, set by the host: ranks must agree on the first two */
    uint8_t average;     /* the op; single stages: 0 */
    uint8_t denseNow;    /* a travels dense in this step */
    uint8_t absent;      /* this rank takes no part */
    uint8_t spread;      /* sums go to the blocks that they stand for; otherwise side by side */
    uint8_t iterate;     /* the caller gave its parameters */
    uint8_t preview;     /* accumulate: the result alone, memories stay as they are */
    uint32_t paramsType; /* gsDataType_t */
    double stepSize, smoothness;
    /* of a list, in the backend's memory; NULL otherwise */
    const gsListBlock *list;
    const gsRecordSegment *entries; /* of its tensors in a record's segment table */
} gsSpec;

/* Elements of a vector of the state, as it travels: of a list whole blocks. */
GS_HD uint64_t gsVectorElements(const gsSpec *s)
{
    return s->tensors ? (uint64_t)s->blocks * GS_BLOCK : s->count;
}

/* Elements of block b: GS_BLOCK, fewer in a tensor's last. */
GS_HD uint32_t gsBlockLength(const gsSpec *s, uint64_t b)
{
    uint64_t left = s->count - b * GS_BLOCK;
    if (s->list)
        return s->list[b].length;
    return left < GS_BLOCK ? (uint32_t)left : GS_BLOCK;
}

/* Its first element in a vector, or in a list's tensors, one behind the other. */
GS_HD uint64_t gsBlockFirst(const gsSpec *s, uint64_t b)
{
    return s->list ? s->list[b].first : b * GS_BLOCK;
}

GS_HD int gsBlockIsWhole(const gsSpec *s, uint64_t b)
{
    return s->list && s->list[b].whole;
}

/* Elements that are selected from: all but the whole tensors'. */
GS_HD uint64_t gsChosen(const gsSpec *s)
{
    return s->count - s->whole;
}

/* How the elements of a record of `count` lie: a list's are always the list's. */
GS_HD gsRecordExtent gsSpecExtent(const gsSpec *s, uint64_t count)
{
    gsRecordExtent e;
    if (!s->tensors)
        return gsPlainExtent(count, s->k);
    e.chosen = count - s->whole;
    e.whole = s->whole;
    e.places = s->places;
    e.fixed = s->capacity;
    e.blocks = s->parts ? s->blocks / s->parts : s->blocks;
    e.tensors = s->tensors;
    e.wholeValue = s->wholeValue;
    return e;
}

/* Where the codes of block b begin, in slots, if that does not depend on the gradient. */
GS_HD uint64_t gsBlockPlace(const gsSpec *s, uint64_t b)
{
    if (s->list)
        return s->list[b].place;
    return b * (s->layout == GS_LAYOUT_CHUNKED ? s->k : GS_BLOCK);
}

/* Whether a = "the gradient against what is remembered" is made by a pass of its own, because more than g + e goes into it or
 * because it is read more than once. */
GS_HD int gsSpecPrepares(const gsSpec *s)
{
    return s->memory || s->pool || s->momentum > 0.0 || s->clip > 0.0 || s->trigger ||
           (s->feedback && (s->select == GS_SELECT_LARGEST || s->select == GS_SELECT_STEP ||
                            s->select == GS_SELECT_ALL || s->rms > 0.0 || s->value == GS_VALUE_F16));
}

/* Whether selection itself adds the residual. */
GS_HD int gsSpecAdds(const gsSpec *s)
{
    return s->feedback && !gsSpecPrepares(s);
}

/* Whether the result is more than the sum of the records. */
GS_HD int gsSpecRemembers(const gsSpec *s)
{
    return s->memory || s->pool || s->trigger;
}

GS_HD int gsSpecReadsIterate(const gsSpec *s)
{
    return s->select == GS_SELECT_STEP || (s->trigger && s->trigger != GS_TRIGGER_CHANGE) ||
           (s->pool >> GS_REFERENCE_PARAMS & 1u);
}

/* Whether a slot's coding rounds by a draw: levels always do, numbers where the mean has to be kept and something is lost. */
GS_HD int gsSlotDraws(const gsSpec *s)
{
    if (s->value == GS_VALUE_LEVELS)
        return 1;
    return s->random && s->value != GS_VALUE_F64 &&
           (s->wide || (s->value != GS_VALUE_F32 && s->value != GS_VALUE_SHARED));
}

/* Whether the iterate of the last gradient sent is kept. */
GS_HD int gsSpecAnchors(const gsSpec *s)
{
    return s->trigger == GS_TRIGGER_SERVER || s->trigger == GS_TRIGGER_STALE;
}

/* Whether records travel with their true lengths. */
GS_HD int gsSpecIsExact(const gsSpec *s)
{
    return s->exchange == GS_EXCHANGE_EXACT || s->exchange == GS_EXCHANGE_OWNER_EXACT;
}

/* Whether records go to owners in parts. */
GS_HD int gsSpecHasOwners(const gsSpec *s)
{
    return s->exchange == GS_EXCHANGE_OWNER || s->exchange == GS_EXCHANGE_OWNER_EXACT;
}

/* A half's slice: what a rank gets of a scattered sum, or gives to be gathered. */
GS_HD uint64_t gsSliceCount(const gsSpec *s)
{
    return s->half == GS_HALF_GATHER ? s->count : s->count / s->nranks;
}

/* How many of the pool's references there are. */
GS_HD uint32_t gsPoolSize(uint32_t pool)
{
    uint32_t n = 0;
    for (; pool; pool &= pool - 1)
        n++;
    return n;
}

/* What a record's segment says of its layout. */
GS_HD uint32_t gsSpecAux(const gsSpec *s)
{
    return s->layout == GS_LAYOUT_CHUNKED ? s->k : s->layout == GS_LAYOUT_ROWS ? s->width : s->aux;
}

/* Whether this rank's turn has come, where ranks take turns. */
GS_HD int gsTakesTurn(const gsSpec *s, uint64_t step)
{
    uint64_t first;
    if (s->participate == 0 || s->participate >= s->nranks)
        return 1;
    first = step * s->participate % s->nranks;
    return (s->rank + s->nranks - first) % s->nranks < s->participate;
}

#endif

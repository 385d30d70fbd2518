/*
 * What is fixed for a reducer (gsSpec), what one call finds out (gsCall), what lives from call to call (gsState), and the
 * arithmetic that leads from one to the next. One thread of a backend runs these functions, between the parallel stages.
 */
#ifndef GS_RULES_CALL_H
#define GS_RULES_CALL_H

#include "../wire.h"
#include "checksum.h"
#include "gspar.h"
#include "philox.h"
#include "randk.h"
#include "thin.h"
#include "threshold.h"
#include "topk.h"

enum { GS_SELECT_DENSE = 0, GS_SELECT_THRESHOLD = 1, GS_SELECT_TOPK = 2, GS_SELECT_GSPAR = 3, GS_SELECT_RANDK = 4 };

/* Fixed at creation. Plain data: travels by value into kernels. */
typedef struct {
    uint64_t count; /* elements */
    uint64_t seed;
    uint64_t configHash;  /* alike on all ranks; of everything here but rank */
    uint64_t slotBytes;   /* room of a record; 0 for dense */
    uint64_t target;      /* wanted kept coordinates; threshold with fixed tau: 0 */
    uint64_t capacity;    /* most kept coordinates in a record, below 2^32 */
    double density;       /* as the recipe gives it */
    double capacityShare; /* likewise; 0: by default */
    uint32_t blocks;      /* ceil(count / GS_BLOCK) */
    uint32_t rank;
    uint32_t nranks;
    uint32_t type;   /* gsDataType_t */
    uint32_t select; /* GS_SELECT_ */
    uint32_t layout; /* GS_LAYOUT_ */
    uint32_t value;  /* GS_VALUE_ */
    uint32_t k;      /* chunk-topk */
    float tau;       /* threshold: fixed, or -1 when it follows the density */
    uint8_t feedback;
    uint8_t random;
    uint8_t bypassed; /* dense because of GS_DISABLE */
    uint8_t average;  /* the op of the call under way, set by gsAllReduce: ranks must agree; single stages: 0 */
} gsSpec;

/* One call's findings. */
typedef struct {
    uint64_t step; /* the step that select worked for */
    float tau;     /* threshold: in force */
    float tauNext;
    float s;            /* gspar: p = min(s |g|, 1); randk: the probability */
    float inverse;      /* gspar, randk: 1/s, what a value is multiplied by or replaced with */
    uint32_t nonFinite; /* select saw a NaN or Inf in g + e */
    uint32_t flags;     /* of the record */
    gsThinning group[2];
    gsRecordSections sections;
} gsCall;

typedef struct {
    uint64_t calls, nonFinite, thinned, overflowed, lastKept, lastSent, keptTotal, sentTotal, payloadBytes;
} gsCounters;

/* Why records cannot be summed. */
enum {
    GS_FAULT_NONE = 0,
    GS_FAULT_CONFIG, /* mismatch: another recipe, count, type, seed or number of ranks */
    GS_FAULT_STEP,   /* mismatch: another step */
    GS_FAULT_OP,     /* mismatch: sum on one rank, average on another */
    GS_FAULT_RANK,   /* mismatch: not the record of this place */
    GS_FAULT_MAGIC,  /* corrupt, and so on */
    GS_FAULT_VERSION,
    GS_FAULT_FLAGS,
    GS_FAULT_LAYOUT,
    GS_FAULT_KEPT,
    GS_FAULT_LENGTH,
    GS_FAULT_CHECKSUM,
    GS_FAULT_TABLE,
    GS_FAULT_INDEX
};

typedef struct {
    uint64_t step;  /* committed exchanges */
    uint32_t phase; /* which residual is current */
    float tau;      /* threshold: the next call's; 0: unknown */
    uint32_t fault; /* sticky on devices: GS_FAULT_ of the first failed call */
    uint32_t faultRank;
    /* the call under way */
    uint32_t verdict; /* GS_FAULT_ of this call's records: the lowest rank's */
    uint32_t verdictRank;
    uint32_t anyNonFinite; /* a record of this call says so */
    uint32_t reserved;
    gsCall call;
    gsCounters counters;
} gsState;

/* Begins a call. */
GS_HD void gsCallBegin(const gsSpec *spec, gsState *state)
{
    gsCall *c = &state->call;
    memset(c, 0, sizeof *c);
    c->step = state->step;
    c->tau = state->tau;
    if (spec->select == GS_SELECT_RANDK) {
        c->s = (float)spec->density;
        c->inverse = 1.0f / c->s;
    }
}

/* Whether this call must find its tau in a histogram first. */
GS_HD int gsCallWantsHistogram(const gsSpec *spec, const gsState *state)
{
    return spec->select == GS_SELECT_THRESHOLD && spec->tau < 0.0f && state->tau == 0.0f;
}

/* gspar: takes s after one of its passes. pass 0: sum = |g|_1; later: sum and number of the coordinates with p < 1. */
GS_HD void gsCallRescale(const gsSpec *spec, gsCall *c, int pass, uint64_t below, double sum)
{
    c->s = pass == 0 ? gsGsparStart(spec->density, spec->count, sum)
                     : gsGsparRescale(c->s, spec->density, spec->count, below, sum);
    c->inverse = c->s > 0.0f ? gsSaturate(1.0f / c->s) : 0.0f;
}

/* How many of a group's first j kept coordinates are in the record; also the slot of coordinate j if it is. */
GS_HD uint64_t gsCallSlot(const gsSpec *spec, const gsCall *c, int group, uint64_t j)
{
    if (c->nonFinite)
        return 0;
    if (spec->feedback)
        return j < c->group[group].sent ? j : c->group[group].sent;
    return gsThinnedSlot(c->group[group], j);
}

/* Shares out the capacity between the groups: in proportion, at least 1 each where there is any. */
GS_HD void gsCallShareCapacity(uint64_t capacity, const uint64_t kept[2], uint64_t sent[2])
{
    uint64_t all = kept[0] + kept[1];
    sent[0] = kept[0];
    sent[1] = kept[1];
    if (all <= capacity)
        return;
    sent[0] = (uint64_t)((double)capacity * ((double)kept[0] / (double)all));
    if (sent[0] == 0 && kept[0] > 0)
        sent[0] = 1;
    if (sent[0] == capacity && kept[1] > 0)
        sent[0] = capacity - 1;
    if (sent[0] > kept[0])
        sent[0] = kept[0];
    sent[1] = capacity - sent[0];
    if (sent[1] > kept[1])
        sent[1] = kept[1];
}

/* After selection: kept[g] coordinates in each group -> the plan of the record. */
GS_HD void gsCallPlan(const gsSpec *spec, gsState *state, const uint64_t kept[2])
{
    gsCall *c = &state->call;
    uint64_t sent[2];
    uint32_t word = 0;
    int g;
    gsCallShareCapacity(spec->capacity, kept, sent);
    if (c->nonFinite)
        sent[0] = sent[1] = 0;
    if (!spec->feedback) /* the mask of randk is everybody's, and so is its thinning */
        word = gsDraw(spec->seed, 0, state->step, spec->layout == GS_LAYOUT_MASK ? 0 : spec->rank, GS_DRAW_THIN);
    for (g = 0; g < 2; g++)
        c->group[g] = gsThinningOf(kept[g], sent[g], word);
    c->sections = gsRecordLayout(spec->layout, spec->value, spec->blocks, sent);
    c->flags = 0;
    if (c->nonFinite)
        c->flags = GS_FLAG_NONFINITE;
    else if (sent[0] + sent[1] < kept[0] + kept[1])
        c->flags = spec->feedback ? GS_FLAG_OVERFLOWED : GS_FLAG_THINNED;
    if (spec->average)
        c->flags |= GS_FLAG_AVERAGE;
    c->tauNext = c->tau;
    if (spec->select == GS_SELECT_THRESHOLD && spec->tau < 0.0f)
        c->tauNext = gsTauNext(c->tau, kept[0], spec->target, spec->capacity);
}

/* The header of the planned record, checksum left 0. */
GS_HD gsRecordHeader gsCallHeader(const gsSpec *spec, const gsState *state)
{
    const gsCall *c = &state->call;
    gsRecordHeader h;
    h.magic = GS_RECORD_MAGIC;
    h.version = GS_RECORD_VERSION;
    h.flags = (uint16_t)c->flags;
    h.rank = spec->rank;
    h.segments = 1;
    h.layout = (uint8_t)spec->layout;
    h.value = (uint8_t)spec->value;
    h.step = state->step;
    h.count = spec->count;
    h.kept = c->group[0].sent + c->group[1].sent;
    h.configHash = spec->configHash;
    h.recordBytes = c->sections.bytes;
    h.checksum = 0;
    return h;
}

GS_HD gsRecordSegment gsCallSegment(const gsSpec *spec, const gsCall *c)
{
    gsRecordSegment s;
    s.count = spec->count;
    s.aux = 0;
    s.scale = 0.0f;
    if (spec->layout == GS_LAYOUT_CHUNKED)
        s.aux = spec->k;
    if (spec->value == GS_VALUE_SHARED) {
        s.aux = (uint32_t)c->group[0].sent;
        s.scale = gsSaturate(c->inverse * c->group[1].gain);
    }
    return s;
}

/* How many slots a received record has in each group. */
GS_HD void gsRecordSlots(const gsRecordHeader *h, const gsRecordSegment *segment, uint64_t slots[2])
{
    slots[0] = h->value == GS_VALUE_SHARED && segment->aux < h->kept ? segment->aux : h->kept;
    slots[1] = h->kept - slots[0];
}

/* A header and its segment on their own: everything but checksum and sections. `room` bytes may be read. */
GS_HD uint32_t gsHeaderFault(const gsRecordHeader *h, const gsRecordSegment *segment, uint64_t room)
{
    uint64_t slots[2];
    uint64_t blocks = h->count / GS_BLOCK + (h->count % GS_BLOCK != 0);
    if (h->magic != GS_RECORD_MAGIC)
        return GS_FAULT_MAGIC;
    if (h->version != GS_RECORD_VERSION)
        return GS_FAULT_VERSION;
    if (h->flags & ~(GS_FLAGS_KNOWN & ~(GS_FLAG_SKIP | GS_FLAG_DENSE)))
        return GS_FAULT_FLAGS;
    if (h->layout > GS_LAYOUT_MASK || h->value > GS_VALUE_SHARED || h->segments != 1 || segment->count != h->count ||
        blocks > 0xffffffffull || (h->value == GS_VALUE_SHARED && h->layout != GS_LAYOUT_GLOBAL) ||
        !gsIsFinite(segment->scale))
        return GS_FAULT_LAYOUT;
    if (h->kept > GS_RECORD_MAX_KEPT || h->kept > h->count || (h->value == GS_VALUE_SHARED && segment->aux > h->kept))
        return GS_FAULT_KEPT;
    if ((h->flags & GS_FLAG_NONFINITE) && h->kept != 0)
        return GS_FAULT_KEPT;
    if (h->layout == GS_LAYOUT_CHUNKED && !(h->flags & GS_FLAG_NONFINITE) &&
        (segment->aux < 1 || segment->aux > GS_BLOCK || h->kept != gsTopkTotal(segment->aux, h->count)))
        return GS_FAULT_KEPT;
    gsRecordSlots(h, segment, slots);
    if (h->recordBytes > room || h->recordBytes != gsRecordLayout(h->layout, h->value, (uint32_t)blocks, slots).bytes)
        return GS_FAULT_LENGTH;
    return GS_FAULT_NONE;
}

/* A received header against what this rank expects in place `rank`. */
GS_HD uint32_t gsExpectedFault(const gsSpec *spec, const gsState *state, const gsRecordHeader *h,
                               const gsRecordSegment *segment, uint32_t rank)
{
    if (h->magic != GS_RECORD_MAGIC)
        return GS_FAULT_MAGIC;
    if (h->version != GS_RECORD_VERSION)
        return GS_FAULT_VERSION;
    if (h->configHash != spec->configHash || h->count != spec->count)
        return GS_FAULT_CONFIG;
    if (h->rank != rank)
        return GS_FAULT_RANK;
    if (h->step != state->step || state->call.step != state->step)
        return GS_FAULT_STEP;
    if (((h->flags & GS_FLAG_AVERAGE) != 0) != (spec->average != 0))
        return GS_FAULT_OP;
    if (h->layout != spec->layout || h->value != spec->value ||
        (spec->layout == GS_LAYOUT_CHUNKED && segment->aux != spec->k))
        return GS_FAULT_LAYOUT;
    if (h->kept > spec->capacity)
        return GS_FAULT_KEPT;
    if (spec->layout == GS_LAYOUT_MASK && !(h->flags & GS_FLAG_NONFINITE) && !state->call.nonFinite &&
        h->kept != state->call.group[0].sent)
        return GS_FAULT_KEPT;
    return gsHeaderFault(h, segment, spec->slotBytes);
}

/* The end of a call: state and counters, by what the records' verdict says. Returns whether anything was committed. */
GS_HD int gsCallCommit(const gsSpec *spec, gsState *state)
{
    const gsCall *c = &state->call;
    gsCounters *n = &state->counters;
    if (state->fault == GS_FAULT_NONE && state->verdict != GS_FAULT_NONE) {
        state->fault = state->verdict;
        state->faultRank = state->verdictRank;
    }
    if (state->fault != GS_FAULT_NONE)
        return 0;
    n->calls++;
    n->nonFinite += state->anyNonFinite != 0;
    if (spec->select == GS_SELECT_DENSE) {
        n->lastKept = n->lastSent = spec->count;
        n->payloadBytes += spec->count * (spec->type == 7 ? 4 : 2); /* GS_FLOAT32, else two bytes */
    } else {
        n->thinned += (c->flags & GS_FLAG_THINNED) != 0;
        n->overflowed += (c->flags & GS_FLAG_OVERFLOWED) != 0;
        n->lastKept = c->nonFinite ? 0 : c->group[0].kept + c->group[1].kept;
        n->lastSent = c->group[0].sent + c->group[1].sent;
        n->payloadBytes += c->sections.bytes;
    }
    n->keptTotal += n->lastKept;
    n->sentTotal += n->lastSent;
    if (state->anyNonFinite || c->nonFinite) /* the own residual too, whatever the caller made of the own record */
        return 0;
    state->step++;
    if (spec->feedback)
        state->phase ^= 1u;
    if (spec->select == GS_SELECT_THRESHOLD)
        state->tau = c->tauNext;
    return 1;
}

#endif

/*
 * What one call finds out (gsCall), what lives from call to call (gsState), and the arithmetic that leads from one to the next.
 * One thread of a backend runs these functions, between the parallel stages.
 */
#ifndef GS_RULES_CALL_H
#define GS_RULES_CALL_H

#include "checksum.h"
#include "gspar.h"
#include "lag.h"
#include "part.h"
#include "philox.h"
#include "randk.h"
#include "reference.h"
#include "rows.h"
#include "spec.h"
#include "thin.h"
#include "threshold.h"
#include "topk.h"
#include "value.h"

/* Sums over a vector x, by the fixed tree; of the elements below a cut where there is one. */
typedef struct {
    double magnitudes; /* |x| */
    double squares;    /* x^2 */
    double plain;      /* x */
    double largest;    /* max |x|, of all elements */
    uint64_t below;    /* elements below the cut */
} gsSums;

/* One call's findings. */
typedef struct {
    uint64_t step; /* the step that select worked for */
    double tau;    /* threshold: in force */
    float tauNext;
    uint32_t nonFinite;              /* select saw a NaN or Inf in the gradient or in a */
    double s;                        /* gspar: p = min(s |a|, 1); randk: the probability */
    double inverse;                  /* gspar, randk: 1/s, what a value is multiplied by or replaced with */
    double largest;                  /* max |a|, where the value coding needs it */
    double clip;                     /* factor on the gradient */
    uint32_t flags;                  /* of the record */
    uint32_t skip;                   /* nothing is sent */
    uint64_t limit;                  /* topk: the bits of the k-th magnitude */
    uint64_t ties;                   /* topk: how many equal to it are kept, by index */
    float scale;                     /* of all values, where one scale serves all, and float16's */
    uint32_t choice;                 /* the reference */
    double coefficient[GS_MAX_POOL]; /* a = g - sum of coefficient * reference */
    double floor[GS_MAX_POOL];       /* quotient: the guard of each reference with coefficient 1 */
    double normalized;               /* |g - r|^2 / |g|^2 */
    double error;                    /* laq: |a - C(a)|^2 */
    double moved;                    /* |theta - theta before|^2, in the units of an aggregate */
    double total[GS_MAX_POOL];       /* owner: the coefficients of all ranks, summed */
    gsThinning group[2];
    gsRecordSections sections;
} gsCall;

typedef struct {
    uint64_t calls, nonFinite, thinned, overflowed, skipped, denseRounds;
    uint64_t lastKept, lastSent, lastExact, keptTotal, sentTotal, payloadBytes;
} gsCounters;

/* Why records cannot be summed. */
enum {
    GS_FAULT_NONE = 0,
    GS_FAULT_CONFIG,         /* mismatch: another recipe, count, type, seed or number of ranks */
    GS_FAULT_STEP,           /* mismatch: another step */
    GS_FAULT_OP,             /* mismatch: sum on one rank, average on another */
    GS_FAULT_RANK,           /* mismatch: not the record of this place */
    GS_FAULT_OWNER_MISMATCH, /* mismatch: an owner has found one */
    GS_FAULT_MAGIC,          /* corrupt, and so on */
    GS_FAULT_VERSION,
    GS_FAULT_FLAGS,
    GS_FAULT_LAYOUT,
    GS_FAULT_KEPT,
    GS_FAULT_LENGTH,
    GS_FAULT_CHECKSUM,
    GS_FAULT_TABLE,
    GS_FAULT_INDEX,
    GS_FAULT_VALUE,
    GS_FAULT_OWNER,     /* an owner has found a record corrupt */
    GS_FAULT_UNFINISHED /* no record's: an exchange was ended before all ranks had come to its last step */
};

typedef struct {
    uint64_t step;  /* committed exchanges */
    uint32_t phase; /* which of the double-buffered vectors is current */
    float tau;      /* threshold: the next call's; 0: unknown */
    uint32_t fault; /* sticky on devices: GS_FAULT_ of the first failed call */
    uint32_t faultRank;
    /* the call under way */
    uint32_t verdict; /* GS_FAULT_ of this call's records: the lowest rank's */
    uint32_t verdictRank;
    uint32_t anyNonFinite;  /* a record of this call says so */
    uint32_t choice;        /* search in hindsight: the next call's reference */
    uint32_t average;       /* the last committed call's op */
    uint32_t upstreamFault; /* owner, for the sum's record: what came up while the sum was made */
    /* lag */
    uint32_t recentAt; /* the oldest entry */
    uint32_t sent;     /* this rank has sent a gradient before */
    uint32_t silent;   /* steps since */
    uint32_t upstreamNonFinite;
    double sentError;             /* laq: what the coding lost then, squared */
    double recent[GS_MAX_WINDOW]; /* squared norms of aggregates, in sum form */
    /* what accumulate found: */
    double resultNorm;          /* |result|^2 in sum form */
    double missed[GS_MAX_POOL]; /* |result - reference|^2 in mean form */
    double correct[2];          /* AdamW's bias corrections in the call under way */
    gsCall call;
    gsCounters counters;
} gsState;

/* The wanted number of kept coordinates in this step. */
GS_HD uint64_t gsCallTarget(const gsSpec *spec, uint64_t step)
{
    return spec->warmup && step / spec->warmup < GS_WARMUP_STAGES ? spec->warmTarget[step / spec->warmup]
                                                                  : spec->target;
}

/* Rounds to the precision of the reducer's state. */
GS_HD double gsRound(const gsSpec *spec, double x)
{
    return spec->wide ? x : (double)gsSaturate((float)x);
}

/* Begins a call. */
GS_HD void gsCallBegin(const gsSpec *spec, gsState *state)
{
    gsCall *c = &state->call;
    memset(c, 0, sizeof *c);
    c->step = state->step;
    c->tau = (double)state->tau;
    c->clip = 1.0;
    c->normalized = 1.0;
    c->skip = spec->absent || !gsTakesTurn(spec, state->step) || state->upstreamFault;
    c->nonFinite = state->upstreamNonFinite;
    if (spec->select == GS_SELECT_RANDK) {
        c->s = gsRound(spec, spec->density);
        c->inverse = gsRound(spec, 1.0 / c->s);
    }
}

/* clip: the gradient's share of a norm that all ranks' gradients may have together (Lin et al. 2018, section 3.2). */
GS_HD void gsCallClip(const gsSpec *spec, gsCall *c, const gsSums *gradient)
{
    double most = spec->clip / sqrt((double)spec->nranks), norm = sqrt(gradient->squares);
    c->clip = norm > most ? gsRound(spec, most / norm) : 1.0;
}

/* What the recent steps allow a rank to keep to itself. */
GS_HD double gsCallLagBound(const gsSpec *spec, const gsState *state)
{
    return gsLagBound(spec, state->recent, state->recentAt, spec->iterate ? state->call.moved : -1.0);
}

/* The trigger: whether `changed`, the square of what this rank's silence would hide, is too little to be told. */
GS_HD void gsCallTrigger(const gsSpec *spec, const gsState *state, gsCall *c, double changed, double bound)
{
    int due = spec->staleness && state->silent >= spec->staleness;
    if (state->sent && !due && !c->nonFinite && !(changed > bound))
        c->skip = 1;
}

/* threshold relative to the root mean square of a. */
GS_HD void gsCallTauFromSquares(const gsSpec *spec, gsCall *c, double squares)
{
    c->tau = gsRound(spec, spec->rms * sqrt(squares / (double)(gsChosen(spec) ? gsChosen(spec) : 1)));
}

/* The scale of a coding that has one for the whole vector. */
GS_HD void gsCallOneScale(const gsSpec *spec, gsCall *c, const gsSums *sums)
{
    switch (spec->value) {
    case GS_VALUE_SIGN:
        c->scale = gsSaturate((float)(sums->magnitudes / (double)(gsChosen(spec) ? gsChosen(spec) : 1)));
        break;
    case GS_VALUE_GRID:
    case GS_VALUE_TERNARY: c->scale = gsScaleUp(sums->largest); break;
    default: c->scale = gsScaleUp(sqrt(sums->squares)); break;
    }
}

/* quotient: the guard of a reference with this coefficient. */
GS_HD double gsQuotientFloor(const gsSpec *spec, const gsCall *c, uint32_t which, double coefficient)
{
    return gsRound(spec, c->floor[which] * fabs(coefficient));
}

/* Remembers the newest squared norm. */
GS_HD void gsStateRemember(gsState *state, double norm)
{
    state->recent[state->recentAt] = norm;
    state->recentAt = (state->recentAt + 1) % GS_MAX_WINDOW;
}

/* Whether this call must find its tau in a histogram first. */
GS_HD int gsCallWantsHistogram(const gsSpec *spec, const gsState *state)
{
    return spec->select == GS_SELECT_THRESHOLD && spec->tau < 0.0f && !(spec->rms > 0.0) && state->tau == 0.0f;
}

/* gspar: takes s after one of its passes. pass 0: sums of all; later: of the coordinates with p < 1. */
GS_HD void gsCallRescale(const gsSpec *spec, gsCall *c, int pass, const gsSums *sums, double *allSquares)
{
    double s;
    if (pass == 0)
        *allSquares = sums->squares;
    if (spec->epsilon > 0.0)
        s = gsGsparClosed(spec->epsilon, *allSquares, sums->magnitudes, sums->squares, c->s);
    else
        s = pass == 0 ? gsGsparStart(spec->density, gsChosen(spec), sums->magnitudes)
                      : gsGsparRescale(c->s, spec->density, gsChosen(spec), sums->below, sums->magnitudes);
    c->s = gsRound(spec, s);
    c->inverse = c->s > 0.0 ? gsRound(spec, 1.0 / c->s) : 0.0;
    if (spec->wide &&
        spec->value == GS_VALUE_SHARED) { /* the magnitude travels as float32: p follows it, not the reverse */
        c->inverse = (double)gsSaturate((float)c->inverse);
        c->s = c->inverse > 0.0 ? 1.0 / c->inverse : 0.0;
    }
}

GS_HD int gsCallScalePasses(const gsSpec *spec)
{
    return spec->epsilon > 0.0 ? GS_GSPAR_ROUNDS : 1 + GS_GSPAR_RESCALES;
}

/* How many of a group's first j kept coordinates are in the record; also the slot of coordinate j if it is. */
GS_HD uint64_t gsCallSlot(const gsSpec *spec, const gsCall *c, int group, uint64_t j)
{
    if (c->nonFinite || c->skip)
        return 0;
    if (!spec->random)
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

/* The sections of a record with these slots; of the two ways to code group 1 of "shared" the shorter. */
GS_HD gsRecordSections gsCallSections(const gsSpec *spec, gsCall *c)
{
    gsRecordShape shape;
    gsRecordSections sections, map;
    shape.of = gsSpecExtent(spec, spec->count);
    shape.slots[0] = c->group[0].sent;
    shape.slots[1] = c->group[1].sent;
    shape.layout = spec->layout;
    shape.value = spec->value;
    shape.aux = gsSpecAux(spec);
    shape.flags = c->flags;
    sections = gsRecordLayout(&shape);
    if (spec->value != GS_VALUE_SHARED || (c->flags & GS_FLAG_SKIP))
        return sections;
    shape.flags |= GS_FLAG_MAP;
    map = gsRecordLayout(&shape);
    if (map.bytes >= sections.bytes)
        return sections;
    c->flags |= GS_FLAG_MAP;
    return map;
}

/* No value in the record is larger. */
GS_HD double gsCallLargestValue(const gsSpec *spec, const gsCall *c)
{
    double largest = c->largest;
    if (spec->select == GS_SELECT_RANDK)
        largest = largest * c->inverse;
    if (spec->select == GS_SELECT_GSPAR && c->inverse > largest)
        largest = c->inverse;
    return largest * (double)c->group[0].gain;
}

/* After selection: kept[g] coordinates in each group -> the plan of the record. */
GS_HD void gsCallPlan(const gsSpec *spec, gsState *state, const uint64_t kept[2])
{
    gsCall *c = &state->call;
    uint64_t sent[2];
    uint32_t word = 0;
    int g;
    gsCallShareCapacity(spec->capacity, kept, sent);
    if (c->nonFinite || c->skip)
        sent[0] = sent[1] = 0;
    if (spec->random) /* the mask of randk is everybody's, and so is its thinning */
        word = gsDraw(spec->seed, 0, state->step, spec->layout == GS_LAYOUT_MASK ? 0 : spec->rank, GS_DRAW_THIN);
    for (g = 0; g < 2; g++)
        c->group[g] = gsThinningOf(kept[g], sent[g], word);
    c->flags = 0;
    if (c->nonFinite)
        memset(c->coefficient, 0, sizeof c->coefficient); /* they may be NaN, too */
    if (c->nonFinite)
        c->flags = GS_FLAG_NONFINITE;
    else if (c->skip)
        c->flags = GS_FLAG_SKIP | (state->upstreamFault ? GS_FLAG_FAULT : 0);
    else if (sent[0] + sent[1] < kept[0] + kept[1])
        c->flags = spec->random ? GS_FLAG_THINNED : GS_FLAG_OVERFLOWED;
    if (spec->average)
        c->flags |= GS_FLAG_AVERAGE;
    if (spec->search == GS_SEARCH_WORKER || spec->search == GS_SEARCH_FIT || spec->pool >> GS_REFERENCE_MEAN & 1u)
        c->flags |= GS_FLAG_REFERENCES;
    c->sections = gsCallSections(spec, c);
    if (spec->value == GS_VALUE_F16)
        c->scale = gsF16Scale(gsCallLargestValue(spec, c));
    c->tauNext = (float)c->tau;
    if (spec->select == GS_SELECT_THRESHOLD && spec->tau < 0.0f && !(spec->rms > 0.0))
        c->tauNext = gsTauNext((float)c->tau, kept[0], spec->target, spec->capacity);
}

/* The reference that all ranks know to be in use, where records do not say. */
GS_HD uint32_t gsOnlyReference(const gsSpec *spec, const gsCall *c)
{
    uint32_t only = 0;
    if (spec->search == GS_SEARCH_HINDSIGHT)
        return c->choice;
    while (only + 1 < GS_MAX_POOL && !(spec->pool >> only & 1u))
        only++;
    return only;
}

/* Whether ranks disagree; otherwise bytes are damaged. */
GS_HD int gsIsMismatch(uint32_t fault)
{
    return fault != GS_FAULT_NONE && fault <= GS_FAULT_OWNER_MISMATCH;
}

/* owner: a part's plan, made in a copy of the state, counts in the whole call's. */
GS_HD void gsCallAddPart(gsCall *whole, const gsCall *part, uint32_t which)
{
    const uint32_t limited = GS_FLAG_THINNED | GS_FLAG_OVERFLOWED;
    int g;
    if (which == 0) {
        whole->flags &= ~limited;
        whole->group[0].sent = whole->group[1].sent = 0;
        whole->sections.bytes = 0;
    }
    whole->flags |= part->flags & limited;
    for (g = 0; g < 2; g++)
        whole->group[g].sent += part->group[g].sent;
    whole->sections.bytes += part->sections.bytes;
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
    h.segments = (uint16_t)(1 + spec->tensors);
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

GS_HD gsRecordSegment gsCallSegment(const gsSpec *spec, const gsState *state)
{
    const gsCall *c = &state->call;
    gsRecordSegment s;
    s.count = spec->count;
    s.aux = gsSpecAux(spec);
    s.scale = c->scale;
    if (c->flags & GS_FLAG_FAULT)
        s.scale = gsIsMismatch(state->upstreamFault) ? 1.0f : 0.0f;
    else if (spec->value == GS_VALUE_SHARED) {
        s.aux = (uint32_t)c->group[0].sent;
        s.scale = gsSaturate((float)(c->inverse * (double)c->group[1].gain));
    }
    return s;
}

/* Layout, value coding and aux, as far as they depend on each other. */
GS_HD int gsShapeIsPossible(const gsRecordHeader *h, const gsRecordSegment *segment, const gsRecordExtent *extent)
{
    uint32_t bits = segment->aux & 0xffu;
    if (h->layout >= GS_LAYOUTS || h->value >= GS_VALUES || h->segments != 1 + extent->tensors ||
        segment->count != h->count || !gsIsFinite(segment->scale) || h->count / GS_BLOCK >= 0xffffffffull)
        return 0;
    if (h->layout == GS_LAYOUT_ALL)
        return h->value != GS_VALUE_SHARED && (segment->aux & ~0x1ffu) == 0 && h->value != GS_VALUE_BOOK &&
               (h->value == GS_VALUE_LEVELS ? bits >= 2 && bits <= 8
                : h->value == GS_VALUE_GRID ? bits >= 1 && bits <= 7
                                            : bits == gsValueBits(h->value, 0));
    if (h->value == GS_VALUE_SIGN || h->value == GS_VALUE_TERNARY || h->value == GS_VALUE_NATURAL ||
        h->value == GS_VALUE_GRID)
        return 0;
    if (h->flags & GS_FLAG_MAP && h->value != GS_VALUE_SHARED)
        return 0;
    if (h->layout == GS_LAYOUT_ROWS)
        return segment->aux >= 1 && extent->tensors == 0 &&
               (h->value == GS_VALUE_F32 || h->value == GS_VALUE_BF16 || h->value == GS_VALUE_F64);
    return h->value != GS_VALUE_SHARED || h->layout == GS_LAYOUT_GLOBAL;
}

/* How many slots a record of this shape may say it has. */
GS_HD int gsKeptIsPossible(const gsRecordHeader *h, const gsRecordSegment *segment, const gsRecordExtent *extent)
{
    if (h->kept > extent->chosen || (h->value == GS_VALUE_SHARED && segment->aux > h->kept))
        return 0;
    if (h->flags & (GS_FLAG_NONFINITE | GS_FLAG_SKIP))
        return h->kept == 0;
    if (h->layout == GS_LAYOUT_ALL)
        return h->kept == extent->chosen;
    if (h->layout == GS_LAYOUT_CHUNKED)
        return segment->aux >= 1 && segment->aux <= GS_BLOCK && h->kept == extent->fixed;
    return h->kept <= GS_RECORD_MAX_KEPT;
}

/* A header, its segment and what the table says of a list: everything but checksum and sections. `room` bytes may be read. */
GS_HD uint32_t gsHeaderFault(const gsRecordHeader *h, const gsRecordSegment *segment, const gsRecordExtent *extent,
                             uint64_t room)
{
    gsRecordShape shape;
    if (h->magic != GS_RECORD_MAGIC)
        return GS_FAULT_MAGIC;
    if (h->version != GS_RECORD_VERSION)
        return GS_FAULT_VERSION;
    if (h->flags & ~(GS_FLAGS_KNOWN & ~GS_FLAG_DENSE) ||
        (h->flags & GS_FLAG_SKIP && h->flags & (GS_FLAG_NONFINITE | GS_FLAG_MAP)) ||
        (h->flags & GS_FLAG_FAULT && !(h->flags & GS_FLAG_SKIP)))
        return GS_FAULT_FLAGS;
    if (!gsShapeIsPossible(h, segment, extent))
        return GS_FAULT_LAYOUT;
    if (!gsKeptIsPossible(h, segment, extent))
        return GS_FAULT_KEPT;
    shape = gsRecordShapeOf(h, segment, extent);
    if (h->recordBytes > room || h->recordBytes != gsRecordLayout(&shape).bytes)
        return GS_FAULT_LENGTH;
    return GS_FAULT_NONE;
}

/* Whether a rank may say "skip": only where the recipe knows silence. */
GS_HD int gsSpecSkips(const gsSpec *spec)
{
    return spec->trigger || spec->participate || spec->memory || spec->feedback || spec->parts;
}

/* A received header against what this rank expects in place `rank`; a list's tensors are another check. */
GS_HD uint32_t gsExpectedFault(const gsSpec *spec, const gsState *state, const gsRecordHeader *h,
                               const gsRecordSegment *segment, uint32_t rank)
{
    uint32_t fault, references = spec->search == GS_SEARCH_WORKER || spec->search == GS_SEARCH_FIT ||
                                 (spec->pool >> GS_REFERENCE_MEAN & 1u);
    gsRecordExtent extent = gsSpecExtent(spec, h->count);
    if (h->magic != GS_RECORD_MAGIC)
        return GS_FAULT_MAGIC;
    if (h->version != GS_RECORD_VERSION)
        return GS_FAULT_VERSION;
    if (h->configHash != spec->configHash || h->count != gsRecordCount(spec, rank))
        return GS_FAULT_CONFIG;
    if (h->rank != rank)
        return GS_FAULT_RANK;
    if (h->step != state->step || state->call.step != state->step)
        return GS_FAULT_STEP;
    if (((h->flags & GS_FLAG_AVERAGE) != 0) != (spec->average != 0))
        return GS_FAULT_OP;
    if (h->layout != spec->layout || h->value != spec->value ||
        (spec->layout != GS_LAYOUT_GLOBAL && segment->aux != gsSpecAux(spec)))
        return GS_FAULT_LAYOUT;
    if (((h->flags & GS_FLAG_REFERENCES) != 0) != (references != 0) ||
        ((h->flags & GS_FLAG_SKIP) && !gsSpecSkips(spec)) || (h->flags & GS_FLAG_FAULT && !spec->parts))
        return GS_FAULT_FLAGS;
    if (h->kept > spec->capacity)
        return GS_FAULT_KEPT;
    if (spec->layout == GS_LAYOUT_MASK && !(h->flags & (GS_FLAG_NONFINITE | GS_FLAG_SKIP)) && !state->call.nonFinite &&
        !state->call.skip && h->kept != state->call.group[0].sent)
        return GS_FAULT_KEPT;
    fault = gsHeaderFault(h, segment, &extent, spec->slotBytes);
    if (fault == GS_FAULT_NONE && h->flags & GS_FLAG_FAULT)
        return segment->scale != 0.0f ? GS_FAULT_OWNER_MISMATCH : GS_FAULT_OWNER;
    return fault;
}

/* ---- owners: from the call to the sum's record and back ---- */

/* The coefficients that rank q's record carries, or those that all know. */
GS_HD void gsAddCoefficients(const gsSpec *spec, const gsCall *c, const uint8_t *record, double total[GS_MAX_POOL])
{
    const gsRecordHeader *h = (const gsRecordHeader *)(const void *)record;
    const double *own = (const double *)(const void *)(record + gsRecordTableEnd(spec->tensors));
    uint32_t p, only = gsOnlyReference(spec, c);
    if (h->flags & GS_FLAG_SKIP)
        return;
    for (p = 0; p < GS_MAX_POOL; p++)
        total[p] += h->flags & GS_FLAG_REFERENCES ? own[p] : p == only ? 1.0 : 0.0;
}

/* What came up while the own blocks were summed is told by the sum's record. `part`: of the own blocks, judged. */
GS_HD void gsOwnerHandDown(const gsSpec *spec, gsState *state, const gsState *part, gsState *sum,
                           const uint8_t *records)
{
    uint32_t q;
    sum->upstreamFault = part->verdict;
    sum->upstreamNonFinite = part->anyNonFinite;
    memset(state->call.total, 0, sizeof state->call.total);
    for (q = 0; spec->pool && !part->verdict && q < spec->nranks; q++)
        gsAddCoefficients(spec, &state->call, records + q * spec->partSlot, state->call.total);
}

/* The verdict on all sums is the call's; of its own finding an owner can say more. */
GS_HD void gsOwnerHandBack(const gsSpec *spec, gsState *state, const gsState *sum, const gsState *part)
{
    const gsState *of = sum->verdict && sum->verdictRank == spec->rank && part->verdict ? part : sum;
    state->verdict = of->verdict;
    state->verdictRank = of->verdictRank;
    state->anyNonFinite = sum->anyNonFinite;
}

GS_HD void gsOwnerHandTo(gsState *part, const gsState *state)
{
    part->verdict = state->verdict;
    part->anyNonFinite = state->anyNonFinite;
}

/* What the state holds in gradient units, and in their squares. */
GS_HD void gsStateScale(gsState *state, float factor)
{
    int i;
    state->tau *= factor;
    for (i = 0; i < GS_MAX_WINDOW; i++)
        state->recent[i] = state->recent[i] * ((double)factor * (double)factor);
    state->sentError = state->sentError * ((double)factor * (double)factor);
}

/* What a step leaves behind besides vectors, once it is committed. */
GS_HD void gsStateAdvance(const gsSpec *spec, gsState *state)
{
    const gsCall *c = &state->call;
    uint32_t r, best = GS_REFERENCE_ZERO;
    state->step++;
    state->phase ^= 1u;
    state->average = spec->average;
    if (spec->select == GS_SELECT_THRESHOLD)
        state->tau = c->tauNext;
    if (spec->trigger) {
        state->silent = c->skip ? state->silent + 1 : 0;
        state->sent |= !c->skip;
        state->sentError = c->skip ? state->sentError : c->error;
    }
    if (spec->trigger)
        gsStateRemember(state, spec->iterate ? c->moved : state->resultNorm);
    for (r = 0; r < GS_MAX_POOL; r++)
        if (spec->pool >> r & 1u && (!(spec->pool >> best & 1u) || state->missed[r] < state->missed[best]))
            best = r;
    state->choice = best;
}

/* Bytes of an element, by gsDataType_t. */
GS_HD uint64_t gsTypeWidth(uint32_t type)
{
    return type == 8u ? 8 : type == 7u ? 4 : 2; /* float64, float32, else two bytes */
}

/* What a rank gives in a step that travels dense, in bytes. */
GS_HD uint64_t gsDensePayload(const gsSpec *spec)
{
    return spec->denseNow ? gsVectorElements(spec) * (spec->wide ? 8u : 4u) : spec->count * gsTypeWidth(spec->type);
}

/* The end of a call: state and counters, by what the records' verdict says. Returns whether anything was committed. */
GS_HD int gsCallCommit(const gsSpec *spec, gsState *state)
{
    const gsCall *c = &state->call;
    gsCounters *n = &state->counters;
    uint64_t whole;
    if (state->fault == GS_FAULT_NONE && state->verdict != GS_FAULT_NONE) {
        state->fault = state->verdict;
        state->faultRank = state->verdictRank;
    }
    if (state->fault != GS_FAULT_NONE)
        return 0;
    n->calls++;
    n->nonFinite += state->anyNonFinite != 0;
    n->denseRounds += spec->denseNow;
    if (spec->select == GS_SELECT_DENSE || spec->denseNow) {
        n->lastKept = n->lastSent = n->lastExact = spec->count;
        n->payloadBytes += gsDensePayload(spec);
    } else {
        n->thinned += (c->flags & GS_FLAG_THINNED) != 0;
        n->overflowed += (c->flags & GS_FLAG_OVERFLOWED) != 0;
        n->skipped += (c->flags & GS_FLAG_SKIP) != 0;
        whole = c->nonFinite || c->skip ? 0 : spec->whole;
        n->lastKept = c->nonFinite || c->skip ? 0 : whole + c->group[0].kept + c->group[1].kept;
        n->lastSent = whole + c->group[0].sent + c->group[1].sent;
        n->lastExact = spec->value == GS_VALUE_SHARED ? whole + c->group[0].sent : n->lastSent;
        n->payloadBytes += c->sections.bytes;
    }
    n->keptTotal += n->lastKept;
    n->sentTotal += n->lastSent;
    if (state->anyNonFinite || c->nonFinite) /* the own residual too, whatever the caller made of the own record */
        return 0;
    gsStateAdvance(spec, state);
    return 1;
}

#endif

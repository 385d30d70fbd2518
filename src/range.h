/*
 * Profiler ranges: a call and its stages, in NVTX's domain "gradsieve", each with a payload that says what is reduced and how. Nothing
 * where NVTX's headers were not found at build time, where no tool listens, or where GS_NVTX_DISABLE is set.
 */
#ifndef GS_RANGE_H
#define GS_RANGE_H

#include "core.h"

/* Calls, the first three by gsCollective_t, then stages; their names are in range.c. */
typedef enum {
    GS_RANGE_ALL_REDUCE = GS_ALL_REDUCE,
    GS_RANGE_REDUCE_SCATTER = GS_REDUCE_SCATTER,
    GS_RANGE_ALL_GATHER = GS_ALL_GATHER,
    GS_RANGE_ALL_REDUCE_SEGMENTS,
    GS_RANGE_ALL_REDUCE_STEP,
    GS_RANGE_ENCODE,
    GS_RANGE_SUM_PARTS,
    GS_RANGE_DECODE,
    GS_RANGE_SELECT,
    GS_RANGE_PACK,
    GS_RANGE_COMPARE,
    GS_RANGE_EXCHANGE,
    GS_RANGE_OWNER,
    GS_RANGE_ACCUMULATE,
    GS_RANGE_COMMIT,
    GS_RANGE_RESYNC,
    GS_RANGE_NODE_SUM,
    GS_RANGE_NODE_GATHER,
    GS_RANGES
} gsRange;

#ifdef GS_HAVE_NVTX
/* On the calling thread; ranges nest. */
void gsRangeBegin(gsReducer_t r, gsRange range);
void gsRangeEnd(gsReducer_t r);

/* What a tool is told of a new reducer; `first` is the reducer whose second half it is, or NULL. */
gsResult_t gsRangeNameReducer(gsReducer_t r, const char *recipe, gsReducer_t first);
#else
static inline void gsRangeBegin(gsReducer_t r, gsRange range)
{
    (void)r, (void)range;
}

static inline void gsRangeEnd(gsReducer_t r)
{
    (void)r;
}

static inline gsResult_t gsRangeNameReducer(gsReducer_t r, const char *recipe, gsReducer_t first)
{
    (void)r, (void)recipe, (void)first;
    return GS_SUCCESS;
}
#endif

/* The own record, as its header will say or says it. */
static inline void gsKnowRecord(gsReducer_t r, uint64_t bytes, uint64_t kept, uint32_t flags)
{
    uint64_t sent = kept + (flags & (GS_FLAG_SKIP | GS_FLAG_NONFINITE) ? 0 : r->spec.whole);
    double density = r->spec.count ? (double)sent / (double)r->spec.count : 0.0;
    r->known = (gsKnownRecord){bytes, density, GS_KNOWN_THIS};
}

static inline void gsKnowCall(gsReducer_t r, const gsCall *c)
{
    gsKnowRecord(r, c->sections.bytes, c->group[0].sent + c->group[1].sent, c->flags);
}

/* A call begins: what is known of the own record is of an earlier one. */
static inline void gsRangeBeginCall(gsReducer_t r, gsRange range)
{
    if (r->known.of == GS_KNOWN_THIS)
        r->known.of = GS_KNOWN_EARLIER;
    gsRangeBegin(r, range);
}

#endif

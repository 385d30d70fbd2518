/* What a reducer has done so far: the host's figures and those that its state counts. */
#include "range.h"

/* Bytes that have left this rank. */
static uint64_t wireBytes(const gsReducer_t r, const gsCounters *n)
{
    const gsSpec *s = &r->spec;
    uint64_t others = s->nranks - 1, slot = gsSpecHasOwners(s) ? s->partSlot : s->slotBytes;
    if (s->select == GS_SELECT_DENSE && s->half)
        return n->calls * others * gsSliceCount(s) * gsTypeBytes((gsDataType_t)s->type);
    if (s->select == GS_SELECT_DENSE)
        return n->calls * (2 * others * s->count * gsTypeBytes((gsDataType_t)s->type) / s->nranks);
    if (gsSpecIsExact(s))
        return r->exactBytes + r->denseBytes;
    return (n->calls - n->denseRounds) * others * slot + r->denseBytes;
}

static gsResult_t addServer(gsReducer_t r, gsStats_t *stats)
{
    gsState state;
    if (!r->server)
        return GS_SUCCESS;
    GS_CHECK(r->comm->backend->get(&state, r->server->state, sizeof state, NULL));
    if (gsSpecHasOwners(&r->spec))
        stats->wireBytes += wireBytes(r->server, &state.counters);
    if (!r->spec.twoway)
        return GS_SUCCESS;
    stats->serverSent = state.counters.sentTotal;
    stats->lastServerSent = state.counters.lastSent;
    return GS_SUCCESS;
}

/* A device's last record: profiles tell of it from here on. */
static void learnRecord(gsReducer_t r, const gsCall *c)
{
    if (!r->comm->backend->onDevice || !c->sections.bytes)
        return;
    gsKnowCall(r, c);
    r->known.of = GS_KNOWN_EARLIER;
}

gsResult_t gsReducerGetStats(gsReducer_t r, gsStats_t *stats)
{
    gsState state;
    if (!r || !stats)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "%s is NULL; expected %s", r ? "stats" : "reducer",
                      r ? "a place for the statistics" : "a reducer");
    GS_CHECK(r->comm->backend->get(&state, r->state, sizeof state, NULL));
    learnRecord(r, &state.call);
    const gsCounters *n = &state.counters;
    *stats = r->stats;
    stats->calls = n->calls;
    stats->denseRounds = n->denseRounds;
    stats->bypassed = r->spec.bypassed ? n->calls : 0;
    stats->dense = r->spec.select == GS_SELECT_DENSE ? n->calls - stats->bypassed : n->denseRounds;
    stats->compressed = n->calls - stats->dense - stats->bypassed;
    stats->nonFinite = n->nonFinite;
    stats->thinned = n->thinned;
    stats->overflowed = n->overflowed;
    stats->skipped = n->skipped;
    stats->lastKept = n->lastKept;
    stats->lastSent = n->lastSent;
    stats->lastExact = n->lastExact;
    stats->keptTotal = n->keptTotal;
    stats->sentTotal = n->sentTotal;
    stats->payloadBytes = n->payloadBytes;
    stats->nodeBytes = n->calls * gsHierarchyBytes(r);
    stats->wireBytes = wireBytes(r, n) + stats->nodeBytes + n->calls * gsHalfSealBytes(r);
    stats->tau = state.tau;
    stats->reference = state.call.choice;
    stats->normalized = state.call.normalized;
    return addServer(r, stats);
}

/*
 * Export and import of what a reducer remembers: a header, then every vector of gsListVectors (of a pair the current one), each padded
 * to 8 bytes; behind it the same of a two-way reducer's second half. Little endian. The states of all ranks can be imported into
 * another number of ranks: what is additive adds up, what is alike on all ranks is scaled.
 */
#include "core.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STATE_MAGIC 0x54535347u /* "GSST" */
#define STATE_VERSION 2

typedef struct {
    uint32_t magic, version;
    uint32_t rank, nranks;
    uint64_t step;
    uint64_t configHash;
    uint64_t recipeHash; /* configHash whatever the number of ranks */
    uint64_t bytes;      /* of this part: header and vectors */
    float tau;
    uint32_t average; /* the last call's op */
    uint32_t recentAt, sent;
    uint32_t choice, reserved;
    double recent[GS_MAX_WINDOW];
    uint64_t checksum; /* over the words of everything else */
} stateHeader;

static uint64_t checksum(const void *bytes, size_t length)
{
    uint64_t sum = 0, word;
    for (size_t j = 0; j < length / 8; j++) {
        memcpy(&word, (const char *)bytes + 8 * j, 8);
        if (j != offsetof(stateHeader, checksum) / 8)
            sum += gsChecksumTerm(STATE_MAGIC, j, word);
    }
    return sum;
}

/* ---- sizes ---- */

/* Elements that a rank of so many has of a vector: all, or those of its own blocks. */
static uint64_t elementsOf(const gsReducer_t r, const gsStateVector *v, uint32_t rank, uint32_t nranks)
{
    uint64_t count = r->spec.count > r->sharedCount ? r->spec.count : r->sharedCount;
    gsSpec whole = {.count = count, .blocks = (uint32_t)((count + GS_BLOCK - 1) / GS_BLOCK), .nranks = nranks};
    return v->owned && !r->spec.half ? gsPartCount(&whole, rank) : v->elements;
}

static size_t vectorBytes(const gsReducer_t r, const gsStateVector *v, uint32_t rank, uint32_t nranks)
{
    return (elementsOf(r, v, rank, nranks) * gsRealBytes(&r->spec) + 7) / 8 * 8; /* whole words for the checksum */
}

/* Where vector `which` of the list is in that rank's part; of the list's length: the part's bytes. */
static size_t offsetOf(gsReducer_t r, int which, uint32_t rank, uint32_t nranks)
{
    gsStateVector list[GS_MAX_VECTORS];
    size_t at = sizeof(stateHeader);
    gsListVectors(r, list);
    for (int i = 0; i < which; i++)
        at += vectorBytes(r, &list[i], rank, nranks);
    return at;
}

static size_t partBytes(gsReducer_t r, uint32_t rank, uint32_t nranks)
{
    gsStateVector list[GS_MAX_VECTORS];
    return offsetOf(r, gsListVectors(r, list), rank, nranks);
}

static size_t ownBytes(gsReducer_t r)
{
    return partBytes(r, r->spec.rank, r->spec.nranks);
}

/* ---- export ---- */

static gsResult_t exportPart(gsReducer_t r, char *out)
{
    gsStateVector list[GS_MAX_VECTORS];
    gsState state;
    int n = gsListVectors(r, list);
    size_t bytes = ownBytes(r);
    GS_CHECK(r->comm->backend->get(&state, r->state, sizeof state, NULL));
    memset(out, 0, bytes);
    for (int i = 0; i < n; i++)
        GS_CHECK(r->comm->backend->get(out + offsetOf(r, i, r->spec.rank, r->spec.nranks),
                                       gsVectorNow(&list[i], state.phase), list[i].elements * gsRealBytes(&r->spec),
                                       NULL));
    stateHeader h;
    memset(&h, 0, sizeof h);
    h = (stateHeader){.magic = STATE_MAGIC,
                      .version = STATE_VERSION,
                      .rank = r->spec.rank,
                      .nranks = r->spec.nranks,
                      .step = state.step,
                      .configHash = r->spec.configHash,
                      .recipeHash = r->recipeHash,
                      .bytes = bytes,
                      .tau = state.tau,
                      .average = state.average,
                      .recentAt = state.recentAt,
                      .sent = state.sent,
                      .choice = state.choice};
    memcpy(h.recent, state.recent, sizeof h.recent);
    memcpy(out, &h, sizeof h);
    h.checksum = checksum(out, bytes);
    memcpy(out, &h, sizeof h);
    return GS_SUCCESS;
}

gsResult_t gsReducerExport(gsReducer_t r, void *buffer, size_t *bytes)
{
    if (!r || !bytes)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "%s is NULL; expected %s", r ? "bytes" : "reducer",
                      r ? "the buffer's room" : "a reducer");
    size_t own = ownBytes(r), needed = own + (r->server ? ownBytes(r->server) : 0), room = *bytes;
    *bytes = needed;
    if (!buffer)
        return GS_SUCCESS;
    if (room < needed)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "the buffer has %zu bytes; expected %zu", room, needed);
    GS_CHECK(exportPart(r, buffer));
    return r->server ? exportPart(r->server, (char *)buffer + own) : GS_SUCCESS;
}

/* ---- checks ---- */

/* Everything that does not depend on who imports it. */
static gsResult_t checkPart(gsReducer_t r, const char *part, size_t room, stateHeader *h)
{
    if (room < sizeof *h)
        return gsFail(GS_ERROR_CORRUPT, "the state has %zu bytes; expected at least %zu", room, sizeof *h);
    memcpy(h, part, sizeof *h);
    if (h->magic != STATE_MAGIC || h->version != STATE_VERSION)
        return gsFail(GS_ERROR_CORRUPT, "the state begins with %08x, version %u; expected %08x, version %d", h->magic,
                      h->version, STATE_MAGIC, STATE_VERSION);
    if (h->recipeHash != r->recipeHash)
        return gsFail(GS_ERROR_MISMATCH, "the state is of another recipe, count, type or seed");
    if (h->nranks < 1 || h->rank >= h->nranks)
        return gsFail(GS_ERROR_CORRUPT, "the state is rank %u's of %u", h->rank, h->nranks);
    size_t expected = partBytes(r, h->rank, h->nranks);
    if (h->bytes != expected || h->bytes > room)
        return gsFail(GS_ERROR_CORRUPT, "the state has %zu bytes; expected %zu", room, expected);
    if (h->checksum != checksum(part, h->bytes))
        return gsFail(GS_ERROR_CORRUPT, "the state does not match its checksum");
    return GS_SUCCESS;
}

/* With the second half behind it, where there is one, and no byte more. */
static gsResult_t checkWhole(gsReducer_t r, const char *state, size_t bytes, stateHeader *h)
{
    stateHeader second = {.bytes = 0};
    GS_CHECK(checkPart(r, state, bytes, h));
    if (r->server)
        GS_CHECK(checkPart(r->server, state + h->bytes, bytes - h->bytes, &second));
    if (bytes != h->bytes + second.bytes)
        return gsFail(GS_ERROR_CORRUPT, "the state has %zu bytes; expected %zu", bytes,
                      (size_t)(h->bytes + second.bytes));
    return GS_SUCCESS;
}

static gsResult_t checkOwner(gsReducer_t r, const stateHeader *h)
{
    if (h->configHash != r->spec.configHash)
        return gsFail(GS_ERROR_MISMATCH, "the state is of %u ranks; this reducer has %u (see gsReducerImportRanks)",
                      h->nranks, r->spec.nranks);
    if (h->rank != r->spec.rank)
        return gsFail(GS_ERROR_MISMATCH, "the state is rank %u's; this is rank %u", h->rank, r->spec.rank);
    return GS_SUCCESS;
}

/* ---- import ---- */

static gsResult_t putState(gsReducer_t r, const stateHeader *h)
{
    gsState state;
    GS_CHECK(r->comm->backend->get(&state, r->state, sizeof state, NULL));
    state.step = h->step;
    state.tau = h->tau;
    state.recentAt = h->recentAt % GS_MAX_WINDOW;
    state.sent = h->sent;
    state.choice = h->choice % GS_MAX_POOL;
    state.average = h->average;
    memcpy(state.recent, h->recent, sizeof h->recent);
    r->steps = h->step;
    return r->comm->backend->put(r->state, &state, sizeof state, NULL);
}

static gsResult_t importPart(gsReducer_t r, const char *part)
{
    gsStateVector list[GS_MAX_VECTORS];
    stateHeader h;
    int n = gsListVectors(r, list);
    memcpy(&h, part, sizeof h);
    for (int i = 0; i < n; i++)
        GS_CHECK(r->comm->backend->put(list[i].place[0], part + offsetOf(r, i, h.rank, h.nranks),
                                       list[i].elements * gsRealBytes(&r->spec), NULL));
    return putState(r, &h);
}

gsResult_t gsReducerImport(gsReducer_t r, const void *buffer, size_t bytes)
{
    stateHeader h;
    const char *part = buffer;
    if (!r || !buffer)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "%s is NULL; expected %s", r ? "buffer" : "reducer",
                      r ? "an exported state" : "a reducer");
    GS_CHECK(checkWhole(r, part, bytes, &h));
    GS_CHECK(checkOwner(r, &h));
    GS_CHECK(gsReducerReset(r, NULL));
    GS_CHECK(importPart(r, part));
    return r->server ? importPart(r->server, part + h.bytes) : GS_SUCCESS;
}

/* ---- into another number of ranks ---- */

static void addTo(const gsSpec *spec, void *sum, const void *x, uint64_t n, double factor)
{
    for (uint64_t i = 0; i < n; i++)
        if (spec->wide)
            ((double *)sum)[i] += ((const double *)x)[i] * factor;
        else
            ((float *)sum)[i] += ((const float *)x)[i] * (float)factor;
}

/* What there is of an earlier job: a half of each rank's state. */
typedef struct {
    const char **parts; /* by rank; NULL: it died with its rank */
    uint32_t n, given;  /* ranks; of these, with a state */
    uint32_t first;     /* rank of the first state */
} legacy;

static int isLost(const legacy *old)
{
    return old->given < old->n;
}

static int isNamed(const gsStateVector *v, const char *name)
{
    return strcmp(v->name, name) == 0;
}

/* Where a vector of this half is in the state of rank `from`. */
static const char *vectorOf(gsReducer_t r, const legacy *old, const char *name, uint32_t from)
{
    gsStateVector list[GS_MAX_VECTORS];
    int which = 0;
    gsListVectors(r, list);
    while (!isNamed(&list[which], name))
        which++;
    return old->parts[from] + offsetOf(r, which, from, old->n);
}

/* What the `place`-th state leaves to this rank, as a factor; 0: nothing. */
static double share(const gsReducer_t r, const gsStateVector *v, uint32_t place, const stateHeader *h, int lost)
{
    double growth = (double)r->spec.nranks / (double)h->nranks;
    if (!v->ranks) { /* alike everywhere: the first state's. What is a mean over ranks has fewer or more of them now */
        int mean = v->degree && !isNamed(v, "shared");
        return place == 0 ? (mean ? 1.0 / growth : 1.0) : 0.0;
    }
    if (place % r->spec.nranks != r->spec.rank || (!v->degree && (h->nranks != r->spec.nranks || lost)))
        return 0.0;
    return isNamed(v, "residual") && h->average ? growth : 1.0; /* what is owed counts 1/ranks of the average */
}

static void addShares(gsReducer_t r, const gsStateVector *v, const legacy *old, char *sum)
{
    uint32_t place = 0;
    for (uint32_t from = 0; from < old->n; from++) {
        stateHeader h;
        if (!old->parts[from])
            continue;
        memcpy(&h, old->parts[from], sizeof h);
        double factor = share(r, v, place++, &h, isLost(old));
        if (factor != 0.0)
            addTo(&r->spec, sum, vectorOf(r, old, v->name, from), v->elements, factor);
    }
}

/* A vector in blocks: all of the gradient's, or the own ones. */
typedef struct {
    size_t at, bytes; /* in the vector */
    uint64_t number;  /* in the gradient */
} piece;

static int nextPiece(const gsReducer_t r, const gsStateVector *v, uint64_t l, piece *p)
{
    size_t block = GS_BLOCK * gsRealBytes(&r->spec), bytes = v->elements * gsRealBytes(&r->spec);
    if (l * block >= bytes)
        return 0;
    *p = (piece){l * block, bytes - l * block < block ? bytes - l * block : block,
                 v->owned ? r->spec.rank + l * r->spec.nranks : l};
    return 1;
}

/* What all ranks remember together, made anew: the dead have taken their memories with them. */
static void sumMemories(gsReducer_t r, const gsStateVector *v, const legacy *old, char *sum)
{
    size_t block = GS_BLOCK * gsRealBytes(&r->spec);
    piece p;
    for (uint64_t l = 0; nextPiece(r, v, l, &p); l++)
        for (uint32_t from = 0; from < old->n; from++)
            if (old->parts[from])
                addTo(&r->spec, sum + p.at, vectorOf(r, old, "memory", from) + p.number * block,
                      p.bytes / gsRealBytes(&r->spec), 1.0);
}

/* The own blocks, from the ranks that owned them. A dead owner's memory is what it had sent, and everybody knows that. */
static void gatherOwned(gsReducer_t r, const gsStateVector *v, const legacy *old, char *out)
{
    size_t block = GS_BLOCK * gsRealBytes(&r->spec);
    piece p;
    for (uint64_t l = 0; nextPiece(r, v, l, &p); l++) {
        uint32_t from = (uint32_t)(p.number % old->n);
        if (old->parts[from])
            memcpy(out + p.at, vectorOf(r, old, v->name, from) + p.number / old->n * block, p.bytes);
        else if (isNamed(v, "memory"))
            memcpy(out + p.at, vectorOf(r, old, "shared", old->first) + p.number * block, p.bytes);
    }
}

static gsResult_t importVector(gsReducer_t r, const gsStateVector *v, const legacy *old)
{
    char *sum = calloc(v->elements + 1, gsRealBytes(&r->spec));
    if (!sum)
        return gsFail(GS_ERROR_OUT_OF_MEMORY, "no memory to add up %u states", old->given);
    if (isLost(old) && isNamed(v, "shared"))
        sumMemories(r, v, old, sum);
    else if (v->owned)
        gatherOwned(r, v, old, sum);
    else
        addShares(r, v, old, sum);
    gsResult_t result = r->comm->backend->put(v->place[0], sum, v->elements * gsRealBytes(&r->spec), NULL);
    free(sum);
    return result;
}

static gsResult_t checkRanks(gsReducer_t r, const void *const *states, const size_t *bytes, legacy *old)
{
    stateHeader h, first = {.step = 0};
    for (uint32_t i = 0; i < old->n; i++) {
        if (!states[i])
            continue;
        GS_CHECK(checkWhole(r, states[i], bytes[i], &h));
        if (h.nranks != old->n || h.rank != i)
            return gsFail(GS_ERROR_MISMATCH, "states[%u] is of rank %u of %u; expected rank %u of %u", i, h.rank,
                          h.nranks, i, old->n);
        if (old->given == 0)
            first = h;
        if (h.step != first.step)
            return gsFail(GS_ERROR_MISMATCH, "states[%u] is of step %llu, states[%u] of step %llu", i,
                          (unsigned long long)h.step, first.rank, (unsigned long long)first.step);
        old->parts[i] = states[i];
        old->given++;
    }
    old->first = first.rank;
    if (old->given == 0)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "all of %u states are NULL; expected one at least", old->n);
    return GS_SUCCESS;
}

/* Tau and what else is a rank's own: that of the state whose place is the rank's. */
static const char *ownPart(const gsReducer_t r, const legacy *old)
{
    uint32_t place = r->spec.rank % old->given, from = 0;
    for (;; from++)
        if (old->parts[from] && place-- == 0)
            return old->parts[from];
}

/* The second half holds results: means, where the op was one. What is not an owner's own is alike in all states. */
static gsResult_t importSecondHalf(gsReducer_t r, const legacy *old, uint32_t average)
{
    gsStateVector list[GS_MAX_VECTORS];
    gsReducer_t server = r->server;
    stateHeader h;
    int n = gsListVectors(server, list);
    for (int i = 0; i < n; i++)
        GS_CHECK(list[i].owned
                     ? importVector(server, &list[i], old)
                     : r->comm->backend->put(list[i].place[0], vectorOf(server, old, list[i].name, old->first),
                                             list[i].elements * gsRealBytes(&server->spec), NULL));
    memcpy(&h, ownPart(server, old), sizeof h);
    GS_CHECK(putState(server, &h));
    float growth = (float)old->n / (float)r->spec.nranks;
    for (int i = 0; i < n && average; i++)
        GS_CHECK(gsScaleVector(server, list[i].place[0], list[i].elements, growth, NULL));
    return GS_SUCCESS;
}

static void writeReport(const gsReducer_t r, const legacy *old, uint32_t average, char *report, size_t bytes)
{
    char lost[64] = "";
    if (!report || !bytes)
        return;
    if (isLost(old))
        snprintf(lost, sizeof lost, "; what %u of them owed is lost", old->n - old->given);
    snprintf(report, bytes, "%u ranks to %u: residual, momentum and memory added up%s%s%s%s", old->n, r->spec.nranks,
             average ? ", residual scaled to the average" : "", lost,
             r->spec.trigger ? "; reset: the trigger, every rank sends next" : "",
             r->spec.nranks > old->given ? "; joiners begin at 0" : "");
}

static gsResult_t importLegacy(gsReducer_t r, legacy *old, char *report, size_t reportBytes)
{
    gsStateVector list[GS_MAX_VECTORS];
    stateHeader h, part;
    int n = gsListVectors(r, list);
    GS_CHECK(gsReducerReset(r, NULL));
    for (int i = 0; i < n; i++)
        GS_CHECK(importVector(r, &list[i], old));
    memcpy(&h, ownPart(r, old), sizeof h);
    h.sent = h.nranks == r->spec.nranks && !isLost(old) ? h.sent : 0; /* a trigger first sends */
    GS_CHECK(putState(r, &h));
    writeReport(r, old, h.average, report, reportBytes);
    if (!r->server)
        return GS_SUCCESS;
    for (uint32_t i = 0; i < old->n; i++)
        if (old->parts[i]) {
            memcpy(&part, old->parts[i], sizeof part);
            old->parts[i] += part.bytes;
        }
    return importSecondHalf(r, old, h.average);
}

gsResult_t gsReducerImportRanks(gsReducer_t r, const void *const *states, const size_t *bytes, int nstates,
                                char *report, size_t reportBytes)
{
    if (!r || !states || !bytes || nstates < 1)
        return gsFail(GS_ERROR_INVALID_ARGUMENT,
                      "reducer %p, states %p, bytes %p, nstates %d; expected none NULL, 1 state or more", (void *)r,
                      (const void *)states, (const void *)bytes, nstates);
    if (r->nodes.ranks)
        return gsFail(
            GS_ERROR_UNSUPPORTED,
            "with exchange=hierarchical a rank's state is about a slice; it is imported by the same rank of as "
            "many nodes of as many ranks (gsReducerImport)");
    if (r->spec.half)
        return gsFail(
            GS_ERROR_UNSUPPORTED,
            "the state of a gsReduceScatter or gsAllGather is about slices of so many ranks; it is imported by "
            "the same rank of as many (gsReducerImport)");
    legacy old = {.parts = calloc((size_t)nstates, sizeof *old.parts), .n = (uint32_t)nstates};
    if (!old.parts)
        return gsFail(GS_ERROR_OUT_OF_MEMORY, "no memory for %d states", nstates);
    gsResult_t result = checkRanks(r, states, bytes, &old);
    if (result == GS_SUCCESS)
        result = importLegacy(r, &old, report, reportBytes);
    free(old.parts);
    return result;
}

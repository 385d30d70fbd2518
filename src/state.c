/* Export and import of a reducer's state: a header, then the current residual. Little endian. */
#include "core.h"

#include <stdlib.h>
#include <string.h>

#define STATE_MAGIC 0x54535347u /* "GSST" */

typedef struct {
    uint32_t magic, version;
    uint32_t rank;
    float tau;
    uint64_t step;
    uint64_t configHash;
    uint64_t residualBytes;
    uint64_t checksum; /* over the words of everything else */
} stateHeader;

static uint64_t residualBytes(const gsReducer_t r)
{
    return r->spec.feedback ? (r->spec.count * sizeof(float) + 7) / 8 * 8 : 0; /* whole words for the checksum */
}

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

gsResult_t gsReducerExport(gsReducer_t r, void *buffer, size_t *bytes)
{
    if (!r || !bytes)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "%s is NULL; expected %s", r ? "bytes" : "reducer",
                      r ? "the buffer's room" : "a reducer");
    size_t needed = sizeof(stateHeader) + residualBytes(r), room = *bytes;
    *bytes = needed;
    if (!buffer)
        return GS_SUCCESS;
    if (room < needed)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "the buffer has %zu bytes; expected %zu", room, needed);
    gsState state;
    GS_CHECK(r->comm->backend->get(&state, r->state, sizeof state, NULL));
    memset(buffer, 0, needed);
    if (r->spec.feedback)
        GS_CHECK(r->comm->backend->get((char *)buffer + sizeof(stateHeader), r->residual[state.phase],
                                       r->spec.count * sizeof(float), NULL));
    stateHeader h = {STATE_MAGIC, 1, r->spec.rank, state.tau, state.step, r->spec.configHash, residualBytes(r), 0};
    memcpy(buffer, &h, sizeof h);
    h.checksum = checksum(buffer, needed);
    memcpy(buffer, &h, sizeof h);
    return GS_SUCCESS;
}

static gsResult_t checkState(gsReducer_t r, const stateHeader *h, const void *buffer, size_t bytes)
{
    if (h->magic != STATE_MAGIC || h->version != 1)
        return gsFail(GS_ERROR_CORRUPT, "the state begins with %08x, version %u; expected %08x, version 1", h->magic,
                      h->version, STATE_MAGIC);
    if (h->configHash != r->spec.configHash)
        return gsFail(GS_ERROR_MISMATCH, "the state is of another recipe, count, type, seed or number of ranks");
    if (h->rank != r->spec.rank)
        return gsFail(GS_ERROR_MISMATCH, "the state is rank %u's; this is rank %u", h->rank, r->spec.rank);
    if (bytes != sizeof *h + residualBytes(r) || h->residualBytes != residualBytes(r))
        return gsFail(GS_ERROR_CORRUPT, "the state has %zu bytes; expected %zu", bytes,
                      sizeof *h + (size_t)residualBytes(r));
    if (h->checksum != checksum(buffer, bytes))
        return gsFail(GS_ERROR_CORRUPT, "the state does not match its checksum");
    return GS_SUCCESS;
}

gsResult_t gsReducerImport(gsReducer_t r, const void *buffer, size_t bytes)
{
    stateHeader h;
    if (!r || !buffer)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "%s is NULL; expected %s", r ? "buffer" : "reducer",
                      r ? "an exported state" : "a reducer");
    if (bytes < sizeof h)
        return gsFail(GS_ERROR_CORRUPT, "the state has %zu bytes; expected at least %zu", bytes, sizeof h);
    memcpy(&h, buffer, sizeof h);
    GS_CHECK(checkState(r, &h, buffer, bytes));
    GS_CHECK(gsReducerReset(r, NULL));
    gsState state;
    GS_CHECK(r->comm->backend->get(&state, r->state, sizeof state, NULL));
    state.step = h.step;
    state.tau = h.tau;
    if (r->spec.feedback)
        GS_CHECK(r->comm->backend->put(r->residual[0], (const char *)buffer + sizeof h, r->spec.count * sizeof(float),
                                       NULL));
    return r->comm->backend->put(r->state, &state, sizeof state, NULL);
}

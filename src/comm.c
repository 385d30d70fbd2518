/* Communicators: what all transports share, and the one that moves nothing. */
#include "core.h"

#include <stdlib.h>
#include <string.h>

gsResult_t gsGetVersion(int *version)
{
    if (!version)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "version is NULL; expected a place for the version code");
    *version = GS_VERSION_CODE;
    return GS_SUCCESS;
}

gsResult_t gsCommConfigCheck(const gsCommConfig_t *config, gsCommSettings *settings)
{
    static const gsCommConfig_t defaults = GS_COMM_CONFIG_INIT;
    if (!config)
        config = &defaults;
    if (config->size != sizeof *config)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "config->size is %zu; expected %zu: begin with GS_COMM_CONFIG_INIT",
                      config->size, sizeof *config);
    if (config->version / 100 != GS_VERSION_CODE / 100)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "config->version is %u; this library is %d", config->version,
                      GS_VERSION_CODE);
    if (config->timeoutMs < 0)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "config->timeoutMs is %d; expected 0 (default) or more",
                      config->timeoutMs);
    if (config->ranksPerNode < 0)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "config->ranksPerNode is %d; expected 0 (find them) or more",
                      config->ranksPerNode);
    if (config->commName && strlen(config->commName) > GS_MAX_COMM_NAME)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "config->commName is \"%s\", of %zu bytes; expected at most %d",
                      config->commName, strlen(config->commName), GS_MAX_COMM_NAME);
    *settings = (gsCommSettings){config->timeoutMs, config->ranksPerNode, GS_CLUSTER_INIT, config->commName};
    if (config->cluster) {
        GS_CHECK(gsClusterCheck(config->cluster));
        settings->known = *config->cluster;
    }
    if (!config->timeoutMs)
        GS_CHECK(gsParamInt("GS_TIMEOUT_MS", 1, INT32_MAX, 600000, &settings->timeoutMs));
    if (!config->ranksPerNode)
        GS_CHECK(gsParamInt("GS_RANKS_PER_NODE", 1, INT32_MAX, 0, &settings->ranksPerNode));
    return GS_SUCCESS;
}

gsResult_t gsCommMake(gsComm_t *comm, const gsTransport *transport, const gsBackend *backend, int rank, int nranks,
                      const gsCommConfig_t *config)
{
    gsCommSettings settings;
    if (!comm)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "comm is NULL; expected a place for the communicator");
    *comm = NULL;
    if (nranks < 1 || rank < 0 || rank >= nranks || nranks >= 1 << 24) /* a draw's counter has 24 bits for the rank */
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "rank %d of %d ranks; expected 0 <= rank < nranks < 2^24", rank,
                      nranks);
    GS_CHECK(gsCommConfigCheck(config, &settings));
    gsComm_t made = calloc(1, sizeof *made);
    if (!made)
        return gsFail(GS_ERROR_OUT_OF_MEMORY, "no %zu bytes for a communicator", sizeof *made);
    *made = (struct gsComm){.transport = transport,
                            .backend = backend,
                            .rank = rank,
                            .nranks = nranks,
                            .localRanks = 1,
                            .timeoutMs = settings.timeoutMs,
                            .ranksPerNode = (int)settings.ranksPerNode,
                            .known = settings.known};
    strcpy(made->name, settings.name ? settings.name : transport->name);
    *comm = made;
    return GS_SUCCESS;
}

static gsResult_t checkComm(gsComm_t comm)
{
    return comm ? GS_SUCCESS : gsFail(GS_ERROR_INVALID_ARGUMENT, "comm is NULL; expected a communicator");
}

gsResult_t gsCommCount(gsComm_t comm, int *nranks)
{
    GS_CHECK(checkComm(comm));
    if (!nranks)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "nranks is NULL; expected a place for the number of ranks");
    *nranks = comm->nranks;
    return GS_SUCCESS;
}

gsResult_t gsCommUserRank(gsComm_t comm, int *rank)
{
    GS_CHECK(checkComm(comm));
    if (!rank)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "rank is NULL; expected a place for the rank");
    *rank = comm->rank;
    return GS_SUCCESS;
}

gsResult_t gsCommSynchronize(gsComm_t comm, gsStream_t stream)
{
    GS_CHECK(checkComm(comm));
    return comm->transport->synchronize(comm, stream);
}

gsResult_t gsCommGetAsyncError(gsComm_t comm, gsResult_t *asyncError)
{
    GS_CHECK(checkComm(comm));
    if (!asyncError)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "asyncError is NULL; expected a place for the error");
    *asyncError = comm->transport->asyncError(comm);
    return GS_SUCCESS;
}

gsResult_t gsCommAbort(gsComm_t comm)
{
    GS_CHECK(checkComm(comm));
    return comm->transport->abort(comm);
}

gsResult_t gsCommDestroy(gsComm_t comm)
{
    if (!comm)
        return GS_SUCCESS;
    if (comm->reducers > 0)
        return gsFail(GS_ERROR_INVALID_USAGE, "the communicator still has %d reducers; destroy them first",
                      comm->reducers);
    comm->transport->destroy(comm);
    gsCommFreeParts(comm);
    free(comm);
    return GS_SUCCESS;
}

/* ---- the transport of those who bring their own ---- */

static gsResult_t noExchange(void)
{
    return gsFail(GS_ERROR_INVALID_USAGE,
                  "this communicator moves nothing (gsCommInitStages); use gsEncode and gsDecode");
}

static gsResult_t noAllGather(gsComm_t comm, const void *send, void *recv, size_t bytes, gsStream_t stream)
{
    (void)comm, (void)send, (void)recv, (void)bytes, (void)stream;
    return noExchange();
}

static gsResult_t noAllGatherExact(gsComm_t comm, const void *send, size_t bytes, void *recv, size_t slot,
                                   gsStream_t stream)
{
    (void)comm, (void)send, (void)bytes, (void)recv, (void)slot, (void)stream;
    return noExchange();
}

static gsResult_t noAllToAllExact(gsComm_t comm, const void *send, const size_t *bytes, void *recv, size_t slot,
                                  gsStream_t stream)
{
    (void)comm, (void)send, (void)bytes, (void)recv, (void)slot, (void)stream;
    return noExchange();
}

static gsResult_t noScatterSlices(gsComm_t comm, const void *send, size_t totalBytes, void *recv, size_t sliceBytes,
                                  gsStream_t stream)
{
    (void)comm, (void)send, (void)totalBytes, (void)recv, (void)sliceBytes, (void)stream;
    return noExchange();
}

static gsResult_t backendSynchronize(gsComm_t comm, gsStream_t stream)
{
    char nothing = 0;
    return comm->backend->get(&nothing, &nothing, 0, stream);
}

static gsResult_t neverFails(gsComm_t comm)
{
    (void)comm;
    return GS_SUCCESS;
}

static void nothingToDestroy(gsComm_t comm)
{
    (void)comm;
}

const gsTransport gsNoTransport = {
    .name = "stages",
    .allGather = noAllGather,
    .allGatherExact = noAllGatherExact,
    .allToAllExact = noAllToAllExact,
    .scatterSlices = noScatterSlices,
    .allReduce = NULL,     /* a dense call ends in scatterSlices */
    .allGatherHost = NULL, /* reducers compare their configurations at every decode instead */
    .synchronize = backendSynchronize,
    .asyncError = neverFails,
    .abort = neverFails,
    .destroy = nothingToDestroy,
};

gsResult_t gsCommInitStages(gsComm_t *comm, int rank, int nranks, const gsCommConfig_t *config)
{
    return gsCommMake(comm, &gsNoTransport, &gsCpuBackend, rank, nranks, config);
}

/* Nodes: which ranks share a machine, as the transport says or as the configuration divides them. */
#include "core.h"

#include <stdio.h>
#include <stdlib.h>

/* What every rank tells. */
typedef struct {
    uint64_t host;
    int64_t ranksPerNode;
} card;

/* What is known of a node. */
typedef struct {
    uint64_t host;
    int ranks;
} nodeEntry;

static gsResult_t compareCards(gsComm_t comm, card *all)
{
    for (int r = 0; r < comm->nranks; r++) {
        if (all[r].ranksPerNode != comm->ranksPerNode)
            return gsFail(GS_ERROR_MISMATCH, "rank %d has %lld ranks a node, rank %d has %d", r,
                          (long long)all[r].ranksPerNode, comm->rank, comm->ranksPerNode);
        if (comm->ranksPerNode)
            all[r].host = (uint64_t)(r / comm->ranksPerNode);
    }
    return GS_SUCCESS;
}

static void nameSizes(const nodeEntry *entry, gsNodes *nodes)
{
    size_t room = sizeof nodes->sizes, used = 0;
    enum { NAMED = 8 };
    for (int n = 0; n < nodes->nodes && n < NAMED; n++)
        used += (size_t)snprintf(nodes->sizes + used, room - used, "%s%d", n ? ", " : "", entry[n].ranks);
    if (nodes->nodes > NAMED)
        snprintf(nodes->sizes + used, room - used, " ...");
}

/* Nodes count from 0 in the order of their lowest ranks. */
static void number(gsComm_t comm, const card *all, nodeEntry *entry, gsNodes *nodes)
{
    *nodes = (gsNodes){.even = 1};
    for (int r = 0; r < comm->nranks; r++) {
        int n = 0;
        while (n < nodes->nodes && entry[n].host != all[r].host)
            n++;
        if (n == nodes->nodes)
            entry[nodes->nodes++] = (nodeEntry){all[r].host, 0};
        if (r == comm->rank) {
            nodes->node = n;
            nodes->place = entry[n].ranks;
        }
        entry[n].ranks++;
    }
    nodes->ranks = entry[nodes->node].ranks;
    for (int n = 0; n < nodes->nodes; n++)
        nodes->even &= entry[n].ranks == nodes->ranks;
    nameSizes(entry, nodes);
}

gsResult_t gsFindNodes(gsComm_t comm, gsNodes *nodes)
{
    card own = {comm->host, comm->ranksPerNode};
    if (!comm->transport->allGatherHost)
        return gsFail(GS_ERROR_UNSUPPORTED,
                      "this communicator moves nothing (gsCommInitStages): its nodes are not known");
    card *all = calloc((size_t)comm->nranks, sizeof *all);
    nodeEntry *entry = calloc((size_t)comm->nranks, sizeof *entry);
    gsResult_t result = GS_SUCCESS;
    if (!all || !entry)
        result = gsFail(GS_ERROR_OUT_OF_MEMORY, "no memory to find the nodes of %d ranks", comm->nranks);
    if (result == GS_SUCCESS)
        result = comm->transport->allGatherHost(comm, &own, all, sizeof own);
    if (result == GS_SUCCESS)
        result = compareCards(comm, all);
    if (result == GS_SUCCESS)
        number(comm, all, entry, nodes);
    free(all);
    free(entry);
    return result;
}

gsResult_t gsCommGetNodes(gsComm_t comm, int *nodes, int *node)
{
    gsNodes found;
    if (!comm || !nodes || !node)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "%s is NULL; expected %s",
                      !comm    ? "comm"
                      : !nodes ? "nodes"
                               : "node",
                      !comm ? "a communicator" : "a place for the number");
    GS_CHECK(gsFindNodes(comm, &found));
    *nodes = found.nodes;
    *node = found.node;
    return GS_SUCCESS;
}

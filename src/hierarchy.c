/*
 * exchange=hierarchical. A node's ranks sum their gradients, a slice each; ranks of equal place on all nodes exchange records of their
 * slice; and the node's ranks gather the results, each slice with its seals behind it. The reducer is about its slice, and its
 * communicator the part of the ranks with the same one: everything between the two steps here goes the ordinary road.
 */
#include "core.h"

/* ---- sizes ---- */

/* Slices are whole blocks: what a recipe does block by block it does as if nothing had been cut. */
static gsHierarchy shapeOf(const gsReducerConfig_t *config, int ranks)
{
    uint64_t blocks = (config->count + GS_BLOCK - 1) / GS_BLOCK;
    gsHierarchy h = {.ranks = ranks, .count = config->count};
    h.slice = (blocks + (uint64_t)ranks - 1) / (uint64_t)ranks * GS_BLOCK;
    h.slotBytes = gsAlign16(h.slice * gsTypeBytes(config->datatype)) + GS_SEALS * sizeof(gsSeal);
    return h;
}

static uint64_t firstOf(const gsHierarchy *h, int place)
{
    uint64_t first = h->slice * (uint64_t)place;
    return first < h->count ? first : h->count;
}

/* The configuration of the slice at `place`. Its draws are its own; those at place 0 are what they would be without slices. */
static gsReducerConfig_t sliceOf(const gsReducerConfig_t *config, const gsHierarchy *h, int place)
{
    gsReducerConfig_t slice = *config;
    slice.count = firstOf(h, place + 1) - firstOf(h, place);
    slice.seed ^= (uint64_t)place * 0xD1B54A32D192ED03u;
    return slice;
}

/* What needs the gradient of a rank, which has a slice of its node's sum. */
const char *gsHierarchyRefusal(const gsSpec *s)
{
    if (s->clip > 0.0)
        return "clip needs the norm of a whole gradient";
    if (s->trigger == GS_TRIGGER_SERVER)
        return "a rank that lag-ps does not ask for its gradient would be missing in its node's sum";
    return s->trigger == GS_TRIGGER_STALE ? "lasg-wk compares with a second gradient of each rank's own" : NULL;
}

static gsResult_t checkRecipe(const gsSpec *s, const char *recipe, int ranks)
{
    const char *reason = gsHierarchyRefusal(s);
    if (!reason || ranks == 1)
        return GS_SUCCESS;
    return gsFail(GS_ERROR_UNSUPPORTED, "recipe \"%s\" on nodes of %d ranks: not with exchange=hierarchical: %s",
                  recipe, ranks, reason);
}

gsResult_t gsReducerGetNodeMemory(const gsReducerConfig_t *config, int nranks, int ranksPerNode, gsMemory_t *memory)
{
    gsSpec spec;
    if (nranks < 1 || ranksPerNode < 1 || nranks % ranksPerNode)
        return gsFail(GS_ERROR_INVALID_ARGUMENT,
                      "nranks is %d and ranksPerNode %d; expected 1 or more nodes of as many", nranks, ranksPerNode);
    GS_CHECK(gsSpecMake(config, 0, nranks, 0, &spec));
    if (spec.exchange != GS_EXCHANGE_HIERARCHICAL)
        return gsReducerGetMemory(config, nranks, memory);
    GS_CHECK(checkRecipe(&spec, config->recipe, ranksPerNode));
    gsHierarchy h = shapeOf(config, ranksPerNode);
    gsReducerConfig_t slice = sliceOf(config, &h, 0);
    return gsAddUpMemory(&slice, nranks / ranksPerNode, &h, memory);
}

gsResult_t gsReducerGetSlice(gsReducer_t r, size_t *first, size_t *count)
{
    if (!r || !first || !count)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "%s is NULL; expected %s",
                      !r       ? "reducer"
                      : !first ? "first"
                               : "count",
                      !r ? "a reducer" : "a place for the number");
    *first = gsHierarchyFirst(r);
    *count = r->spec.count;
    return GS_SUCCESS;
}

/* ---- making ---- */

/* The parts of a communicator are made once, for all its reducers. */
gsResult_t gsCommDivide(gsComm_t comm, const gsNodes *nodes)
{
    if (!comm->node)
        GS_CHECK(comm->transport->split(comm, nodes->node, nodes->place, &comm->node));
    if (!comm->across)
        GS_CHECK(comm->transport->split(comm, nodes->place, nodes->node, &comm->across));
    return GS_SUCCESS;
}

gsResult_t gsHierarchyMake(gsReducer_t r, const gsReducerConfig_t *config, gsReducerConfig_t *slice)
{
    gsNodes nodes;
    if (!r->comm->transport->split)
        return gsFail(GS_ERROR_UNSUPPORTED, "recipe \"%s\": ranks over %s have no nodes", config->recipe,
                      r->comm->transport->name);
    GS_CHECK(gsFindNodes(r->comm, &nodes));
    if (!nodes.even)
        return gsFail(GS_ERROR_UNSUPPORTED,
                      "recipe \"%s\": the nodes have %s ranks; exchange=hierarchical expects as many on each",
                      config->recipe, nodes.sizes);
    GS_CHECK(checkRecipe(&r->spec, config->recipe, nodes.ranks));
    GS_CHECK(gsCommDivide(r->comm, &nodes));
    r->nodes = shapeOf(config, nodes.ranks);
    r->nodes.part = r->comm->node;
    *slice = sliceOf(config, &r->nodes, nodes.place);
    r->comm = r->comm->across;
    return GS_SUCCESS;
}

gsResult_t gsHierarchyFill(gsReducer_t r)
{
    return r->comm->backend->put(r->nodes.members, r->comm->members, (size_t)r->comm->nranks * sizeof *r->nodes.members,
                                 NULL);
}

/* ---- the first step: the node's sum, of the own slice ---- */

/* NCCL wants slices of equal size: a gradient that has none is copied. */
static gsResult_t pad(gsReducer_t r, const void *sendbuff, const void **padded, gsStream_t stream)
{
    const gsHierarchy *h = &r->nodes;
    size_t width = gsTypeBytes((gsDataType_t)r->spec.type), bytes = h->count * width;
    size_t all = h->slice * (uint64_t)h->ranks * width;
    *padded = sendbuff;
    if (bytes == all)
        return GS_SUCCESS;
    *padded = h->slots;
    GS_CHECK(r->comm->backend->copy(h->slots, sendbuff, bytes, stream));
    return r->comm->backend->fill(h->slots + bytes, 0, all - bytes, stream);
}

gsResult_t gsHierarchyReduceScatter(gsReducer_t r, const void *sendbuff, gsRedOp_t op, gsStream_t stream)
{
    const gsHierarchy *h = &r->nodes;
    const gsTransport *transport = h->part->transport;
    gsDataType_t type = (gsDataType_t)r->spec.type;
    size_t width = gsTypeBytes(type);
    const void *padded;
    if (transport->reduceScatter) {
        GS_CHECK(pad(r, sendbuff, &padded, stream));
        return transport->reduceScatter(h->part, padded, h->sum, h->slice, type, op, stream);
    }
    GS_CHECK(transport->scatterSlices(h->part, sendbuff, h->count * width, h->slots, h->slice * width, stream));
    return r->comm->backend->sumSlices(r, type, h->slots, (uint32_t)h->ranks, h->slice, h->sum, r->spec.count, op,
                                       stream);
}

/* ---- the last step: everybody's slices of the result ---- */

static gsResult_t seal(gsReducer_t r, gsStream_t stream)
{
    gsSeal *seals = (gsSeal *)(void *)((uint8_t *)gsHierarchySlot(r) + r->nodes.slotBytes) - GS_SEALS;
    GS_CHECK(r->comm->backend->seal(r, r->nodes.members, &seals[0], stream));
    if (!r->server)
        return GS_SUCCESS;
    return r->comm->backend->seal(r->server, r->nodes.members + r->spec.rank, &seals[1], stream);
}

static gsResult_t openSeals(gsReducer_t r, gsStream_t stream)
{
    GS_CHECK(r->comm->backend->openSeals(r, &r->nodes, 0, stream));
    return r->server ? r->comm->backend->openSeals(r->server, &r->nodes, 1, stream) : GS_SUCCESS;
}

gsResult_t gsHierarchyAllGather(gsReducer_t r, void *recvbuff, gsStream_t stream)
{
    const gsHierarchy *h = &r->nodes;
    GS_CHECK(seal(r, stream));
    GS_CHECK(h->part->transport->allGather(h->part, gsHierarchySlot(r), h->slots, h->slotBytes, stream));
    GS_CHECK(
        gsAwaitAll(r, stream)); /* a node must not do its last step while another waits in vain for one of its ranks */
    GS_CHECK(openSeals(r, stream));
    return r->comm->backend->assemble(r->server ? r->server : r, h, recvbuff, stream);
}

uint64_t gsHierarchyFirst(const gsReducer_t r)
{
    if (r->spec.half == GS_HALF_GATHER)
        return r->spec.rank * r->spec.count;
    return r->nodes.ranks ? firstOf(&r->nodes, r->nodes.part->rank) : 0;
}

/* What a call sends to ranks of the own node: the gradient's other slices, and the own result to each. */
uint64_t gsHierarchyBytes(const gsReducer_t r)
{
    const gsHierarchy *h = &r->nodes;
    if (!h->ranks)
        return 0;
    return (h->count - r->spec.count) * gsTypeBytes((gsDataType_t)r->spec.type) +
           (uint64_t)(h->ranks - 1) * h->slotBytes;
}

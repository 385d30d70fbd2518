/*
 * Profiler ranges, by NVTX. A tool that is attached gets names and recipes as registered strings, and the layout of the payload, once; a
 * range then carries a few numbers. Payloads go with the beginning of a range, which every tool takes: what a stage finds out is in the
 * ranges behind it.
 */
#include "range.h"

#include <nvtx3/nvToolsExt.h>
#include <nvtx3/nvToolsExtPayload.h>

#include <pthread.h>
#include <stdio.h>

static const char *const names[GS_RANGES] = {
    [GS_RANGE_ALL_REDUCE] = "gsAllReduce",
    [GS_RANGE_REDUCE_SCATTER] = "gsReduceScatter",
    [GS_RANGE_ALL_GATHER] = "gsAllGather",
    [GS_RANGE_ALL_REDUCE_SEGMENTS] = "gsAllReduceSegments",
    [GS_RANGE_ALL_REDUCE_STEP] = "gsAllReduceStep",
    [GS_RANGE_ENCODE] = "gsEncode",
    [GS_RANGE_SUM_PARTS] = "gsSumParts",
    [GS_RANGE_DECODE] = "gsDecode",
    [GS_RANGE_SELECT] = "select",
    [GS_RANGE_PACK] = "pack",
    [GS_RANGE_COMPARE] = "compare",
    [GS_RANGE_EXCHANGE] = "exchange",
    [GS_RANGE_OWNER] = "owner",
    [GS_RANGE_ACCUMULATE] = "accumulate",
    [GS_RANGE_COMMIT] = "commit",
    [GS_RANGE_RESYNC] = "resync",
    [GS_RANGE_NODE_SUM] = "reduce-scatter",
    [GS_RANGE_NODE_GATHER] = "all-gather",
};

typedef struct {
    nvtxStringHandle_t communicator, reducer;
    uint32_t rank, ranks;
    uint64_t count, denseBytes, payloadBytes;
    double density;
    uint32_t mode, known;
} payload;

/* The attached tool's; domain is NULL where there is none. */
static struct {
    nvtxDomainHandle_t domain;
    nvtxStringHandle_t names[GS_RANGES];
    uint64_t schema; /* 0: the tool takes no payloads */
} tool;

static uint64_t registerEnum(const char *name, const nvtxPayloadEnum_t *entries, size_t count)
{
    nvtxPayloadEnumAttr_t attributes = {.fieldMask = NVTX_PAYLOAD_ENUM_ATTR_FIELD_NAME |
                                                     NVTX_PAYLOAD_ENUM_ATTR_FIELD_ENTRIES |
                                                     NVTX_PAYLOAD_ENUM_ATTR_FIELD_NUM_ENTRIES |
                                                     NVTX_PAYLOAD_ENUM_ATTR_FIELD_SIZE,
                                        .name = name,
                                        .entries = entries,
                                        .numEntries = count,
                                        .sizeOfEnum = sizeof(uint32_t)};
    uint64_t type = nvtxPayloadEnumRegister(tool.domain, &attributes);
    return type ? type : NVTX_PAYLOAD_ENTRY_TYPE_UINT32;
}

static uint64_t registerModes(void)
{
    nvtxPayloadEnum_t modes[GS_MODES] = {{0}};
    for (int m = 0; m < GS_MODES; m++)
        modes[m] = (nvtxPayloadEnum_t){.name = gsGetModeName((gsMode_t)m), .value = (uint64_t)m};
    return registerEnum("mode", modes, GS_MODES);
}

static uint64_t registerKnown(void)
{
    static const nvtxPayloadEnum_t known[] = {
        {"capacity", GS_KNOWN_CAPACITY, 0}, {"an earlier call", GS_KNOWN_EARLIER, 0}, {"this call", GS_KNOWN_THIS, 0}};
    return registerEnum("known", known, sizeof known / sizeof *known);
}

static uint64_t registerPayload(void)
{
    enum {
        STRING = NVTX_PAYLOAD_ENTRY_TYPE_NVTX_REGISTERED_STRING_HANDLE,
        U32 = NVTX_PAYLOAD_ENTRY_TYPE_UINT32,
        U64 = NVTX_PAYLOAD_ENTRY_TYPE_UINT64,
        F64 = NVTX_PAYLOAD_ENTRY_TYPE_DOUBLE
    };
#define ENTRY(type, name, text, field)                               \
    {                                                                \
        0, type, name, text, 0, offsetof(payload, field), NULL, NULL \
    }
    const nvtxPayloadSchemaEntry_t entries[] = {
        ENTRY(STRING, "communicator", "gsCommConfig_t.commName", communicator),
        ENTRY(U32, "rank", "of the communicator", rank),
        ENTRY(U32, "ranks", "of the communicator", ranks),
        ENTRY(STRING, "reducer", "its number among the communicator's, and its recipe", reducer),
        ENTRY(U64, "count", "elements that the rank hands in", count),
        ENTRY(U64, "dense bytes", "of these elements", denseBytes),
        ENTRY(U64, "payload bytes", "of the rank's record", payloadBytes),
        ENTRY(F64, "density", "share of coordinates in the record", density),
        ENTRY(registerModes(), "mode", "how the step travels", mode),
        ENTRY(registerKnown(), "known", "whose payload bytes and density these are", known),
    };
#undef ENTRY
    nvtxPayloadSchemaAttr_t attributes = {.fieldMask = NVTX_PAYLOAD_SCHEMA_ATTR_FIELD_NAME |
                                                       NVTX_PAYLOAD_SCHEMA_ATTR_FIELD_TYPE |
                                                       NVTX_PAYLOAD_SCHEMA_ATTR_FIELD_ENTRIES |
                                                       NVTX_PAYLOAD_SCHEMA_ATTR_FIELD_NUM_ENTRIES |
                                                       NVTX_PAYLOAD_SCHEMA_ATTR_FIELD_STATIC_SIZE,
                                          .name = "gradsieve",
                                          .type = NVTX_PAYLOAD_SCHEMA_TYPE_STATIC,
                                          .entries = entries,
                                          .numEntries = sizeof entries / sizeof *entries,
                                          .payloadStaticSize = sizeof(payload)};
    return nvtxPayloadSchemaRegister(tool.domain, &attributes);
}

static void attach(void)
{
    tool.domain = nvtxDomainCreateA("gradsieve");
    if (!tool.domain)
        return;
    for (int i = 0; i < GS_RANGES; i++)
        tool.names[i] = nvtxDomainRegisterStringA(tool.domain, names[i]);
    tool.schema = registerPayload();
}

static int listens(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, attach);
    return tool.domain != NULL;
}

gsResult_t gsRangeNameReducer(gsReducer_t r, const char *recipe, gsReducer_t first)
{
    char text[512];
    int64_t disabled;
    gsComm_t comm = gsCommWhole((first ? first : r)->comm);
    GS_CHECK(gsParamInt("GS_NVTX_DISABLE", 0, 1, 0, &disabled));
    if (disabled || !listens())
        return GS_SUCCESS;
    snprintf(text, sizeof text, "%u %s%s", (first ? first : r)->number, recipe, first ? ", second half" : "");
    r->profile = (gsProfile){.listens = 1,
                             .communicator = nvtxDomainRegisterStringA(tool.domain, comm->name),
                             .reducer = nvtxDomainRegisterStringA(tool.domain, text),
                             .rank = (uint32_t)comm->rank,
                             .ranks = (uint32_t)comm->nranks};
    return GS_SUCCESS;
}

static payload payloadOf(const gsReducer_t r)
{
    const gsSpec *s = &r->spec;
    int dense = s->select == GS_SELECT_DENSE || s->denseNow;
    uint64_t count = r->nodes.ranks ? r->nodes.count : s->count;
    return (payload){.communicator = r->profile.communicator,
                     .reducer = r->profile.reducer,
                     .rank = r->profile.rank,
                     .ranks = r->profile.ranks,
                     .count = count,
                     .denseBytes = count * gsTypeWidth(s->type),
                     .payloadBytes = dense ? gsDensePayload(s) : r->known.bytes,
                     .density = dense ? 1.0 : r->known.density,
                     .mode = dense ? GS_MODE_DENSE : (uint32_t)GS_MODE_CAPACITY + s->exchange,
                     .known = dense ? GS_KNOWN_THIS : r->known.of};
}

void gsRangeBegin(gsReducer_t r, gsRange range)
{
    if (!r->profile.listens)
        return;
    payload content = payloadOf(r);
    nvtxPayloadData_t data = {tool.schema, sizeof content, &content};
    nvtxEventAttributes_t event = {.version = NVTX_VERSION,
                                   .size = NVTX_EVENT_ATTRIB_STRUCT_SIZE,
                                   .messageType = NVTX_MESSAGE_TYPE_REGISTERED,
                                   .message.registered = tool.names[range]};
    if (tool.schema) {
        event.payloadType = NVTX_PAYLOAD_TYPE_EXT;
        event.reserved0 = 1; /* payloads */
        event.payload.ullValue = (uint64_t)(uintptr_t)&data;
    }
    nvtxDomainRangePushEx(tool.domain, &event);
}

void gsRangeEnd(gsReducer_t r)
{
    if (r->profile.listens)
        nvtxDomainRangePop(tool.domain);
}

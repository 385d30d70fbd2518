/*
 * A profiler of the tests' own: what NVTX loads where NVTX_INJECTION64_PATH says so. It takes domains, registered strings, push and pop
 * ranges, and from the payload extension schemas and enums, by the tools' interface in NVTX's headers.
 */
#include "nvtx_tool.h"

#include <nvtx3/nvToolsExt.h>
#include <nvtx3/nvToolsExtPayload.h>

#include <cstring>
#include <deque>
#include <mutex>

namespace
{

struct Entry {
    std::string name;
    uint64_t type, offset;
};

struct Schema {
    std::string name;
    size_t bytes;
    std::vector<Entry> entries;
};

using Enum = std::map<uint64_t, std::string>;

std::mutex lock;
std::deque<std::string> domains, strings; /* handles point to them */
std::map<uint64_t, Schema> schemas;
std::map<uint64_t, Enum> enums;
std::deque<std::vector<gst::Range>> threads;
uint64_t nextId = NVTX_PAYLOAD_SCHEMA_ID_DYNAMIC_START;

/* This thread's ranges. Whoever takes them has to know that the thread is at rest. */
std::vector<gst::Range> &ownRanges()
{
    thread_local std::vector<gst::Range> *own = nullptr;
    if (!own) {
        std::lock_guard<std::mutex> guard(lock);
        threads.emplace_back();
        own = &threads.back();
    }
    return *own;
}

thread_local std::vector<size_t> openRanges; /* places in ownRanges() */

template <typename Number> Number read(const void *from)
{
    Number number;
    std::memcpy(&number, from, sizeof number);
    return number;
}

gst::PayloadValue decode(uint64_t type, const void *from)
{
    std::lock_guard<std::mutex> guard(lock);
    auto known = enums.find(type);
    if (known != enums.end()) {
        uint32_t value = read<uint32_t>(from);
        return {known->second.count(value) ? known->second.at(value) : "not in the enum", static_cast<double>(value)};
    }
    switch (type) {
    case NVTX_PAYLOAD_ENTRY_TYPE_NVTX_REGISTERED_STRING_HANDLE: return {*read<const std::string *>(from), 0};
    case NVTX_PAYLOAD_ENTRY_TYPE_UINT32: return {"", static_cast<double>(read<uint32_t>(from))};
    case NVTX_PAYLOAD_ENTRY_TYPE_UINT64: return {"", static_cast<double>(read<uint64_t>(from))};
    case NVTX_PAYLOAD_ENTRY_TYPE_DOUBLE: return {"", read<double>(from)};
    default: return {"a type that this tool does not know", 0};
    }
}

void decodePayload(const nvtxPayloadData_t &data, gst::Range *range)
{
    auto found = schemas.find(data.schemaId); /* all are there before the first range */
    if (found == schemas.end() || data.size != found->second.bytes)
        return;
    range->schema = found->second.name;
    for (const Entry &entry : found->second.entries)
        range->payload[entry.name] = decode(entry.type, static_cast<const uint8_t *>(data.payload) + entry.offset);
}

/* ---- callbacks ---- */

nvtxDomainHandle_t NVTX_API createDomain(const char *name)
{
    std::lock_guard<std::mutex> guard(lock);
    domains.emplace_back(name);
    return reinterpret_cast<nvtxDomainHandle_t>(&domains.back());
}

nvtxStringHandle_t NVTX_API registerString(nvtxDomainHandle_t, const char *text)
{
    std::lock_guard<std::mutex> guard(lock);
    strings.emplace_back(text);
    return reinterpret_cast<nvtxStringHandle_t>(&strings.back());
}

int NVTX_API push(nvtxDomainHandle_t domain, const nvtxEventAttributes_t *event)
{
    std::vector<gst::Range> &own = ownRanges();
    gst::Range range;
    range.domain = *reinterpret_cast<const std::string *>(domain);
    range.registered = event->messageType == NVTX_MESSAGE_TYPE_REGISTERED;
    range.name = range.registered ? *reinterpret_cast<const std::string *>(event->message.registered)
                                  : std::string(event->message.ascii);
    range.depth = static_cast<int>(openRanges.size());
    if (event->payloadType == NVTX_PAYLOAD_TYPE_EXT && event->reserved0 == 1)
        decodePayload(*reinterpret_cast<const nvtxPayloadData_t *>(event->payload.ullValue), &range);
    openRanges.push_back(own.size());
    own.push_back(range);
    return range.depth;
}

int NVTX_API pop(nvtxDomainHandle_t)
{
    if (openRanges.empty())
        return NVTX_NO_PUSH_POP_TRACKING;
    ownRanges().at(openRanges.back()).open = false;
    openRanges.pop_back();
    return static_cast<int>(openRanges.size());
}

uint64_t NVTX_API registerSchema(nvtxDomainHandle_t, const nvtxPayloadSchemaAttr_t *attributes)
{
    std::lock_guard<std::mutex> guard(lock);
    Schema schema = {attributes->name, attributes->payloadStaticSize, {}};
    for (size_t i = 0; i < attributes->numEntries; i++)
        schema.entries.push_back(
            {attributes->entries[i].name, attributes->entries[i].type, attributes->entries[i].offset});
    schemas[nextId] = schema;
    return nextId++;
}

uint64_t NVTX_API registerEnum(nvtxDomainHandle_t, const nvtxPayloadEnumAttr_t *attributes)
{
    std::lock_guard<std::mutex> guard(lock);
    for (size_t i = 0; i < attributes->numEntries; i++)
        enums[nextId][attributes->entries[i].value] = attributes->entries[i].name;
    return nextId++;
}

template <typename Function> void subscribe(NvtxFunctionTable table, int which, Function function)
{
    *table[which] = reinterpret_cast<NvtxFunctionPointer>(function);
}

} // namespace

extern "C" int InitializeInjectionNvtx2(NvtxGetExportTableFunc_t getTable)
{
    auto callbacks = static_cast<const NvtxExportTableCallbacks *>(getTable(NVTX_ETID_CALLBACKS));
    NvtxFunctionTable table = nullptr;
    unsigned int size = 0;
    if (!callbacks || !callbacks->GetModuleFunctionTable(NVTX_CB_MODULE_CORE2, &table, &size) ||
        size <= NVTX_CBID_CORE2_DomainCreateA)
        return 0;
    subscribe(table, NVTX_CBID_CORE2_DomainCreateA, createDomain);
    subscribe(table, NVTX_CBID_CORE2_DomainRegisterStringA, registerString);
    subscribe(table, NVTX_CBID_CORE2_DomainRangePushEx, push);
    subscribe(table, NVTX_CBID_CORE2_DomainRangePop, pop);
    return 1;
}

/* Its argument has a hidden type. */
extern "C" __attribute__((visibility("default"))) int InitializeInjectionNvtxExtension(nvtxExtModuleInfo_t *module)
{
    if (module->moduleId != NVTX_EXT_PAYLOAD_MODULEID || module->segmentsCount < 1)
        return 0;
    intptr_t *slots = module->segments[0].functionSlots;
    slots[NVTX3EXT_CBID_nvtxPayloadSchemaRegister] = reinterpret_cast<intptr_t>(registerSchema);
    slots[NVTX3EXT_CBID_nvtxPayloadEnumRegister] = reinterpret_cast<intptr_t>(registerEnum);
    return 1;
}

std::vector<gst::Range> gst::takeRanges()
{
    std::lock_guard<std::mutex> guard(lock);
    std::vector<Range> all;
    for (std::vector<Range> &ranges : threads) {
        all.insert(all.end(), ranges.begin(), ranges.end());
        ranges.clear();
    }
    return all;
}

gst::Registrations gst::registrations()
{
    std::lock_guard<std::mutex> guard(lock);
    return {static_cast<int>(domains.size()), static_cast<int>(schemas.size()), static_cast<int>(enums.size())};
}

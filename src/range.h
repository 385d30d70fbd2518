/* Profiler ranges: NVTX in the domain "gradsieve" where its headers were found at build time, nothing otherwise. */
#ifndef GS_RANGE_H
#define GS_RANGE_H

#ifdef GS_HAVE_NVTX
#include <nvtx3/nvToolsExt.h>

static inline nvtxDomainHandle_t gsRangeDomain(void)
{
    static nvtxDomainHandle_t
        domain; /* creating it twice gives the same handle, so the race of two first calls is harmless */
    nvtxDomainHandle_t known = __atomic_load_n(&domain, __ATOMIC_RELAXED);
    if (!known) {
        known = nvtxDomainCreateA("gradsieve");
        __atomic_store_n(&domain, known, __ATOMIC_RELAXED);
    }
    return known;
}

static inline void gsRangeBegin(const char *name)
{
    nvtxEventAttributes_t event = {.version = NVTX_VERSION,
                                   .size = NVTX_EVENT_ATTRIB_STRUCT_SIZE,
                                   .messageType = NVTX_MESSAGE_TYPE_ASCII,
                                   .message.ascii = name};
    nvtxDomainRangePushEx(gsRangeDomain(), &event);
}

#define GS_RANGE_BEGIN(name) gsRangeBegin(name)
#define GS_RANGE_END() nvtxDomainRangePop(gsRangeDomain())
#else
#define GS_RANGE_BEGIN(name) ((void)0)
#define GS_RANGE_END() ((void)0)
#endif

#endif

/* Errors: the codes' names and the last error's text of each thread. */
#include "core.h"

#include <stdarg.h>
#include <stdio.h>

static _Thread_local char lastError[512];

const char *gsGetErrorString(gsResult_t result)
{
    switch (result) {
    case GS_SUCCESS: return "success";
    case GS_ERROR_INVALID_ARGUMENT: return "invalid argument";
    case GS_ERROR_INVALID_RECIPE: return "invalid recipe";
    case GS_ERROR_INVALID_USAGE: return "invalid usage";
    case GS_ERROR_OUT_OF_MEMORY: return "out of memory";
    case GS_ERROR_MISMATCH: return "ranks disagree";
    case GS_ERROR_CORRUPT: return "corrupt data";
    case GS_ERROR_TIMEOUT: return "deadline passed";
    case GS_ERROR_ABORTED: return "communicator aborted";
    case GS_ERROR_TRANSPORT: return "transport error";
    case GS_ERROR_DEVICE: return "device error";
    case GS_ERROR_UNSUPPORTED: return "unsupported";
    case GS_ERROR_SYSTEM: return "system error";
    }
    return "unknown result";
}

const char *gsGetLastError(void)
{
    return lastError;
}

gsResult_t gsFail(gsResult_t result, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(lastError, sizeof lastError, format, arguments);
    va_end(arguments);
    gsLog(GS_LOG_WARN, "%s: %s", gsGetErrorString(result), lastError);
    return result;
}

/* What is wrong with a record. */
static const char *const faults[] = {
    [GS_FAULT_CONFIG] = "was made by another configuration (recipe, count, type, seed or number of ranks)",
    [GS_FAULT_STEP] = "is of another step than this rank's",
    [GS_FAULT_OP] = "is of another operation (sum, average) than this rank's call",
    [GS_FAULT_RANK] = "names another rank",
    [GS_FAULT_OWNER_MISMATCH] = "says that the ranks' calls disagree, as the owner of its blocks has found",
    [GS_FAULT_MAGIC] = "does not begin with a record's magic number",
    [GS_FAULT_VERSION] = "has an unknown version",
    [GS_FAULT_FLAGS] = "has unknown flags",
    [GS_FAULT_LAYOUT] = "has an impossible layout, value coding or segment",
    [GS_FAULT_KEPT] = "has an impossible number of kept coordinates",
    [GS_FAULT_LENGTH] = "has a length that does not follow from its contents, or exceeds the slot",
    [GS_FAULT_CHECKSUM] = "does not match its checksum",
    [GS_FAULT_TABLE] = "has an impossible block table",
    [GS_FAULT_VALUE] = "has a scale or coefficient that is not finite",
    [GS_FAULT_INDEX] = "has an index out of its block or out of order",
    [GS_FAULT_OWNER] = "says that the owner of its blocks was sent a damaged record",
};

const char *gsFaultText(uint32_t fault)
{
    return fault < sizeof faults / sizeof *faults && faults[fault] ? faults[fault] : "is invalid";
}

gsResult_t gsVerdictError(const gsState *state)
{
    uint32_t fault = state->fault;
    if (fault == GS_FAULT_NONE)
        return GS_SUCCESS;
    if (fault == GS_FAULT_UNFINISHED)
        return gsFail(GS_ERROR_TRANSPORT,
                      "the exchange was ended before all ranks were through; nothing was changed "
                      "(own step %llu)",
                      (unsigned long long)state->step);
    return gsFail(gsIsMismatch(fault) ? GS_ERROR_MISMATCH : GS_ERROR_CORRUPT,
                  "the record in rank %u's place %s; nothing was changed (own step %llu)", state->faultRank,
                  gsFaultText(fault), (unsigned long long)state->step);
}

gsResult_t gsCallError(gsReducer_t r)
{
    if (r->comm->backend->onDevice)
        return GS_SUCCESS;
    gsResult_t error = gsVerdictError(r->state);
    r->state->fault = GS_FAULT_NONE;
    if (r->owners && r->server)
        r->server->state->fault = GS_FAULT_NONE;
    return error;
}

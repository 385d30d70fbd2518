/* The environment's values, with checks; params.def lists the names. */
#include "core.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[] = {
#define GS_PARAM(name, meaning) name,
#include "params.def"
};

static int known(const char *name)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i], name) == 0)
            return 1;
    return 0;
}

const char *gsParamText(const char *name, const char *fallback)
{
    const char *value = known(name) ? getenv(name) : NULL;
    return value && *value ? value : fallback;
}

gsResult_t gsParamInt(const char *name, int64_t low, int64_t high, int64_t fallback, int64_t *value)
{
    const char *text = gsParamText(name, NULL);
    char *end;
    *value = fallback;
    if (!text)
        return GS_SUCCESS;
    errno = 0;
    long long parsed = strtoll(text, &end, 10);
    if (errno || *end || parsed < low || parsed > high)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "environment %s is \"%s\"; expected a whole number from %lld to %lld",
                      name, text, (long long)low, (long long)high);
    *value = parsed;
    return GS_SUCCESS;
}

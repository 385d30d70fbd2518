/* Which calls may be compressed: by the environment and by what all ranks know of a call, never by what is in a gradient. */
#include "preload.h"
#include "../src/hash.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of GS_SIZES. */
typedef struct {
    uint64_t low, high;
    bool leave;
} range_t;

enum { MAX_RANGES = 64 };

static preloadSettings settings;
static range_t ranges[MAX_RANGES];
static int nranges;

const char *preloadPassText(preloadPass reason)
{
    static const char *const texts[PASS_REASONS] = {
        [PASS_DISABLED] = "GS_DISABLE is set",
        [PASS_SETTINGS] = "settings that cannot be used, or differ between ranks",
        [PASS_ALONE] = "of one rank",
        [PASS_SMALL] = "below GS_MIN_BYTES",
        [PASS_TYPE] = "not of float16, bfloat16, float32 or float64",
        [PASS_OP] = "neither sum nor average",
        [PASS_SIZE] = "left by GS_SIZES",
        [PASS_SCATTER] = "reduce-scatters, which the recipe has not",
        [PASS_STATE] = "without a reducer",
    };
    return texts[reason];
}

static void refuse(const char *name, const char *value, const char *expected)
{
    snprintf(settings.refusal, sizeof settings.refusal, "environment %s is \"%.80s\"; expected %s", name, value,
             expected);
}

static void readInt(const char *name, int64_t low, int64_t fallback, int64_t *value)
{
    if (gsParamInt(name, low, INT64_MAX, fallback, value) != GS_SUCCESS)
        snprintf(settings.refusal, sizeof settings.refusal, "%s", gsGetLastError());
}

/* "N" or "N-M"; the text behind it, NULL if it is neither. */
static const char *readRange(const char *text, range_t *range)
{
    char *end;
    range->leave = *text == '!';
    text += range->leave;
    if (*text < '0' || *text > '9')
        return NULL;
    range->low = range->high = strtoull(text, &end, 10);
    if (*end != '-')
        return end;
    text = end + 1;
    if (*text < '0' || *text > '9')
        return NULL;
    range->high = strtoull(text, &end, 10);
    return end;
}

static void readSizes(const char *text)
{
    const char *at = text;
    while (*at) {
        at = nranges < MAX_RANGES ? readRange(at, &ranges[nranges]) : NULL;
        if (!at || (*at && *at != ',') || ranges[nranges].low > ranges[nranges].high) {
            refuse("GS_SIZES", text, "at most 64 of N, N-M, !N or !N-M, with commas between");
            return;
        }
        nranges++;
        at += *at == ',';
    }
}

static void readSettings(void)
{
    static const char *const alike[] = {"GS_RECIPE", "GS_MIN_BYTES", "GS_SIZES", "GS_STATE_LIMIT"};
    int64_t disabled = 0;
    settings.hash = GS_HASH_BASIS + GS_VERSION_CODE;
    for (size_t i = 0; i < sizeof alike / sizeof *alike; i++) {
        const char *text = gsParamText(alike[i], "");
        settings.hash = gsHashBytes(settings.hash, text, strlen(text) + 1); /* its end counts */
    }
    settings.recipe = gsParamText("GS_RECIPE", "threshold:density=0.01");
    settings.report = gsParamText("GS_REPORT", "first");
    readInt("GS_DISABLE", 0, 0, &disabled);
    readInt("GS_MIN_BYTES", PRELOAD_LEAST_BYTES, 262144, &settings.minBytes);
    readInt("GS_STATE_LIMIT", 0, 0, &settings.stateLimit);
    readInt("GS_TIMEOUT_MS", 1, 600000, &settings.timeoutMs);
    readSizes(gsParamText("GS_SIZES", ""));
    settings.disabled = disabled != 0;
    if (strcmp(settings.report, "none") != 0 && strcmp(settings.report, "first") != 0 &&
        strcmp(settings.report, "all") != 0)
        refuse("GS_REPORT", settings.report, "none, first or all");
}

const preloadSettings *preloadGetSettings(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, readSettings);
    return &settings;
}

/* One that is to be left is left; of others, if any are named, only those are taken. */
static bool isListed(uint64_t count)
{
    bool named = false, taken = false;
    for (int i = 0; i < nranges; i++) {
        bool inside = count >= ranges[i].low && count <= ranges[i].high;
        if (inside && ranges[i].leave)
            return false;
        named |= !ranges[i].leave;
        taken |= inside;
    }
    return taken || !named;
}

static bool hasBytes(const preloadKey *key, int64_t least)
{
    return key->count >= (size_t)least / gsTypeBytes((gsDataType_t)key->type);
}

/* Asked of the recipe's text alone, so that a rank without memory gives the same answer: what is left out here keeps no place in a
 * plan, and all-reduces around it are compressed. */
static bool recipeScatters;

static void askRecipe(void)
{
    gsReducerConfig_t config = GS_REDUCER_CONFIG_INIT;
    gsMemory_t memory;
    config.recipe = preloadGetSettings()->recipe;
    config.count = 1u << 30; /* any that has room for a k */
    config.collective = GS_REDUCE_SCATTER;
    recipeScatters = gsReducerGetMemory(&config, 2, &memory) != GS_ERROR_UNSUPPORTED;
}

static bool recipeHas(const preloadKey *key)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (key->collective == GS_ALL_REDUCE)
        return true;
    pthread_once(&once, askRecipe);
    return recipeScatters;
}

bool preloadIsCandidate(const preloadKey *key)
{
    return gsIsFloating((gsDataType_t)key->type) && (key->op == ncclSum || key->op == ncclAvg) &&
           hasBytes(key, PRELOAD_LEAST_BYTES);
}

preloadPass preloadJudge(const preloadKey *key)
{
    const preloadSettings *s = preloadGetSettings();
    if (s->refusal[0])
        return PASS_SETTINGS;
    if (!gsIsFloating((gsDataType_t)key->type))
        return PASS_TYPE;
    if (key->op != ncclSum && key->op != ncclAvg)
        return PASS_OP;
    if (!hasBytes(key, s->minBytes))
        return PASS_SMALL;
    if (!isListed(key->count))
        return PASS_SIZE;
    return recipeHas(key) ? PASS_NOT : PASS_SCATTER;
}

/* Which instruction set the stages run with: the best there is, or what GS_CPU names. */
#include "stages.h"

#include <string.h>

#define DECLARE(isa)                                                                          \
    void gsFindScale_##isa(gsReducer_t, const void *);                                        \
    void gsFindTau_##isa(gsReducer_t, const void *);                                          \
    void gsSelect_##isa(gsReducer_t, const void *);                                           \
    void gsPack_##isa(gsReducer_t, const void *, uint8_t *);                                  \
    uint64_t gsChecksum_##isa(const gsReducer_t, const uint8_t *, uint64_t, uint64_t);        \
    void gsAccumulate_##isa(gsReducer_t, const uint8_t *, void *, gsRedOp_t);                 \
    void gsSumSlices_##isa(gsReducer_t, const void *, uint64_t, void *, uint64_t, gsRedOp_t); \
    int gsAllFinite_##isa(gsReducer_t, const void *);                                         \
    void gsScale_##isa(gsReducer_t, float *, float);                                          \
    static const gsCpuStages stages_##isa = {#isa,                                            \
                                             gsFindScale_##isa,                               \
                                             gsFindTau_##isa,                                 \
                                             gsSelect_##isa,                                  \
                                             gsPack_##isa,                                    \
                                             gsChecksum_##isa,                                \
                                             gsAccumulate_##isa,                              \
                                             gsSumSlices_##isa,                               \
                                             gsAllFinite_##isa,                               \
                                             gsScale_##isa};

DECLARE(portable)
#ifdef GS_HAVE_AVX2
DECLARE(avx2)
#endif

/* Best first. */
static const struct {
    const gsCpuStages *stages;
    const char *feature;
} tables[] = {
#ifdef GS_HAVE_AVX2
    {&stages_avx2, "avx2"},
#endif
    {&stages_portable, NULL},
};

static int runsHere(const char *feature)
{
#ifdef GS_HAVE_AVX2
    return !feature || (strcmp(feature, "avx2") == 0 && __builtin_cpu_supports("avx2"));
#else
    return !feature;
#endif
}

gsResult_t gsCpuStagesFind(const gsCpuStages **stages)
{
    const char *wanted = gsParamText("GS_CPU", NULL);
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        if (wanted && strcmp(wanted, tables[i].stages->name) != 0)
            continue;
        if (runsHere(tables[i].feature)) {
            *stages = tables[i].stages;
            return GS_SUCCESS;
        }
        if (wanted)
            return gsFail(GS_ERROR_UNSUPPORTED, "environment GS_CPU is \"%s\", which this processor does not run",
                          wanted);
    }
    return gsFail(GS_ERROR_INVALID_ARGUMENT, "environment GS_CPU is \"%s\"; expected avx2 or portable", wanted);
}

/* Which instruction set the stages run with: the best there is, or what GS_CPU names; one table for each gsReal. */
#include "stages.h"

#include <string.h>

#define DECLARE(isa, bits)                                                                                   \
    gsSums gsSumVector_##isa##_##bits(gsReducer_t, gsVector, double, uint32_t);                              \
    void gsFindTau_##isa##_##bits(gsReducer_t, gsVector);                                                    \
    void gsFindLimit_##isa##_##bits(gsReducer_t, gsVector, uint64_t);                                        \
    void gsChooseReference_##isa##_##bits(gsReducer_t, gsVector);                                            \
    void gsCompare_##isa##_##bits(gsReducer_t, gsVector, void *);                                            \
    double gsDistance_##isa##_##bits(gsReducer_t, gsVector, gsVector);                                       \
    void gsSelect_##isa##_##bits(gsReducer_t, gsVector);                                                     \
    void gsPack_##isa##_##bits(gsReducer_t, gsVector, uint8_t *);                                            \
    gsCodedNorms gsMeasureCoding_##isa##_##bits(gsReducer_t, gsVector);                                      \
    uint64_t gsChecksum_##isa##_##bits(const gsReducer_t, const uint8_t *, uint64_t, uint64_t);              \
    void gsAccumulate_##isa##_##bits(gsReducer_t, const uint8_t *, const void *, void *, gsRedOp_t);         \
    void gsSumSlices_##isa##_##bits(gsReducer_t, gsVector, uint32_t, uint64_t, void *, uint64_t, gsRedOp_t); \
    int gsAllFinite_##isa##_##bits(gsReducer_t, gsVector);                                                   \
    void gsScale_##isa##_##bits(gsReducer_t, void *, float);                                                 \
    void gsOptimizeBy_##isa##_##bits(gsReducer_t, gsVector, uint64_t, uint64_t);                             \
    void gsMakeResult_##isa##_##bits(gsReducer_t, gsRedOp_t);                                                \
    void gsRememberParts_##isa##_##bits(gsReducer_t);                                                        \
    void gsOptimize_##isa##_##bits(const gsOptimizerCall *, const void *, uint64_t, uint64_t);               \
    static const gsCpuStages stages_##isa##_##bits = {#isa,                                                  \
                                                      bits,                                                  \
                                                      gsSumVector_##isa##_##bits,                            \
                                                      gsFindTau_##isa##_##bits,                              \
                                                      gsFindLimit_##isa##_##bits,                            \
                                                      gsChooseReference_##isa##_##bits,                      \
                                                      gsCompare_##isa##_##bits,                              \
                                                      gsDistance_##isa##_##bits,                             \
                                                      gsSelect_##isa##_##bits,                               \
                                                      gsPack_##isa##_##bits,                                 \
                                                      gsMeasureCoding_##isa##_##bits,                        \
                                                      gsChecksum_##isa##_##bits,                             \
                                                      gsAccumulate_##isa##_##bits,                           \
                                                      gsSumSlices_##isa##_##bits,                            \
                                                      gsAllFinite_##isa##_##bits,                            \
                                                      gsScale_##isa##_##bits,                                \
                                                      gsOptimizeBy_##isa##_##bits,                           \
                                                      gsMakeResult_##isa##_##bits,                           \
                                                      gsRememberParts_##isa##_##bits,                        \
                                                      gsOptimize_##isa##_##bits};

DECLARE(portable, 32)
DECLARE(portable, 64)
#ifdef GS_HAVE_AVX2
DECLARE(avx2, 32)
DECLARE(avx2, 64)
#endif

/* Best first. */
static const struct {
    const gsCpuStages *stages;
    const char *feature;
} tables[] = {
#ifdef GS_HAVE_AVX2
    {&stages_avx2_32, "avx2"},
    {&stages_avx2_64, "avx2"},
#endif
    {&stages_portable_32, NULL},
    {&stages_portable_64, NULL},
};

static int runsHere(const char *feature)
{
#ifdef GS_HAVE_AVX2
    return !feature || (strcmp(feature, "avx2") == 0 && __builtin_cpu_supports("avx2"));
#else
    return !feature;
#endif
}

gsResult_t gsCpuStagesFind(uint32_t bits, const gsCpuStages **stages)
{
    const char *wanted = gsParamText("GS_CPU", NULL);
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        if (tables[i].stages->bits != bits || (wanted && strcmp(wanted, tables[i].stages->name) != 0))
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

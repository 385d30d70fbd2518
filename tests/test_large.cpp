/* More than 2^32 elements: bfloat16, in place, an unbiased recipe. Long runs only: it takes 11 GB of memory and half a minute. */
#include "draw.h"
#include "ranks.h"

#include "rules/randk.h"

#include <sys/mman.h>

namespace
{

constexpr uint64_t count = (1ull << 32) + 5000; /* the last block is short */
constexpr float density = 1.0f / 8192;          /* its inverse is exact, and so are the small numbers times it */

class Mapping
{
  public:
    explicit Mapping(size_t bytes) : bytes_(bytes)
    {
        at_ = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    }
    ~Mapping()
    {
        munmap(at_, bytes_);
    }
    uint16_t *data()
    {
        return static_cast<uint16_t *>(at_);
    }

  private:
    void *at_;
    size_t bytes_;
};

uint16_t elementAt(uint64_t i)
{
    return gsToBf16(static_cast<float>(1 + i % 7));
}

bool isKept(uint64_t i, uint64_t seed)
{
    return gsDrawKeeps(gsRandkDraws(seed, i >> 2, 0).word[i & 3], density);
}

TEST(Large, BeyondTwoToThe32)
{
    if (!gst::runsLong())
        GTEST_SKIP() << "11 GB and half a minute: only with GS_TEST_LONG=1";
    gst::Plan plan;
    plan.recipe = "randk:density=0.0001220703125,value=f32";
    plan.type = GS_BFLOAT16;
    plan.count = count;
    gsReducerConfig_t config = gst::configOf(plan);
    config.cpuThreads = 0;
    gsComm_t comm;
    gsReducer_t reducer;
    ASSERT_EQ(gsCommInitAll(&comm, 1, nullptr), GS_SUCCESS) << gsGetLastError();
    ASSERT_EQ(gsReducerCreate(&reducer, comm, &config), GS_SUCCESS) << gsGetLastError();
    Mapping gradient(count * sizeof(uint16_t));
    uint16_t *g = gradient.data();
    for (uint64_t i = 0; i < count; i++)
        g[i] = elementAt(i);

    ASSERT_EQ(gsAllReduce(g, g, count, GS_BFLOAT16, GS_SUM, reducer, nullptr), GS_SUCCESS) << gsGetLastError();

    uint64_t kept = 0, wrong = 0;
    for (uint64_t i = 0; i < count; i++) {
        kept += g[i] != 0;
        wrong += g[i] != 0 && g[i] != gsToBf16(gsFromBf16(elementAt(i)) * 8192.0f);
    }
    EXPECT_EQ(wrong, 0u);
    for (uint64_t i = count - (1 << 20); i < count; i++) /* 2^32 and around it */
        ASSERT_EQ(g[i] != 0, isKept(i, plan.seed)) << "element " << i;
    gsStats_t stats;
    ASSERT_EQ(gsReducerGetStats(reducer, &stats), GS_SUCCESS);
    EXPECT_EQ(stats.lastSent, kept);
    double expected = static_cast<double>(count) * density;
    EXPECT_NEAR(static_cast<double>(kept), expected, 5 * std::sqrt(expected));
    gsReducerDestroy(reducer);
    gsCommDestroy(comm);
}

} // namespace

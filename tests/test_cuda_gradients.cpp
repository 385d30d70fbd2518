/* Real gradients on a device: the records and sums are the CPU's, bit for bit. Reads grad_*.npy in the folder GS_TEST_DATA. */
#include "device.h"
#include "npy.h"

namespace gst
{
namespace
{

class CudaGradients : public testing::TestWithParam<std::tuple<const char *, const char *, gsDataType_t>>
{
};

TEST_P(CudaGradients, EqualTheCpu)
{
    NEEDS_DEVICE();
    auto [file, recipe, type] = GetParam();
    if (!isDrawn(std::strlen(recipe) + std::strlen(file) + (type == GS_BFLOAT16)))
        GTEST_SKIP() << "another type was drawn for this recipe";
    Gradients gradients;
    std::string reason = readTestGradients(file, gradients);
    if (!reason.empty())
        GTEST_SKIP() << reason;
    gradients = roundedTo(type, gradients);
    Plan plan;
    plan.recipe = recipe;
    plan.type = type;
    plan.count = gradients[0].size();
    plan.nranks = static_cast<int>(gradients.size());
    Pair pair(plan);
    for (int step = 0; step < (runsLong() ? 5 : 2) && !HasFailure(); step++)
        pair.step(gradients, 0);
}

std::string nameOfCase(const testing::TestParamInfo<CudaGradients::ParamType> &info)
{
    std::string name = std::string(std::get<0>(info.param)) + "_" + std::get<1>(info.param) + "_" +
                       (std::get<2>(info.param) == GS_BFLOAT16 ? "bf16" : "f32");
    for (char &c : name)
        c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
    return name;
}

INSTANTIATE_TEST_SUITE_P(Files, CudaGradients,
                         testing::Combine(testing::Values("grad_cnn_step10.npy", "grad_lm_step20.npy"),
                                          testing::Values("threshold", "chunk-topk", "gspar", "gspar:value=shared",
                                                          "randk", "topk", "ef-sign", "terngrad"),
                                          testing::Values(GS_FLOAT32, GS_BFLOAT16)),
                         nameOfCase);

} // namespace
} // namespace gst

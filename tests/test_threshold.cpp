/* threshold with a density: tau follows, so that the share of kept coordinates stays near it, whatever the stream does. */
#include "oracle.h"
#include "ranks.h"

namespace gst
{
namespace
{

constexpr uint64_t count = 40000;

/* Gradients of a stream: fixed scales of coordinates times noise, all of it slowly changing or not. */
class Stream
{
  public:
    Stream(Shape shape, double drift) : scales_(count, 1.0f), drift_(drift)
    {
        std::normal_distribution<float> normal;
        for (float &x : scales_)
            x = shape == Shape::Skewed ? std::exp(2.0f * normal(random_)) : 1.0f;
    }
    std::vector<float> next(double scale = 1)
    {
        std::normal_distribution<float> normal;
        level_ *= drift_;
        std::vector<float> g(count);
        for (uint64_t i = 0; i < count; i++)
            g[i] = static_cast<float>(level_ * scale) * scales_[i] * normal(random_);
        return g;
    }

  private:
    std::mt19937_64 random_{5};
    std::vector<float> scales_;
    double drift_, level_ = 1;
};

class Threshold : public testing::TestWithParam<double>
{
  protected:
    Threshold()
    {
        plan_.recipe = threshold(GetParam()).text();
        plan_.count = count;
        plan_.nranks = 1;
        ranks_ = std::make_unique<StageRanks>(plan_);
    }
    double density() const
    {
        return GetParam();
    }
    /* One step; the share of coordinates kept and sent. */
    double step(const std::vector<float> &g)
    {
        result_ = ranks_->decode(ranks_->encode({g}))[0];
        return static_cast<double>(ranks_->stats(0).lastSent) / static_cast<double>(count);
    }
    double meanShare(Stream &stream, int steps)
    {
        double sum = 0;
        for (int n = 0; n < steps; n++)
            sum += step(stream.next());
        return sum / steps;
    }

    Plan plan_;
    std::unique_ptr<StageRanks> ranks_;
    std::vector<uint8_t> result_;
};

TEST_P(Threshold, FirstStepKeepsAboutTheDensity)
{
    Stream stream(Shape::Gaussian, 1);
    EXPECT_NEAR(step(stream.next()), density(), 0.15 * density());
}

TEST_P(Threshold, HoldsTheDensityOfStationaryStreams)
{
    for (Shape shape : {Shape::Gaussian, Shape::Skewed}) {
        ASSERT_EQ(gsReducerReset(ranks_->reducer(0), nullptr), GS_SUCCESS);
        Stream stream(shape, 1);
        meanShare(stream, 100);
        EXPECT_NEAR(meanShare(stream, 50), density(), 0.1 * density()) << nameOf(shape);
    }
}

TEST_P(Threshold, HoldsTheDensityOfChangingStreams)
{
    for (double drift : {1.01, 0.99}) {
        ASSERT_EQ(gsReducerReset(ranks_->reducer(0), nullptr), GS_SUCCESS);
        Stream stream(Shape::Gaussian, drift);
        meanShare(stream, 100);
        EXPECT_NEAR(meanShare(stream, 50), density(), 0.1 * density()) << drift;
    }
}

TEST_P(Threshold, RecoversFromJumps)
{
    Stream stream(Shape::Gaussian, 1);
    meanShare(stream, 60);
    for (double scale : {100.0, 1e-3, 1.0}) { /* a spike, a lull: bounded at once, back within some steps */
        EXPECT_LE(step(stream.next(scale)), 1.25 * density() + 6 * std::sqrt(density() / count) + 2.0 / count);
        meanShare(stream, 150);
        EXPECT_NEAR(meanShare(stream, 30), density(), 0.15 * density()) << "after a step of scale " << scale;
    }
}

TEST_P(Threshold, ZeroStepsDoNoHarm)
{
    Stream stream(Shape::Gaussian, 1);
    std::vector<float> zeros(count, 0.0f);
    EXPECT_EQ(step(zeros), 0.0) << "nothing to keep at the start";
    meanShare(stream, 30);
    for (int n = 0; n < 20; n++)
        step(zeros);
    float tau = ranks_->stats(0).tau;
    EXPECT_TRUE(std::isfinite(tau) && tau >= 0) << tau;
    meanShare(stream, 100);
    EXPECT_NEAR(meanShare(stream, 30), density(), 0.15 * density());
}

INSTANTIATE_TEST_SUITE_P(Densities, Threshold, testing::Values(0.01, 0.1));

} // namespace
} // namespace gst

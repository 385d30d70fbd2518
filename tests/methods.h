/* What the tests of single methods share: ranks as threads that are read and told in double precision, gradients that follow each other,
 * sums and norms, and the list of every recipe. */
#ifndef GS_TESTS_METHODS_H
#define GS_TESTS_METHODS_H

#include "ranks.h"

#include <set>

namespace gst
{

using Vector = std::vector<double>;

inline Plan planOf(const std::string &recipe, uint64_t count, int nranks, gsDataType_t type = GS_FLOAT64)
{
    Plan plan;
    plan.recipe = recipe;
    plan.count = count;
    plan.nranks = nranks;
    plan.type = type;
    return plan;
}

/* The recipe with one more key. */
inline std::string with(const std::string &recipe, const std::string &key)
{
    return recipe + (contains(recipe, ":") ? "," : ":") + key;
}

/* A name for googletest. */
inline std::string nameOf(const std::string &recipe)
{
    std::string name = recipe;
    for (char &c : name)
        if (!std::isalnum(static_cast<unsigned char>(c)))
            c = c == '.' ? 'p' : '_';
    return name;
}

inline gsDataType_t stateType(gsDataType_t type)
{
    return type == GS_FLOAT64 ? GS_FLOAT64 : GS_FLOAT32;
}

/* A state vector by its name; empty where the recipe has none. */
inline Vector readVector(gsReducer_t reducer, const char *name, uint64_t count, gsDataType_t type)
{
    std::vector<uint8_t> raw(count * bytesOf(stateType(type)));
    if (gsReducerRead(reducer, name, raw.data(), count) != GS_SUCCESS)
        return {};
    return doublesOf(raw, stateType(type));
}

inline Vector randomVector(uint64_t count, uint64_t seed, gsDataType_t type = GS_FLOAT64);

/* What lasg-wk compares with until the test says otherwise: what gradients of `related` have in common. */
inline Vector staleOf(const Plan &plan)
{
    return randomVector(plan.count, 1, plan.type);
}

/* Ranks of one method. */
class Fleet : public ThreadRanks
{
  public:
    explicit Fleet(const Plan &plan) : ThreadRanks(plan), theta_(plan.type, Vector(plan.count, 0.0))
    {
        for (int r = 0; r < plan.nranks; r++)
            stale_.emplace_back(plan.type, staleOf(plan));
    }
    Fleet(const std::string &recipe, uint64_t count, int nranks, gsDataType_t type = GS_FLOAT64)
        : Fleet(planOf(recipe, count, nranks, type))
    {
    }

    /* One call by every rank: the result, the same bits on all of them. */
    Vector sum(const Vectors &gradients)
    {
        Results results = allReduce(gradients);
        for (const std::vector<uint8_t> &result : results)
            EXPECT_TRUE(result == results[0]) << "ranks differ";
        return doublesOf(results[0], plan_.type);
    }
    Vector read(int rank, const char *name) const
    {
        return readVector(reducer(rank), name, plan_.count, plan_.type);
    }
    /* Puts the iterate where all ranks look for it. */
    void moveTo(const Vector &theta)
    {
        for (uint64_t i = 0; i < plan_.count; i++)
            theta_.set(i, theta[i]);
    }
    /* Puts a rank's gradient at the iterate that it sent from where it looks for it. */
    void setStale(int rank, const Vector &gradient)
    {
        for (uint64_t i = 0; i < plan_.count; i++)
            stale_[static_cast<size_t>(rank)].set(i, gradient[i]);
    }
    void setParams(const Vector &theta, double stepSize, const Vector &smoothness = {}, const void *xi = nullptr)
    {
        moveTo(theta);
        for (int r = 0; r < plan_.nranks; r++) {
            gsParams_t params = GS_PARAMS_INIT;
            params.datatype = plan_.type;
            params.params = theta_.data();
            params.xi = xi;
            params.stale = stale_[static_cast<size_t>(r)].data();
            params.stepSize = stepSize;
            params.smoothness = smoothness.empty() ? 1.0 : smoothness[static_cast<size_t>(r)];
            EXPECT_EQ(gsReducerSetParams(reducer(r), &params), GS_SUCCESS) << gsGetLastError();
        }
    }
    /* The sum over ranks of a state vector, in rank order. */
    Vector sumOf(const char *name) const
    {
        Vector total(plan_.count, 0.0);
        for (int r = 0; r < plan_.nranks; r++) {
            Vector own = read(r, name);
            for (uint64_t i = 0; i < plan_.count; i++)
                total[i] += own[i];
        }
        return total;
    }

  private:
    Buffer theta_;
    std::vector<Buffer> stale_;
};

/* ---- vectors ---- */

inline double dot(const Vector &x, const Vector &y)
{
    double sum = 0;
    for (size_t i = 0; i < x.size(); i++)
        sum += x[i] * y[i];
    return sum;
}

inline Vector minus(Vector x, const Vector &y)
{
    for (size_t i = 0; i < x.size(); i++)
        x[i] -= y[i];
    return x;
}

inline Vector plus(Vector x, const Vector &y)
{
    for (size_t i = 0; i < x.size(); i++)
        x[i] += y[i];
    return x;
}

inline Vector times(Vector x, double factor)
{
    for (double &element : x)
        element *= factor;
    return x;
}

inline double squared(const Vector &x)
{
    return dot(x, x);
}

inline double largest(const Vector &x)
{
    double m = 0;
    for (double element : x)
        m = std::max(m, std::fabs(element));
    return m;
}

inline Vector sumOf(const Vectors &vectors)
{
    Vector sum(vectors[0].size(), 0.0);
    for (const Vector &v : vectors)
        sum = plus(sum, v);
    return sum;
}

/* Normal numbers, representable in `type`. */
inline Vector randomVector(uint64_t count, uint64_t seed, gsDataType_t type)
{
    std::mt19937_64 random(seed * 0x9E3779B97F4A7C15ull + 99);
    std::normal_distribution<double> normal;
    Vector x(count);
    for (double &element : x)
        element = roundTo(type, normal(random));
    return x;
}

/* Gradients of the ranks at one step: a common part that stays, a part of each rank's own, and noise. */
inline Vectors related(uint64_t count, int nranks, uint64_t step, double noise, gsDataType_t type = GS_FLOAT64)
{
    Vectors all;
    Vector common = randomVector(count, 1);
    for (int r = 0; r < nranks; r++) {
        Vector own = randomVector(count, 100 + static_cast<uint64_t>(r));
        Vector fresh = randomVector(count, 1000 * (step + 1) + static_cast<uint64_t>(r));
        for (uint64_t i = 0; i < count; i++)
            own[i] = roundTo(type, common[i] + 0.1 * own[i] + noise * fresh[i]);
        all.push_back(own);
    }
    return all;
}

/* Multiples of 1/64 below 8: sums, differences and halves of a few are exact in every precision but bfloat16. */
inline Vectors dyadic(uint64_t count, int nranks, uint64_t step)
{
    Vectors all(static_cast<size_t>(nranks), Vector(count));
    std::mt19937_64 random(step + 5);
    for (Vector &g : all)
        for (double &x : g)
            x = (static_cast<double>(random() % 1024) - 512) / 64;
    return all;
}

/* f_m(theta) = |A_m theta - b_m|^2 / 2, one for each rank; the sum's minimum is not any rank's own. */
class LeastSquares
{
  public:
    LeastSquares(uint64_t count, int nranks, uint64_t seed = 3) : count_(count)
    {
        for (int r = 0; r < nranks; r++) {
            uint64_t own = seed + 10 * static_cast<uint64_t>(r);
            scale_.push_back(Vector(count));
            for (uint64_t i = 0; i < count; i++)
                scale_.back()[i] = (1.0 + r) * (0.3 + std::fabs(randomVector(count, own)[i]));
            offset_.push_back(randomVector(count, own + 1));
        }
    }
    /* A_m is diagonal: coordinate i has curvature scale^2. */
    Vector gradient(int rank, const Vector &theta) const
    {
        Vector g(count_);
        const Vector &a = scale_[static_cast<size_t>(rank)], &b = offset_[static_cast<size_t>(rank)];
        for (uint64_t i = 0; i < count_; i++)
            g[i] = a[i] * (a[i] * theta[i] - b[i]);
        return g;
    }
    Vectors gradients(const Vector &theta) const
    {
        Vectors all;
        for (size_t r = 0; r < scale_.size(); r++)
            all.push_back(gradient(static_cast<int>(r), theta));
        return all;
    }
    double smoothness(int rank) const
    {
        double m = largest(scale_[static_cast<size_t>(rank)]);
        return m * m;
    }
    Vector smoothnesses() const
    {
        Vector all;
        for (size_t r = 0; r < scale_.size(); r++)
            all.push_back(smoothness(static_cast<int>(r)));
        return all;
    }
    /* Of the sum. */
    double smoothness() const
    {
        Vector curvature(count_, 0.0);
        for (const Vector &a : scale_)
            for (uint64_t i = 0; i < count_; i++)
                curvature[i] += a[i] * a[i];
        return largest(curvature);
    }

  private:
    uint64_t count_;
    Vectors scale_, offset_;
};

/* ---- every recipe ---- */

/* One of each method, and of each option that changes what is remembered or what travels. */
inline const std::vector<std::string> &methodRecipes()
{
    static const std::vector<std::string> recipes = {
        "dense",
        "identity",
        "identity:value=bf16",
        "rows:width=50,exchange=exact",
        "threshold:density=0.05",
        "threshold:rms=1.5,capacity=0.5",
        "threshold:density=0.1,value=f16",
        "topk:density=0.05",
        "topk:k=7,value=f64",
        "topk:density=0.1,value=f16,exchange=exact",
        "chunk-topk:k=40",
        "ef-sign",
        "ef-sign:bucket=all",
        "gspar:density=0.2",
        "gspar:density=0.3,value=shared",
        "gspar:density=0.02,value=shared",
        "gspar:epsilon=1,capacity=0.8",
        "gspar:density=0.2,value=f16",
        "randk:density=0.2",
        "randk:density=0.2,value=f16",
        "uniform:density=0.2",
        "uniform:density=0.3,capacity=0.1",
        "terngrad",
        "terngrad:bucket=all",
        "qsgd:levels=4",
        "qsgd:bucket=all",
        "natural",
        "sign",
        "dgc:density=0.05,clip=2,warmup=10",
        "dgc:select=chunk-topk,k=30,momentum=0.5",
        "ef21:density=0.05",
        "ef21:select=sign,first=dense",
        "ef21:select=threshold,density=0.1,lambda=0.5,nu=0.5",
        "diana",
        "diana:select=gspar,density=0.2",
        "diana:select=natural,first=dense",
        "diana:select=randk,density=0.3",
        "cdadam",
        "cdadam:select=topk,density=0.1,first=dense",
        "cdadam:select=identity",
        "gdsec:xi=1,beta=0.1",
        "gdsec:xi=1,beta=0.1,value=levels,levels=20",
        "gdsec:xi=1,ec=0,participate=1,resync=3",
        "lag-wk",
        "lag-wk:exchange=capacity,window=3,resync=2",
        "lag-ps:xi=0.1",
        "lasg-wk",
        "lasg-wk:xi=1,staleness=2,resync=3",
        "laq",
        "laq:bucket=all,levels=7",
        "clag:density=0.1",
        "clag:select=sign",
        "ef21:select=grid,levels=7",
        "chunk-topk:value=2bit",
        "topk:density=0.1,value=2bit",
        "tng",
        "tng:reference=last+ema+mean,search=worker",
        "tng:reference=ema+ema2+window,search=hindsight,select=gspar,density=0.3",
        "tng:reference=last+ema+mean,search=fit,select=natural",
        "tng:reference=ema,search=worker,mode=quotient",
        "tng:reference=params+snapshot,search=worker,refresh=3,select=identity",
        "tng:reference=ema,select=topk,density=0.1",
        "topk:density=0.1,twoway=1",
        "ef-sign:twoway=1",
        "gspar:density=0.3,twoway=1",
        "terngrad:twoway=1",
        "dgc:density=0.1,twoway=1",
        "diana:twoway=1",
        "gdsec:xi=1,beta=0.1,twoway=1",
    };
    return recipes;
}

inline bool readsIterate(const std::string &recipe)
{
    return recipe.compare(0, 5, "gdsec") == 0 || recipe.compare(0, 3, "lag") == 0 ||
           recipe.compare(0, 4, "lasg") == 0 || recipe.find("params") != std::string::npos;
}

/* Whether single stages take it: no step of it travels dense, and it has one half. */
inline bool hasStages(const std::string &recipe)
{
    static const char *dense[] = {"first=dense", "refresh", "resync", "twoway=1", "cdadam", "gdsec"};
    for (const char *word : dense)
        if (recipe.find(word) != std::string::npos)
            return false;
    return recipe != "dense";
}

/* Ranks that follow a common iterate where the recipe looks at one; gradients that are alike and yet not the same. */
class Course
{
  public:
    explicit Course(const Plan &plan) : fleet(plan), theta_(plan.count, 0.0)
    {
        if (readsIterate(plan.recipe))
            fleet.setParams(theta_, 0.25, {});
    }
    Vectors gradients(uint64_t step) const
    {
        return related(fleet.plan().count, fleet.plan().nranks, step, 0.3, fleet.plan().type);
    }
    /* Where step `step` finds the iterate, whatever was before. */
    void at(uint64_t step)
    {
        if (!readsIterate(fleet.plan().recipe))
            return;
        Vector moved = times(randomVector(theta_.size(), step / 2), 0.05);
        for (size_t i = 0; i < theta_.size(); i++)
            theta_[i] = roundTo(fleet.plan().type, step == 0 ? 0.0 : moved[i]);
        fleet.moveTo(theta_);
    }
    Results step(uint64_t step)
    {
        at(step);
        return fleet.allReduce(gradients(step));
    }
    std::vector<Results> steps(uint64_t first, uint64_t n)
    {
        std::vector<Results> all;
        for (uint64_t s = first; s < first + n; s++)
            all.push_back(step(s));
        return all;
    }

    Fleet fleet;

  private:
    Vector theta_;
};

} // namespace gst
#endif

/* Inputs of the tests: deterministic gradients of many shapes, raw buffers of either type with canaries around them. */
#ifndef GS_TESTS_DATA_H
#define GS_TESTS_DATA_H

#ifndef GS_ADVANCED
#define GS_ADVANCED
#endif
#include "gradsieve.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

namespace gst
{

enum class Shape { Gaussian, Skewed, Ties, Zero, Denormal, NegativeZero, OneNonZero, Huge };

inline const std::vector<Shape> &allShapes()
{
    static const std::vector<Shape> shapes = {Shape::Gaussian, Shape::Skewed,       Shape::Ties,       Shape::Zero,
                                              Shape::Denormal, Shape::NegativeZero, Shape::OneNonZero, Shape::Huge};
    return shapes;
}

inline const char *nameOf(Shape shape)
{
    static const char *names[] = {"gaussian", "skewed",       "ties",       "zero",
                                  "denormal", "negativeZero", "oneNonZero", "huge"};
    return names[static_cast<int>(shape)];
}

inline size_t bytesOf(gsDataType_t type)
{
    return type == GS_BFLOAT16 ? 2 : 4;
}

inline const char *nameOf(gsDataType_t type)
{
    return type == GS_BFLOAT16 ? "bf16" : "f32";
}

/* bfloat16 by the definition: 8 bits of significand, exponents of float32, ties to even. */
inline double roundToBf16(double x)
{
    if (x == 0 || !std::isfinite(x))
        return x;
    int exponent = std::max(std::ilogb(x), -126);
    double ulp = std::ldexp(1.0, exponent - 7);
    double rounded = std::nearbyint(x / ulp) * ulp;
    return std::fabs(rounded) >= std::ldexp(1.0, 128) ? std::copysign(INFINITY, x) : rounded;
}

inline float bf16Bits(uint16_t bits)
{
    uint32_t wide = static_cast<uint32_t>(bits) << 16;
    float x;
    std::memcpy(&x, &wide, sizeof x);
    return x;
}

inline uint16_t toBf16Bits(float x)
{
    float rounded = static_cast<float>(roundToBf16(x));
    uint32_t bits;
    std::memcpy(&bits, &rounded, sizeof bits);
    return static_cast<uint16_t>(bits >> 16);
}

/* A gradient as numbers; representable in `type`. */
inline std::vector<float> makeGradient(Shape shape, uint64_t count, gsDataType_t type, uint64_t seed)
{
    std::mt19937_64 random(seed * 0x9E3779B97F4A7C15ull + 12345);
    std::normal_distribution<float> normal;
    std::uniform_real_distribution<float> uniform(0.0f, 1.0f);
    std::vector<float> g(count, 0.0f);
    for (uint64_t i = 0; i < count; i++) {
        float z = normal(random), u = uniform(random);
        switch (shape) {
        case Shape::Gaussian: g[i] = z; break;
        case Shape::Skewed: g[i] = z * (u < 0.03f ? 10.0f : 0.01f * u); break;
        case Shape::Ties: g[i] = std::copysign(static_cast<float>(1 << static_cast<int>(u * 3)), z); break;
        case Shape::Zero: break;
        case Shape::Denormal: g[i] = z * 1e-39f; break;
        case Shape::NegativeZero: g[i] = u < 0.1f ? z : -0.0f; break;
        case Shape::OneNonZero: break;
        case Shape::Huge: g[i] = z * 1e34f; break;
        }
    }
    if (shape == Shape::OneNonZero && count > 0)
        g[random() % count] = -3.0f;
    if (type == GS_BFLOAT16)
        for (float &x : g)
            x = bf16Bits(toBf16Bits(x));
    return g;
}

/* `count` elements between two canaries, `skew` elements past an aligned address. */
class Buffer
{
  public:
    Buffer(gsDataType_t type, uint64_t count, size_t skew = 0)
        : type_(type), count_(count), at_(guard + skew * bytesOf(type)),
          bytes_(at_ + count * bytesOf(type) + guard + 64, 0xA5)
    {
        at_ += (64 - reinterpret_cast<uintptr_t>(bytes_.data()) % 64) % 64;
    }
    Buffer(gsDataType_t type, const std::vector<float> &values, size_t skew = 0) : Buffer(type, values.size(), skew)
    {
        for (uint64_t i = 0; i < count_; i++)
            set(i, values[i]);
    }
    Buffer(Buffer &&) = default; /* the bytes stay where they are */
    Buffer(const Buffer &) = delete;

    void *data()
    {
        return bytes_.data() + at_;
    }
    const void *data() const
    {
        return bytes_.data() + at_;
    }
    uint64_t count() const
    {
        return count_;
    }

    void set(uint64_t i, float x)
    {
        uint16_t half = toBf16Bits(x);
        if (type_ == GS_BFLOAT16)
            std::memcpy(&bytes_[at_ + 2 * i], &half, 2);
        else
            std::memcpy(&bytes_[at_ + 4 * i], &x, 4);
    }
    float get(uint64_t i) const
    {
        uint16_t half;
        float x;
        if (type_ == GS_BFLOAT16) {
            std::memcpy(&half, &bytes_[at_ + 2 * i], 2);
            return bf16Bits(half);
        }
        std::memcpy(&x, &bytes_[at_ + 4 * i], 4);
        return x;
    }
    /* The elements' bytes, without the canaries. */
    std::vector<uint8_t> raw() const
    {
        return {bytes_.begin() + at_, bytes_.begin() + at_ + count_ * bytesOf(type_)};
    }
    bool canariesIntact() const
    {
        size_t end = at_ + count_ * bytesOf(type_);
        for (size_t i = 0; i < bytes_.size(); i++)
            if ((i < at_ || i >= end) && bytes_[i] != 0xA5)
                return false;
        return true;
    }

  private:
    static constexpr size_t guard = 64;
    gsDataType_t type_;
    uint64_t count_;
    size_t at_;
    std::vector<uint8_t> bytes_;
};

inline uint64_t fnv1a(const void *data, size_t bytes, uint64_t hash = 0xcbf29ce484222325ull)
{
    const uint8_t *at = static_cast<const uint8_t *>(data);
    for (size_t i = 0; i < bytes; i++)
        hash = (hash ^ at[i]) * 0x100000001b3ull;
    return hash;
}

} // namespace gst
#endif

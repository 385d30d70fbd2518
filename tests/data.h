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
    return type == GS_BFLOAT16 || type == GS_FLOAT16 ? 2 : type == GS_FLOAT64 ? 8 : 4;
}

inline const std::vector<gsDataType_t> &allTypes()
{
    static const std::vector<gsDataType_t> types = {GS_FLOAT32, GS_BFLOAT16, GS_FLOAT16, GS_FLOAT64};
    return types;
}

inline const char *nameOf(gsDataType_t type)
{
    return type == GS_BFLOAT16 ? "bf16" : type == GS_FLOAT16 ? "f16" : type == GS_FLOAT64 ? "f64" : "f32";
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

/* binary16 by its definition: 11 bits of significand, exponents from -14 to 15, ties to even. */
inline double roundToF16(double x)
{
    if (x == 0 || !std::isfinite(x))
        return x;
    double ulp = std::ldexp(1.0, std::max(std::ilogb(x), -14) - 10);
    double rounded = std::nearbyint(x / ulp) * ulp;
    return std::fabs(rounded) >= 65536 ? std::copysign(INFINITY, x) : rounded;
}

/* x is representable. */
inline uint16_t f16Bits(double x)
{
    uint16_t sign = std::signbit(x) ? 0x8000 : 0;
    double m = std::fabs(x);
    if (std::isnan(x))
        return 0x7e00;
    if (std::isinf(x))
        return sign | 0x7c00;
    if (m < std::ldexp(1.0, -14))
        return sign | static_cast<uint16_t>(std::ldexp(m, 24));
    int exponent = std::ilogb(m);
    return sign | static_cast<uint16_t>((exponent + 15) * 1024 + static_cast<int>(std::ldexp(m, 10 - exponent)) - 1024);
}

inline double fromF16Bits(uint16_t bits)
{
    int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    double m = exponent == 31 ? (mantissa ? NAN : INFINITY)
               : exponent     ? std::ldexp(1024 + mantissa, exponent - 25)
                              : std::ldexp(mantissa, -24);
    return bits & 0x8000 ? -m : m;
}

/* To the nearest number of the type. */
inline double roundTo(gsDataType_t type, double x)
{
    switch (type) {
    case GS_BFLOAT16: return roundToBf16(static_cast<float>(x));
    case GS_FLOAT16: return roundToF16(static_cast<float>(x));
    case GS_FLOAT64: return x;
    default: return static_cast<double>(static_cast<float>(x));
    }
}

/* A number to the bytes of an element, and back. */
inline void putElement(gsDataType_t type, uint8_t *at, double x)
{
    uint16_t half = type == GS_BFLOAT16 ? toBf16Bits(static_cast<float>(x)) : f16Bits(roundTo(GS_FLOAT16, x));
    float single = static_cast<float>(x);
    if (type == GS_FLOAT64)
        std::memcpy(at, &x, 8);
    else if (type == GS_FLOAT32)
        std::memcpy(at, &single, 4);
    else
        std::memcpy(at, &half, 2);
}

inline double getElement(gsDataType_t type, const uint8_t *at)
{
    uint16_t half = 0;
    float single;
    double x;
    if (type == GS_FLOAT64) {
        std::memcpy(&x, at, 8);
        return x;
    }
    if (type == GS_FLOAT32) {
        std::memcpy(&single, at, 4);
        return static_cast<double>(single);
    }
    std::memcpy(&half, at, 2);
    return type == GS_BFLOAT16 ? static_cast<double>(bf16Bits(half)) : fromF16Bits(half);
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
    for (float &x : g)
        x = static_cast<float>(roundTo(type, static_cast<double>(x)));
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
    template <typename Number>
    Buffer(gsDataType_t type, const std::vector<Number> &values, size_t skew = 0) : Buffer(type, values.size(), skew)
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

    void set(uint64_t i, double x)
    {
        putElement(type_, &bytes_[at_ + i * bytesOf(type_)], x);
    }
    float get(uint64_t i) const
    {
        return static_cast<float>(getElement(type_, &bytes_[at_ + i * bytesOf(type_)]));
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

// float16 and bfloat16 as floats, and the two functions that the gates need: without branches, so
// that a compiler makes vector code of the loops they stand in. Included by `cpu_kernels.cpp` alone.
#pragma once

#include <cstdint>
#include <cstring>

namespace {

inline uint32_t bits(float x) {
  uint32_t u;
  std::memcpy(&u, &x, sizeof u);
  return u;
}

inline float from_bits(uint32_t u) {
  float x;
  std::memcpy(&x, &u, sizeof x);
  return x;
}

struct Float32 {
  using Stored = float;
  static float load(float x) { return x; }
  static float store(float x) { return x; }
};

struct BFloat16 {
  using Stored = uint16_t;
  static float load(uint16_t x) { return from_bits(uint32_t{x} << 16); }
  static uint16_t store(float x) {
    uint32_t u = bits(x);
    uint32_t nearest = (u + 0x7fff + ((u >> 16) & 1)) >> 16;  // to even
    return static_cast<uint16_t>(x != x ? (u >> 16) | 0x40 : nearest);
  }
};

struct Float16 {
  using Stored = uint16_t;
  static float load(uint16_t x) {
    uint32_t sign = uint32_t{x & 0x8000u} << 16, rest = x & 0x7fffu;
    // The exponent's bias is 127 - 15 larger; the product makes subnormal numbers right.
    float finite = from_bits(rest << 13) * 0x1p112f;
    uint32_t special = 0x7f800000u | (rest << 13);
    return from_bits(sign | (rest >= 0x7c00u ? special : bits(finite)));
  }
  static uint16_t store(float x) {
    uint32_t u = bits(x), sign = (u >> 16) & 0x8000u, rest = u & 0x7fffffffu;
    // Below 2⁻¹⁴ what is added makes the last place of a float that of a subnormal half.
    uint32_t small = bits(from_bits(rest) + 0.5f) - 0x3f000000u;
    uint32_t normal = (rest - 0x38000000u + 0xfffu + ((rest >> 13) & 1)) >> 13;
    uint32_t finite = rest < 0x38800000u ? small : normal;
    uint32_t special = rest > 0x7f800000u ? 0x7e00u : 0x7c00u;  // 65520 and more is infinite
    return static_cast<uint16_t>(sign | (rest >= 0x477ff000u ? special : finite));
  }
};

// e^x for x ≤ 0, to two units in the last place; 0 below the smallest normal float, and not a
// number where x is none.
inline float exp_of_negative(float x) {
  float clamped = x < -88.0f ? -88.0f : x;
  float shifted = clamped * 1.44269504f + 0x1.8p23f;  // its last bits are the nearest integer
  float n = shifted - 0x1.8p23f;
  float r = clamped - n * 0.693359375f + n * 2.12194440e-4f;  // ln 2 in two parts
  float p = 1.98756915e-4f;  // the polynomial of Cephes' expf
  p = p * r + 1.39819995e-3f;
  p = p * r + 8.33345191e-3f;
  p = p * r + 4.16657959e-2f;
  p = p * r + 1.66666655e-1f;
  p = p * r + 5.00000012e-1f;
  p = p * r * r + r + 1.0f;
  float power = from_bits((bits(shifted) << 23) + 0x3f800000u);
  float result = p * power;
  return x < -87.0f ? 0.0f : result;
}

// σ(u) = 1 / (1 + e^-u), with its relative precision also where it is small.
inline float logistic(float u) {
  float e = exp_of_negative(u < 0.0f ? u : -u);
  return (u < 0.0f ? e : 1.0f) / (1.0f + e);
}

// Φ(u) = ½ erfc(-u / √2). With a = |u| / √2 and t = 1 / (1 + a / 2), erfc(a) is t e^(P(t) - a²),
// P fitted to 1e-7 of erfc.
inline float normal(float u) {
  float a = (u < 0.0f ? -u : u) * 0.707106781f;
  float t = 1.0f / (1.0f + 0.5f * a);
  float p = 0.170877174f;
  p = p * t - 0.822173059f;
  p = p * t + 1.48855734f;
  p = p * t - 1.13524902f;
  p = p * t + 0.278897047f;
  p = p * t - 0.186299294f;
  p = p * t + 0.09678673f;
  p = p * t + 0.374091655f;
  p = p * t + 1.00002372f;
  p = p * t - 1.26551223f;
  float tail = 0.5f * t * exp_of_negative(p - a * a);
  return u < 0.0f ? tail : 1.0f - tail;
}

}  // namespace

// Vectors of floats or doubles as the compiler offers them (GCC's and Clang's vector extensions), and the functions
// that gates are made of.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__AVX__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
constexpr int BYTES = 64, TILE_ROWS = 8;  // 32 registers: 16 hold a tile of products
#else
constexpr int BYTES = 32, TILE_ROWS = 4;  // 16 registers
#endif

#define INLINE inline __attribute__((always_inline))

template <class T>
struct Vector {
    typedef T type __attribute__((vector_size(BYTES), may_alias));
    static constexpr int lanes = BYTES / sizeof(T);
};
template <class T>
using Vec = typename Vector<T>::type;
typedef int32_t Bits __attribute__((vector_size(BYTES), may_alias));

template <class T>
INLINE Vec<T> load(const T* from) {
    return *reinterpret_cast<const Vec<T>*>(from);
}
template <class T>
INLINE void store(T* to, Vec<T> value) {
    *reinterpret_cast<Vec<T>*>(to) = value;
}
// Past the cache, for what is read again only after more than a cache has been written.
template <class T>
INLINE void stream(T* to, Vec<T> value) {
#if defined(__AVX512F__)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to), reinterpret_cast<__m512i>(value));
#elif defined(__AVX__)
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to), reinterpret_cast<__m256i>(value));
#else
    store(to, value);
#endif
}
// Before other threads read what this one streamed.
INLINE void streamed() {
#if defined(__AVX__)
    _mm_sfence();
#endif
}
template <class T>
INLINE Vec<T> same(T value) {
    return value - Vec<T>{};
}

// e^x = 2^n e^r with |r| <= ln(2)/2, e^r by its series to the seventh power: relative error below 1e-7.
INLINE Vec<float> exponential(Vec<float> x) {
    const Vec<float> low = same(-87.0f), high = same(88.0f), rounding = same(12582912.0f);  // 1.5 * 2^23
    x = x < low ? low : x;
    x = x > high ? high : x;
    const Vec<float> shifted = x * 1.44269504f + rounding;
    const Vec<float> n = shifted - rounding;
    const Vec<float> r = (x - n * 0.693145752f) - n * 1.42860677e-6f;
    Vec<float> sum = same(1.0f / 5040);
    sum = sum * r + 1.0f / 720;
    sum = sum * r + 1.0f / 120;
    sum = sum * r + 1.0f / 24;
    sum = sum * r + 1.0f / 6;
    sum = sum * r + 0.5f;
    sum = sum * r + 1.0f;
    sum = sum * r + 1.0f;
    const Bits exponent = (reinterpret_cast<const Bits&>(shifted) + 127) << 23;  // the low bits of `shifted` are n
    return sum * reinterpret_cast<const Vec<float>&>(exponent);
}
INLINE Vec<double> exponential(Vec<double> x) {
    for (int lane = 0; lane < Vector<double>::lanes; ++lane) x[lane] = std::exp(x[lane]);
    return x;
}

// Like memcpy, without a call for the short rows that blocks are made of.
template <class T>
INLINE void copy(T* to, const T* from, long count) {
    constexpr int L = Vector<T>::lanes;
    long i = 0;
    for (; i + L <= count; i += L) __builtin_memcpy(to + i, from + i, BYTES);
    for (; i < count; ++i) to[i] = from[i];
}

// What is beyond `size` becomes exactly what it tends to, so that a gate can be open or closed; no number stays none.
INLINE Vec<float> saturated(Vec<float> y, Vec<float> x, float size, float low, float high) {
    y = x < -size ? same(low) : y;
    return x > size ? same(high) : y;
}

// x P(x^2) / Q(x^2), highest powers first.
INLINE Vec<float> fraction(Vec<float> x, const float (&p)[5], const float (&q)[5]) {
    const Vec<float> s = x * x;
    Vec<float> above = s * p[0] + p[1], below = s * q[0] + q[1];
#pragma GCC unroll 3
    for (int i = 2; i < 5; ++i) {
        above = above * s + p[i];
        below = below * s + q[i];
    }
    return x * above / below;
}

// Fitted by least squares with weights that even out the relative error: 6e-9 before rounding. Beyond 7.9 it is 1, within
// 3e-7.
INLINE Vec<float> hyperbolic_tangent(Vec<float> x) {
    constexpr float p[] = {1.54279931e-8f, 2.20232578e-5f, 3.57899279e-3f, 1.34506211e-1f, 1.0f};
    constexpr float q[] = {8.59878810e-7f, 3.42365180e-4f, 2.61922404e-2f, 4.67839479e-1f, 1.0f};
    return saturated(fraction(x, p, q), x, 7.9f, -1.0f, 1.0f);
}
INLINE Vec<double> hyperbolic_tangent(Vec<double> x) {
    for (int lane = 0; lane < Vector<double>::lanes; ++lane) x[lane] = std::tanh(x[lane]);
    return x;
}

// (1 + tanh(x / 2)) / 2, the halves within the coefficients
INLINE Vec<float> sigmoid(Vec<float> x) {
    constexpr float p[] = {1.50663995e-11f, 8.60283507e-8f, 5.59217624e-5f, 8.40663817e-3f, 0.25f};
    constexpr float q[] = {3.35890160e-9f, 5.34945593e-6f, 1.63701503e-3f, 1.16959870e-1f, 1.0f};
    return saturated(fraction(x, p, q) + 0.5f, x, 15.8f, 0.0f, 1.0f);
}
INLINE Vec<double> sigmoid(Vec<double> x) { return 1 / (1 + exponential(-x)); }

// log(1 + e) for e in [0, 1], as 2 artanh(e / (2 + e)).
INLINE Vec<float> log_one_plus(Vec<float> e) {
    const Vec<float> s = e / (2 + e), square = s * s;
    Vec<float> sum = same(2.0f / 13);
    sum = sum * square + 2.0f / 11;
    sum = sum * square + 2.0f / 9;
    sum = sum * square + 2.0f / 7;
    sum = sum * square + 2.0f / 5;
    sum = sum * square + 2.0f / 3;
    return s * (sum * square + 2.0f);
}
INLINE Vec<double> log_one_plus(Vec<double> e) {
    for (int lane = 0; lane < Vector<double>::lanes; ++lane) e[lane] = std::log1p(e[lane]);
    return e;
}

template <class V>
INLINE V log_sigmoid(V x) {
    const V size = x < 0 ? -x : x;
    return (x < 0 ? x : V{}) - log_one_plus(exponential(-size));
}
template <class V>
INLINE V larger(V a, V b) {
    return a < b ? b : a;  // a, where it is no number: a diverged training must not look like one that rests
}

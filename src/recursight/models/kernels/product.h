// Matrix products of operands that lie in the cache, tile by tile in registers. A row of a result is summed in the
// same order whatever rows stand around it, so an example's states do not depend on the batch it comes in.
#pragma once
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <utility>

#include "vector.h"

template <class T>
constexpr long PANEL = 2 * Vector<T>::lanes;  // columns of a tile

template <class T>
inline long padded(long columns) {
    return (columns + PANEL<T> - 1) / PANEL<T> * PANEL<T>;
}

// Zeros, aligned for vectors.
template <class T>
struct Buffer {
    explicit Buffer(long count) {
        const size_t bytes = (count * sizeof(T) + BYTES - 1) / BYTES * BYTES + BYTES;
        memory.reset(static_cast<T*>(std::aligned_alloc(BYTES, bytes)));
        if (!memory) {
            std::fprintf(stderr, "recursight: not enough memory for %zu bytes\n", bytes);
            std::abort();
        }
        std::memset(memory.get(), 0, bytes);
    }
    operator T*() const { return memory.get(); }
    T* get() const { return memory.get(); }
    struct Free {
        void operator()(T* pointer) const { std::free(pointer); }
    };
    std::unique_ptr<T, Free> memory;
};

// A product calls what it is given as `beside` once in so many steps of its depth.
template <class Beside>
constexpr long STRETCH = 32;
struct Nothing {
    void operator()() const {}
};
template <>
constexpr long STRETCH<Nothing> = 1l << 30;

// Memory that will be read soon, fetched beside products, which leave memory idle. A few lines at a time: a processor
// drops those beyond what it can have under way.
class Ahead {
public:
    // At most four of them: `rows` of `count` values, `stride` apart.
    template <class T>
    void add(const T* from, long count, long rows = 1, long stride = 0) {
        if (!count) return;
        const char* begin = reinterpret_cast<const char*>(from);
        parts[size++] = {begin, begin, static_cast<long>(count * sizeof(T)), rows, static_cast<long>(stride * sizeof(T))};
    }
    INLINE void operator()() {
        for (int lines = 0; lines < LINES && now < size;) {
            Part& part = parts[now];
            const char *at = part.at, *end = part.row + part.bytes;
            for (; lines < LINES && at < end; at += LINE, ++lines) __builtin_prefetch(at);
            part.at = at;
            if (at < end) return;
            part.at = part.row += part.stride;
            now += !--part.rows;
        }
    }

private:
    static constexpr int LINE = 64, LINES = 12;
    struct Part {
        const char *at, *row;
        long bytes, rows, stride;
    };
    Part parts[4];
    int size = 0, now = 0;
};

// a (rows x depth) * b (depth x columns, packed)
template <class T>
struct Factors {
    const T* a;
    long stride;
    const T* b;
    long depth;
};

template <class T, int ROWS, class Beside>
INLINE void add_product(Vec<T> (&sum)[ROWS][2], const T* a, long a_stride, const T* b, long depth, Beside& beside) {
    constexpr int L = Vector<T>::lanes;
    for (long begin = 0; begin < depth; begin += STRETCH<Beside>) {
        beside();
        const long end = std::min(begin + STRETCH<Beside>, depth);
        for (long k = begin; k < end; ++k) {
            const Vec<T> left = load(b + k * 2 * L), right = load(b + k * 2 * L + L);
#pragma GCC unroll 8
            for (int i = 0; i < ROWS; ++i) {
                const Vec<T> x = same(a[i * a_stride + k]);
                sum[i][0] += x * left;
                sum[i][1] += x * right;
            }
        }
    }
}

// rows x columns = the sum of N products, added to `start`, one row for all, or to c.
template <class T, int ROWS, int N, class Beside>
INLINE void product_tile(
    const Factors<T> (&factors)[N], long row, long column, T* c, long c_stride, const T* start, Beside& beside) {
    constexpr int L = Vector<T>::lanes;
    Vec<T> sum[ROWS][2];
    c += row * c_stride + column;
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; ++i) {
        const T* from = start ? start + column : c + i * c_stride;
        sum[i][0] = load(from);
        sum[i][1] = load(from + L);
    }
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
        const Factors<T> f = factors[n];
        add_product<T, ROWS>(sum, f.a + row * f.stride, f.stride, f.b + column * f.depth, f.depth, beside);
    }
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; ++i) {
        store(c + i * c_stride, sum[i][0]);
        store(c + i * c_stride + L, sum[i][1]);
    }
}

// The rows of a tile are a constant in its code, so a rest of fewer rows gets code of its own.
template <class T, int ROWS, int N, class Beside>
INLINE void product_rest(
    long rows, const Factors<T> (&factors)[N], long row, long column, T* c, long cs, const T* start, Beside& beside) {
    if constexpr (ROWS > 0) {
        if (rows == ROWS) return product_tile<T, ROWS>(factors, row, column, c, cs, start, beside);
        product_rest<T, ROWS - 1>(rows, factors, row, column, c, cs, start, beside);
    }
}

template <class T, int N, class Beside = Nothing>
void product(
    long rows, long columns, const Factors<T> (&factors)[N], T* c, long cs, const T* start, Beside&& beside = Beside{}) {
    for (long column = 0; column < columns; column += PANEL<T>) {
        long row = 0;
        for (; row + TILE_ROWS <= rows; row += TILE_ROWS)
            product_tile<T, TILE_ROWS>(factors, row, column, c, cs, start, beside);
        product_rest<T, TILE_ROWS - 1>(rows - row, factors, row, column, c, cs, start, beside);
    }
}

template <class T, class Beside = Nothing>
void product(
    long rows, long columns, long depth, const T* a, long as, const T* b, T* c, long cs, const T* start,
    Beside&& beside = Beside{}) {
    const Factors<T> factors[] = {{a, as, b, depth}};
    product<T, 1, Beside>(rows, columns, factors, c, cs, start, std::forward<Beside>(beside));
}

// c (rows x columns) += a' b, a is (depth x rows), b (depth x columns): how the gradients of weights are summed.
template <class T, int ROWS, class Beside>
INLINE void outer_tile(const T* a, long as, const T* b, long bs, long depth, T* c, long cs, Beside& beside) {
    constexpr int L = Vector<T>::lanes;
    Vec<T> sum[ROWS][2];
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; ++i) {
        sum[i][0] = load(c + i * cs);
        sum[i][1] = load(c + i * cs + L);
    }
    for (long begin = 0; begin < depth; begin += STRETCH<Beside>) {
        beside();
        const long end = std::min(begin + STRETCH<Beside>, depth);
        for (long k = begin; k < end; ++k) {
            const Vec<T> left = load(b + k * bs), right = load(b + k * bs + L);
#pragma GCC unroll 8
            for (int i = 0; i < ROWS; ++i) {
                const Vec<T> x = same(a[k * as + i]);
                sum[i][0] += x * left;
                sum[i][1] += x * right;
            }
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; ++i) {
        store(c + i * cs, sum[i][0]);
        store(c + i * cs + L, sum[i][1]);
    }
}

template <class T, int ROWS, class Beside>
INLINE void outer_rest(
    long rows, const T* a, long as, const T* b, long bs, long depth, T* c, long cs, Beside& beside) {
    if constexpr (ROWS > 0) {
        if (rows == ROWS) return outer_tile<T, ROWS>(a, as, b, bs, depth, c, cs, beside);
        outer_rest<T, ROWS - 1>(rows, a, as, b, bs, depth, c, cs, beside);
    }
}

template <class T, class Beside = Nothing>
void outer(
    long rows, long columns, long depth, const T* a, long as, const T* b, long bs, T* c, long cs,
    Beside&& beside = Beside{}) {
    for (long column = 0; column < columns; column += PANEL<T>) {
        long row = 0;
        for (; row + TILE_ROWS <= rows; row += TILE_ROWS)
            outer_tile<T, TILE_ROWS>(a + row, as, b + column, bs, depth, c + row * cs + column, cs, beside);
        outer_rest<T, TILE_ROWS - 1>(
            rows - row, a + row, as, b + column, bs, depth, c + row * cs + column, cs, beside);
    }
}

// Weights have a row for each hidden unit of each gate, `stride` apart; a gate takes `width` columns or rows, padded from
// `hidden`. Both fill zeroed memory for `product`.
//
// As the right operand (depth x gates*width):
template <class T>
void pack_turned(
    T* to, const T* weights, long stride, long gates, long hidden, long width, long depth, long threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long column = 0; column < gates * width; column += PANEL<T>) {
        const long gate = column / width, first = column % width, count = std::min(PANEL<T>, hidden - first);
        const T* from = weights + (gate * hidden + first) * stride;
        T* panel = to + column * depth;
        for (long n = 0; n < count; ++n)
            for (long k = 0; k < depth; ++k) panel[k * PANEL<T> + n] = from[n * stride + k];
    }
}
// As the right operand (gates*width x columns):
template <class T>
void pack_straight(
    T* to, const T* weights, long stride, long gates, long hidden, long width, long columns, long threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long column = 0; column < columns; column += PANEL<T>)
        for (long gate = 0; gate < gates; ++gate)
            for (long unit = 0; unit < hidden; ++unit)
                copy(
                    to + (column * gates + gate * PANEL<T>) * width + unit * PANEL<T>,
                    weights + (gate * hidden + unit) * stride + column, std::min(PANEL<T>, columns - column));
}

// Adds all parts to the first, in order.
template <class T>
void add_up(T* parts, long count, long size, long threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long begin = 0; begin < size; begin += 4096)
        for (long part = 1; part < count; ++part)
            for (long i = begin; i < std::min(begin + 4096, size); ++i) parts[i] += parts[part * size + i];
}

// A recurrence over a sequence, for any cell: examples are cut into blocks, and a block stays in one core's cache for
// all steps. The blocks follow from the batch's size alone, and their shares of the weights' gradients are added in
// order, so results do not depend on the number of threads.
#pragma once
#include <algorithm>

#include "cells.h"
#include "product.h"

template <class T>
struct Sequence {
    long batch, steps, features, hidden, rows, threads;
    const T *inputs;             // batch steps features
    const T *from_input, *bias;  // INPUT*hidden x features; INPUT*hidden
    const T *from_state, *state_bias;  // of SHARED and own blocks: blocks*hidden x hidden; blocks*hidden, or null
    const T *vectors;                  // VECTORS*hidden
    const T *initial;                  // batch PARTS*hidden; null: zeros
    T *outputs, *carried, *saved;      // batch steps OUTPUTS*hidden; batch CARRY*hidden, or null; see `saved_at`
    // Only in the backward pass; null where the forward pass has null:
    const T *grad_outputs, *grad_carried;
    T *grad_inputs, *grad_from_input, *grad_bias, *grad_from_state, *grad_state_bias, *grad_vectors, *grad_initial;
};

template <class T, int BLOCKS>
INLINE void gather_rows(T* to, long width, const T* from, long stride, long rows, long hidden) {
    for (long row = 0; row < rows; ++row)
        for (int block = 0; block < BLOCKS; ++block)
            copy(to + (row * BLOCKS + block) * width, from + row * stride + block * hidden, hidden);
}

template <class T, int BLOCKS>
INLINE void scatter_rows(T* to, long stride, const T* from, long width, long rows, long hidden) {
    for (long row = 0; row < rows; ++row)
        for (int block = 0; block < BLOCKS; ++block)
            copy(to + row * stride + block * hidden, from + (row * BLOCKS + block) * width, hidden);
}

// One row of vectors, each block of it padded.
template <class T>
void spread(T* to, long width, const T* from, int blocks, long hidden) {
    for (int block = 0; block < blocks; ++block)
        std::memcpy(to + block * width, from + block * hidden, hidden * sizeof(T));
}

// The point-wise part of a cell for some rows of units, W of them in memory; what belongs to a row stands side by side.
template <class T, template <class> class C>
struct Points {
    using Cell = C<T>;
    using V = Vec<T>;
    static constexpr int L = Vector<T>::lanes;
    static constexpr int G = Cell::GATES, S = Cell::SAVED, K = Cell::CARRY, O = Cell::OUTPUTS, N = Cell::VECTORS;

    static INLINE void forward(long rows, long W, const T* gates, const T* vectors, T* carry, T* out, T* saved) {
        for (long row = 0; row < rows; ++row)
            for (long unit = 0; unit < W; unit += L) {
                V g[G], v[N + 1], c[K + 1], o[O], kept[S + 1];
                for (int i = 0; i < G; ++i) g[i] = load(gates + (row * G + i) * W + unit);
                for (int i = 0; i < N; ++i) v[i] = load(vectors + i * W + unit);
                for (int i = 0; i < K; ++i) c[i] = load(carry + (row * K + i) * W + unit);
                Cell::forward(g, v, c, o, kept);
                for (int i = 0; i < K; ++i) store(carry + (row * K + i) * W + unit, c[i]);
                for (int i = 0; i < O; ++i) store(out + (row * O + i) * W + unit, o[i]);
                if (saved)
                    for (int i = 0; i < S; ++i) store(saved + (row * S + i) * W + unit, kept[i]);
            }
    }

    static INLINE void backward(
        long rows, long W, const T* saved, const T* before, const T* now, const T* grad, const T* from_state, const T* vectors,
        T* carry, T* gates, T* for_bias, T* for_vectors) {
        for (long unit = 0; unit < W; unit += L) {
            V v[N + 1], sum_v[N + 1], sum[G];
            for (int i = 0; i < N; ++i) v[i] = load(vectors + i * W + unit), sum_v[i] = load(for_vectors + i * W + unit);
            for (int i = 0; i < G; ++i) sum[i] = load(for_bias + i * W + unit);
            for (long row = 0; row < rows; ++row) {
                V kept[S + 1], past[O], out[O], g[O], c[K + 1], to[G];
                for (int i = 0; i < S; ++i) kept[i] = load(saved + (row * S + i) * W + unit);
                for (int i = 0; i < O; ++i) {
                    past[i] = load(before + (row * O + i) * W + unit);
                    out[i] = load(now + (row * O + i) * W + unit);
                    g[i] = load(grad + (row * O + i) * W + unit);
                }
                if constexpr (Cell::RECURRENT) g[0] += load(from_state + row * W + unit);
                for (int i = 0; i < K; ++i) c[i] = load(carry + (row * K + i) * W + unit);
                Cell::backward(kept, past, out, g, v, c, to, sum_v);
                for (int i = 0; i < K; ++i) store(carry + (row * K + i) * W + unit, c[i]);
                for (int i = 0; i < G; ++i) store(gates + (row * G + i) * W + unit, to[i]), sum[i] += to[i];
            }
            for (int i = 0; i < N; ++i) store(for_vectors + i * W + unit, sum_v[i]);
            for (int i = 0; i < G; ++i) store(for_bias + i * W + unit, sum[i]);
        }
    }
};

template <class T, template <class> class C>
struct Runner {
    using Cell = C<T>;
    using V = Vec<T>;
    static constexpr int L = Vector<T>::lanes;
    static constexpr int G = Cell::GATES, IN = Cell::INPUT, SH = Cell::SHARED, OWN = Cell::RECURRENT ? G - IN : 0;
    static constexpr int S = Cell::SAVED, K = Cell::CARRY, O = Cell::OUTPUTS, N = Cell::VECTORS;
    static constexpr int FIRST = Cell::RECURRENT && !Cell::CARRIES_OUTPUT, PARTS = FIRST + K;  // of the state

    const Sequence<T>& s;
    const long D = s.features, H = s.hidden, W = padded<T>(s.hidden), X = padded<T>(s.features);
    const long blocks = (s.batch + s.rows - 1) / s.rows;

    long count(long block) const { return std::min(s.rows, s.batch - block * s.rows); }
    T* saved_at(long block, long step) const { return s.saved + (block * s.steps + step) * s.rows * S * W; }
    // Steps that do not depend on each other are taken as they lie in memory: rows of a block are then neighbours.
    static constexpr bool FREE = !Cell::RECURRENT && K == 0;
    long stride() const { return FREE ? 1 : s.steps; }
    long at(long first, long rows, long step) const { return first * s.steps + (FREE ? step * rows : step); }

    // Weights (gates*hidden x depth) as the right operand (depth x gates*W).
    Buffer<T> turned(const T* weights, long gates, long depth) const {
        Buffer<T> packed(gates * W * depth);
        pack_turned<T>(packed, weights, depth, gates, H, W, depth, s.threads);
        return packed;
    }
    // The same weights as the right operand (gates*W x columns).
    Buffer<T> straight(const T* weights, long gates, long columns, long wide) const {
        Buffer<T> packed(gates * W * wide);
        pack_straight<T>(packed, weights, columns, gates, H, W, columns, s.threads);
        return packed;
    }

    void forward() const {
        auto from_input = turned(s.from_input, IN, D);
        auto from_state = turned(s.from_state, Cell::RECURRENT ? SH + OWN : 0, H);
        Buffer<T> bias(G * W), vectors(N * W);
        spread(bias.get(), W, s.bias, IN, H);
        if (s.state_bias)
            for (int block = 0; block < SH + OWN; ++block)
                for (long unit = 0; unit < H; ++unit) bias[gate_of(block) * W + unit] += s.state_bias[block * H + unit];
        spread(vectors.get(), W, s.vectors, N, H);
#pragma omp parallel num_threads(s.threads)
        {
            Buffer<T> x(s.rows * D), gates(s.rows * G * W), out(s.rows * O * W), carry(s.rows * K * W);
#pragma omp for schedule(static)
            for (long block = 0; block < blocks; ++block) {
                const long rows = count(block), first = block * s.rows;
                begin(carry, out, first, rows);
                for (long step = 0; step < s.steps; ++step) {
                    const long here = at(first, rows, step);
                    gather_rows<T, 1>(x, D, s.inputs + here * D, stride() * D, rows, D);
                    product<T>(rows, IN * W, D, x, D, from_input, gates, G * W, bias);
                    if constexpr (Cell::RECURRENT) {
                        const long depth = step || s.initial ? H : 0;
                        product<T>(rows, SH * W, depth, out, W, from_state, gates, G * W, nullptr);
                        const T *own = from_state + SH * W * H, *start = bias + IN * W;
                        product<T>(rows, OWN * W, depth, out, W, own, gates + IN * W, G * W, start);
                    }
                    Points<T, C>::forward(rows, W, gates, vectors, carry, out, S && s.saved ? saved_at(block, step) : nullptr);
                    scatter_rows<T, O>(s.outputs + here * O * H, stride() * O * H, out, W, rows, H);
                }
                if (K && s.carried) scatter_rows<T, K>(s.carried + first * K * H, K * H, carry, W, rows, H);
            }
        }
    }

    // The block of products that a block of the state's products is added to.
    static constexpr int gate_of(int block) { return block < SH ? block : IN + block - SH; }

    void begin(T* carry, T* out, long first, long rows) const {
        std::memset(carry, 0, rows * K * W * sizeof(T));
        if constexpr (requires(V * first) { Cell::start(first); })
            for (long row = 0; row < rows; ++row)
                for (long unit = 0; unit < W; unit += L) {
                    V c[K];
                    Cell::start(c);
                    for (int i = 0; i < K; ++i) store(carry + (row * K + i) * W + unit, c[i]);
                }
        if (!s.initial) return;
        const T* from = s.initial + first * PARTS * H;
        if (Cell::RECURRENT) gather_rows<T, 1>(out, W, from, PARTS * H, rows, H);
        gather_rows<T, K>(carry, W, from + FIRST * H, PARTS * H, rows, H);
    }

    void backward() const {
        auto to_input = straight(s.from_input, IN, D, X);
        auto to_state = straight(s.from_state, Cell::RECURRENT ? SH : 0, H, W);
        auto own_to_state = straight(s.from_state + SH * H * H, OWN, H, W);
        Buffer<T> vectors(N * W), zeros(std::max(W, X));
        spread(vectors.get(), W, s.vectors, N, H);
        constexpr int GH = Cell::RECURRENT ? SH + OWN : 0;
        const long input_size = D * IN * W, state_size = H * GH * W, bias_size = G * W, size =
            input_size + state_size + bias_size + N * W;
        Buffer<T> totals(blocks * size);
#pragma omp parallel num_threads(s.threads)
        {
            Buffer<T> x(s.rows * D), gates(s.rows * G * W), grad(s.rows * O * W), carry(s.rows * K * W);
            Buffer<T> one(s.rows * O * W), other(s.rows * O * W), from_state(s.rows * W), grad_x(s.rows * X);
#pragma omp for schedule(static)
            for (long block = 0; block < blocks; ++block) {
                const long rows = count(block), first = block * s.rows, outs = stride() * O * H;
                T *for_input = totals + block * size, *for_state = for_input + input_size,
                  *for_bias = for_state + state_size, *for_vectors = for_bias + bias_size;
                T *now = one, *before = other;
                std::memset(carry, 0, s.rows * K * W * sizeof(T));
                std::memset(from_state, 0, s.rows * W * sizeof(T));
                if (s.grad_carried) gather_rows<T, K>(carry, W, s.grad_carried + first * K * H, K * H, rows, H);
                if (Cell::LOOKS) gather_rows<T, O>(now, W, s.outputs + at(first, rows, s.steps - 1) * O * H, outs, rows, H);
                for (long step = s.steps - 1; step >= 0; --step) {
                    const long here = at(first, rows, step);
                    if (Cell::LOOKS && step) gather_rows<T, O>(before, W, s.outputs + (here - 1) * O * H, outs, rows, H);
                    if (!step) {
                        std::memset(before, 0, s.rows * O * W * sizeof(T));
                        if (s.initial)
                            for (long row = 0; row < rows; ++row)
                                for (int i = 0; i < std::min(O, PARTS); ++i)
                                    copy(before + (row * O + i) * W, s.initial + ((first + row) * PARTS + i) * H, H);
                    }
                    gather_rows<T, O>(grad, W, s.grad_outputs + here * O * H, outs, rows, H);
                    Points<T, C>::backward(
                        rows, W, S ? saved_at(block, step) : nullptr, before, now, grad, from_state, vectors, carry, gates,
                        for_bias, for_vectors);
                    gather_rows<T, 1>(x, D, s.inputs + here * D, stride() * D, rows, D);
                    outer<T>(D, IN * W, rows, x, D, gates, G * W, for_input, IN * W);
                    if constexpr (Cell::RECURRENT) {
                        if (step || s.initial) {
                            outer<T>(H, SH * W, rows, before, W, gates, G * W, for_state, GH * W);
                            outer<T>(H, OWN * W, rows, before, W, gates + IN * W, G * W, for_state + SH * W, GH * W);
                        }
                        product<T>(rows, W, SH * W, gates, G * W, to_state, from_state, W, zeros);
                        product<T>(rows, OWN ? W : 0, OWN * W, gates + IN * W, G * W, own_to_state, from_state, W, nullptr);
                    }
                    if (s.grad_inputs) {
                        product<T>(rows, X, IN * W, gates, G * W, to_input, grad_x, X, zeros);
                        scatter_rows<T, 1>(s.grad_inputs + here * D, stride() * D, grad_x, X, rows, D);
                    }
                    std::swap(now, before);
                }
                if (!s.grad_initial) continue;
                for (long row = 0; row < rows; ++row) {
                    T* to = s.grad_initial + (first + row) * PARTS * H;
                    for (int i = 0; i < K; ++i) copy(to + (FIRST + i) * H, carry + (row * K + i) * W, H);
                    if (FIRST) copy(to, from_state + row * W, H);
                    else if (Cell::RECURRENT)
                        for (long unit = 0; unit < H; ++unit) to[unit] += from_state[row * W + unit];
                }
            }
        }
        add_up<T>(totals, blocks, size, s.threads);
        hand_over(s.grad_from_input, totals, IN, D, IN * W);
        hand_over(s.grad_from_state, totals + input_size, GH, H, GH * W);
        const T* rest = totals + input_size + state_size;
        for (int i = 0; i < IN; ++i) std::memcpy(s.grad_bias + i * H, rest + i * W, H * sizeof(T));
        if (s.grad_state_bias)
            for (int i = 0; i < SH + OWN; ++i)
                std::memcpy(s.grad_state_bias + i * H, rest + gate_of(i) * W, H * sizeof(T));
        for (int i = 0; i < N; ++i) std::memcpy(s.grad_vectors + i * H, rest + bias_size + i * W, H * sizeof(T));
    }

    // (depth x gates*W) to (gates*hidden x depth).
    void hand_over(T* to, const T* from, long gates, long depth, long stride) const {
        for (long gate = 0; gate < gates; ++gate)
            for (long unit = 0; unit < H; ++unit)
                for (long k = 0; k < depth; ++k) to[(gate * H + unit) * depth + k] = from[k * stride + gate * W + unit];
    }
};

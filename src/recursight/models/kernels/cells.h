// The point-wise part of each recurrence, forward and backward, for one vector of neighbouring hidden units.
//
// A cell has GATES blocks of products. The first INPUT blocks are fed by the input, and as many by the state if
// RECURRENT: the first SHARED of them together with the input's, the others into blocks of their own. It keeps CARRY
// values from step to step, gives OUTPUTS, saves SAVED values for the backward pass, and has VECTORS of weights by unit.
// The backward pass reads the outputs if LOOKS. It turns the outputs' gradients into the products' gradients; `carry`
// is then the gradient that reaches the previous step.
//
// A state is the previous output, if RECURRENT, and then CARRY; but only CARRY if that includes the output.
#pragma once
#include "vector.h"

template <class T>
struct Cell {
    using V = Vec<T>;
    static constexpr int VECTORS = 0, OUTPUTS = 1;
    static constexpr bool RECURRENT = true, LOOKS = true, CARRIES_OUTPUT = false;
};

template <class T, bool RELU>
struct Elman : Cell<T> {
    using V = Vec<T>;
    static constexpr int GATES = 1, INPUT = 1, SHARED = 1, CARRY = 0, SAVED = 0;
    static INLINE void forward(const V* gates, const V*, V*, V* out, V*) {
        if constexpr (RELU) out[0] = larger(gates[0], V{});
        else out[0] = hyperbolic_tangent(gates[0]);
    }
    static INLINE void backward(const V*, const V*, const V* out, const V* grad, const V*, V*, V* gates, V*) {
        if constexpr (RELU) gates[0] = out[0] <= 0 ? V{} : grad[0];
        else gates[0] = grad[0] * (1 - out[0] * out[0]);
    }
};

template <class T>
struct Lstm : Cell<T> {
    using V = Vec<T>;
    static constexpr int GATES = 4, INPUT = 4, SHARED = 4, CARRY = 1, SAVED = 5;
    static INLINE void forward(const V* gates, const V*, V* carry, V* out, V* saved) {
        const V i = sigmoid(gates[0]), f = sigmoid(gates[1]), g = hyperbolic_tangent(gates[2]), o = sigmoid(gates[3]);
        saved[0] = i, saved[1] = f, saved[2] = g, saved[3] = o, saved[4] = carry[0];
        carry[0] = f * carry[0] + i * g;
        out[0] = o * hyperbolic_tangent(carry[0]);
    }
    static INLINE void backward(const V* saved, const V*, const V*, const V* grad, const V*, V* carry, V* gates, V*) {
        const V i = saved[0], f = saved[1], g = saved[2], o = saved[3], before = saved[4];
        const V bounded = hyperbolic_tangent(f * before + i * g);
        const V cell = carry[0] + grad[0] * o * (1 - bounded * bounded);
        gates[0] = cell * g * i * (1 - i);
        gates[1] = cell * before * f * (1 - f);
        gates[2] = cell * i * (1 - g * g);
        gates[3] = grad[0] * bounded * o * (1 - o);
        carry[0] = cell * f;
    }
};

// The gates also see the cell, each unit its own: vectors are the weights to the input, forget and output gate.
template <class T>
struct PeepholeLstm : Cell<T> {
    using V = Vec<T>;
    static constexpr int GATES = 4, INPUT = 4, SHARED = 4, CARRY = 1, SAVED = 5, VECTORS = 3;
    static INLINE void forward(const V* gates, const V* weights, V* carry, V* out, V* saved) {
        const V before = carry[0], g = hyperbolic_tangent(gates[2]);
        const V i = sigmoid(gates[0] + weights[0] * before), f = sigmoid(gates[1] + weights[1] * before);
        carry[0] = f * before + i * g;
        const V o = sigmoid(gates[3] + weights[2] * carry[0]);
        saved[0] = i, saved[1] = f, saved[2] = g, saved[3] = o, saved[4] = before;
        out[0] = o * hyperbolic_tangent(carry[0]);
    }
    static INLINE void backward(
        const V* saved, const V*, const V*, const V* grad, const V* weights, V* carry, V* gates, V* totals) {
        const V i = saved[0], f = saved[1], g = saved[2], o = saved[3], before = saved[4];
        const V now = f * before + i * g, bounded = hyperbolic_tangent(now);
        gates[3] = grad[0] * bounded * o * (1 - o);
        const V cell = carry[0] + grad[0] * o * (1 - bounded * bounded) + gates[3] * weights[2];
        gates[0] = cell * g * i * (1 - i);
        gates[1] = cell * before * f * (1 - f);
        gates[2] = cell * i * (1 - g * g);
        carry[0] = cell * f + gates[0] * weights[0] + gates[1] * weights[1];
        totals[0] += gates[0] * before;
        totals[1] += gates[1] * before;
        totals[2] += gates[3] * now;
    }
};

template <class T>
struct Gru : Cell<T> {
    using V = Vec<T>;
    static constexpr bool CARRIES_OUTPUT = true;
    static constexpr int GATES = 4, INPUT = 3, SHARED = 2, CARRY = 1, SAVED = 4;
    static INLINE void forward(const V* gates, const V*, V* carry, V* out, V* saved) {
        const V r = sigmoid(gates[0]), z = sigmoid(gates[1]), n = hyperbolic_tangent(gates[2] + r * gates[3]);
        saved[0] = r, saved[1] = z, saved[2] = n, saved[3] = gates[3];
        carry[0] = out[0] = n + z * (carry[0] - n);
    }
    static INLINE void backward(
        const V* saved, const V* before, const V*, const V* grad, const V*, V* carry, V* gates, V*) {
        const V r = saved[0], z = saved[1], n = saved[2];
        const V all = grad[0] + carry[0];
        gates[2] = all * (1 - z) * (1 - n * n);
        gates[0] = gates[2] * saved[3] * r * (1 - r);
        gates[1] = all * (before[0] - n) * z * (1 - z);
        gates[3] = gates[2] * r;
        carry[0] = all * z;
    }
};

template <class T>
struct Slstm : Cell<T> {
    using V = Vec<T>;
    static constexpr int GATES = 4, INPUT = 4, SHARED = 4, CARRY = 3, SAVED = 7;
    static INLINE void start(V* carry) { carry[0] = carry[1] = V{}, carry[2] = same<T>(-1e30); }
    static INLINE void forward(const V* gates, const V*, V* carry, V* out, V* saved) {
        const V kept = log_sigmoid(gates[1]) + carry[2];
        const V m = larger(kept, gates[0]);
        const V i = exponential(gates[0] - m), f = exponential(kept - m);
        const V z = hyperbolic_tangent(gates[2]), o = sigmoid(gates[3]);
        saved[0] = i, saved[1] = f, saved[2] = z, saved[3] = o, saved[4] = carry[0], saved[5] = carry[1];
        saved[6] = sigmoid(-gates[1]);
        carry[0] = f * carry[0] + i * z;
        carry[1] = f * carry[1] + i;
        carry[2] = m;
        out[0] = o * carry[0] / carry[1];
    }
    static INLINE void backward(const V* saved, const V*, const V*, const V* grad, const V*, V* carry, V* gates, V*) {
        const V i = saved[0], f = saved[1], z = saved[2], o = saved[3];
        const V n = f * saved[5] + i, ratio = (f * saved[4] + i * z) / n;
        const V cell = carry[0] + grad[0] * o / n, norm = carry[1] - grad[0] * o * ratio / n;
        gates[0] = (cell * z + norm) * i;
        gates[1] = (cell * saved[4] + norm * saved[5]) * f * saved[6];
        gates[2] = cell * i * (1 - z * z);
        gates[3] = grad[0] * ratio * o * (1 - o);
        carry[0] = cell * f;
        carry[1] = norm * f;
        carry[2] = V{};  // h does not depend on the scale
    }
};

template <class T, bool RELU>
struct IndRnn : Cell<T> {
    using V = Vec<T>;
    static constexpr bool RECURRENT = false;
    static constexpr int GATES = 1, INPUT = 1, SHARED = 0, CARRY = 1, SAVED = 0, VECTORS = 1;
    static INLINE void forward(const V* gates, const V* weights, V* carry, V* out, V*) {
        const V sum = gates[0] + weights[0] * carry[0];
        if constexpr (RELU) carry[0] = larger(sum, V{});
        else carry[0] = hyperbolic_tangent(sum);
        out[0] = carry[0];
    }
    static INLINE void backward(
        const V*, const V* before, const V* out, const V* grad, const V* weights, V* carry, V* gates, V* totals) {
        const V all = grad[0] + carry[0];
        if constexpr (RELU) gates[0] = out[0] <= 0 ? V{} : all;
        else gates[0] = all * (1 - out[0] * out[0]);
        totals[0] += gates[0] * before[0];
        carry[0] = gates[0] * weights[0];
    }
};

template <class T>
struct MinGru : Cell<T> {
    using V = Vec<T>;
    static constexpr bool RECURRENT = false;
    static constexpr int GATES = 2, INPUT = 2, SHARED = 0, CARRY = 1, SAVED = 2;
    static INLINE void forward(const V* gates, const V*, V* carry, V* out, V* saved) {
        const V z = sigmoid(gates[0]);
        saved[0] = z, saved[1] = gates[1];
        carry[0] = out[0] = carry[0] + z * (gates[1] - carry[0]);
    }
    static INLINE void backward(
        const V* saved, const V* before, const V*, const V* grad, const V*, V* carry, V* gates, V*) {
        const V z = saved[0], all = grad[0] + carry[0];
        gates[0] = all * (saved[1] - before[0]) * z * (1 - z);
        gates[1] = all * z;
        carry[0] = all * (1 - z);
    }
};

template <class T>
struct MinLstm : Cell<T> {
    using V = Vec<T>;
    static constexpr bool RECURRENT = false;
    static constexpr int GATES = 3, INPUT = 3, SHARED = 0, CARRY = 1, SAVED = 4;
    static INLINE void forward(const V* gates, const V*, V* carry, V* out, V* saved) {
        const V kept = sigmoid(log_sigmoid(gates[0]) - log_sigmoid(gates[1]));  // f / (f + i)
        saved[0] = kept, saved[1] = gates[2];
        saved[2] = sigmoid(-gates[0]), saved[3] = sigmoid(-gates[1]);  // slopes of the logarithms
        carry[0] = out[0] = gates[2] + kept * (carry[0] - gates[2]);
    }
    static INLINE void backward(
        const V* saved, const V* before, const V*, const V* grad, const V*, V* carry, V* gates, V*) {
        const V kept = saved[0], all = grad[0] + carry[0];
        const V share = all * (before[0] - saved[1]) * kept * (1 - kept);
        gates[0] = share * saved[2];
        gates[1] = -share * saved[3];
        gates[2] = all * (1 - kept);
        carry[0] = all * kept;
    }
};

// Gives the cell and the reset gate; the caller combines them with the input.
template <class T>
struct Sru : Cell<T> {
    using V = Vec<T>;
    static constexpr bool RECURRENT = false;
    static constexpr int GATES = 3, INPUT = 3, SHARED = 0, CARRY = 1, SAVED = 2, VECTORS = 2, OUTPUTS = 2;
    static INLINE void forward(const V* gates, const V* weights, V* carry, V* out, V* saved) {
        const V f = sigmoid(gates[0] + weights[0] * carry[0]);
        out[1] = sigmoid(gates[1] + weights[1] * carry[0]);
        saved[0] = f, saved[1] = gates[2];
        carry[0] = out[0] = gates[2] + f * (carry[0] - gates[2]);
    }
    static INLINE void backward(
        const V* saved, const V* before, const V* out, const V* grad, const V* weights, V* carry, V* gates, V* totals) {
        const V f = saved[0], all = grad[0] + carry[0];
        gates[0] = all * (before[0] - saved[1]) * f * (1 - f);
        gates[1] = grad[1] * out[1] * (1 - out[1]);
        gates[2] = all * (1 - f);
        totals[0] += gates[0] * before[0];
        totals[1] += gates[1] * before[0];
        carry[0] = all * f + gates[0] * weights[0] + gates[1] * weights[1];
    }
};

template <class T>
struct Qrnn : Cell<T> {
    using V = Vec<T>;
    static constexpr bool RECURRENT = false, LOOKS = false;
    static constexpr int GATES = 3, INPUT = 3, SHARED = 0, CARRY = 1, SAVED = 4;
    static INLINE void forward(const V* gates, const V*, V* carry, V* out, V* saved) {
        const V z = hyperbolic_tangent(gates[0]), f = sigmoid(gates[1]), o = sigmoid(gates[2]);
        saved[0] = z, saved[1] = f, saved[2] = o, saved[3] = carry[0];
        carry[0] = z + f * (carry[0] - z);
        out[0] = o * carry[0];
    }
    static INLINE void backward(const V* saved, const V*, const V*, const V* grad, const V*, V* carry, V* gates, V*) {
        const V z = saved[0], f = saved[1], o = saved[2], before = saved[3];
        const V all = carry[0] + grad[0] * o;
        gates[0] = all * (1 - f) * (1 - z * z);
        gates[1] = all * (before - z) * f * (1 - f);
        gates[2] = grad[0] * (z + f * (before - z)) * o * (1 - o);
        carry[0] = all * f;
    }
};

// Gives real and imaginary part of the state; weights are those of the eigenvalue.
template <class T>
struct Lru : Cell<T> {
    using V = Vec<T>;
    static constexpr bool RECURRENT = false;
    static constexpr int GATES = 2, INPUT = 2, SHARED = 0, CARRY = 2, SAVED = 0, VECTORS = 2, OUTPUTS = 2;
    static INLINE void forward(const V* gates, const V* weights, V* carry, V* out, V*) {
        out[0] = gates[0] + weights[0] * carry[0] - weights[1] * carry[1];
        out[1] = gates[1] + weights[0] * carry[1] + weights[1] * carry[0];
        carry[0] = out[0], carry[1] = out[1];
    }
    static INLINE void backward(
        const V*, const V* before, const V*, const V* grad, const V* weights, V* carry, V* gates, V* totals) {
        gates[0] = grad[0] + carry[0];
        gates[1] = grad[1] + carry[1];
        totals[0] += gates[0] * before[0] + gates[1] * before[1];
        totals[1] += gates[1] * before[0] - gates[0] * before[1];
        carry[0] = gates[0] * weights[0] + gates[1] * weights[1];
        carry[1] = gates[1] * weights[0] - gates[0] * weights[1];
    }
};

// A gated linear unit: no recurrence.
template <class T>
struct Glu : Cell<T> {
    using V = Vec<T>;
    static constexpr bool RECURRENT = false, LOOKS = false;
    static constexpr int GATES = 2, INPUT = 2, SHARED = 0, CARRY = 0, SAVED = 2;
    static INLINE void forward(const V* gates, const V*, V*, V* out, V* saved) {
        saved[0] = gates[0], saved[1] = sigmoid(gates[1]);
        out[0] = saved[0] * saved[1];
    }
    static INLINE void backward(const V* saved, const V*, const V*, const V* grad, const V*, V*, V* gates, V*) {
        gates[0] = grad[0] * saved[1];
        gates[1] = grad[0] * saved[0] * saved[1] * (1 - saved[1]);
    }
};

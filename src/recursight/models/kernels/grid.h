// A recurrence over a grid from one or four corners. Pixels are visited in reading order, each with a block of
// examples, and a row of states stays in the cache.
#pragma once
#include <algorithm>

#include "product.h"

template <class T>
struct Grid {
    long batch, height, width, features, hidden, directions, last, rows, threads;
    const T *inputs;             // batch height width features
    const T *from_input, *bias;  // directions*GATES*hidden x features; directions*GATES*hidden
    const T *from_state;         // directions GATES*hidden 2*hidden: from the left, from above
    const T *initial;            // the row above the first, batch width (1+CARRY)*hidden; null: zeros
    // batch height width directions*hidden, or of the last pixels alone; batch width CARRY*hidden; see `saved_at`
    T *outputs, *carried, *saved;
    // Only in the backward pass; the inputs' gradient has a part for each direction in front:
    const T *grad_outputs, *grad_carried;
    T *grad_inputs, *grad_from_input, *grad_bias, *grad_from_state, *grad_initial;
};

// The first value saved is the output, the second, where there is a cell, the cell: neighbours read them there.
template <class T>
struct TanhCell {
    using V = Vec<T>;
    static constexpr int GATES = 1, CARRY = 0, SAVED = 1;
    static INLINE void forward(const V* gates, const V*, const V*, V* state, V* saved) {
        saved[0] = state[0] = hyperbolic_tangent(gates[0]);
    }
    static INLINE void backward(const V* saved, const V*, const V*, V grad, V, V* gates, V*, V*) {
        gates[0] = grad * (1 - saved[0] * saved[0]);
    }
};

template <class T>
struct LstmCell {
    using V = Vec<T>;
    static constexpr int GATES = 5, CARRY = 1, SAVED = 7;
    static INLINE void forward(const V* gates, const V* left, const V* above, V* state, V* saved) {
        const V i = sigmoid(gates[0]), f = sigmoid(gates[1]), e = sigmoid(gates[2]);
        const V g = hyperbolic_tangent(gates[3]), o = sigmoid(gates[4]);
        saved[2] = i, saved[3] = f, saved[4] = e, saved[5] = g, saved[6] = o;
        saved[1] = state[1] = i * g + f * left[1] + e * above[1];
        saved[0] = state[0] = o * hyperbolic_tangent(state[1]);
    }
    static INLINE void backward(
        const V* saved, const V* left, const V* above, V grad, V carry, V* gates, V* to_left, V* to_above) {
        const V i = saved[2], f = saved[3], e = saved[4], g = saved[5], o = saved[6];
        const V bounded = hyperbolic_tangent(saved[1]);
        const V cell = carry + grad * o * (1 - bounded * bounded);
        gates[0] = cell * g * i * (1 - i);
        gates[1] = cell * left[1] * f * (1 - f);
        gates[2] = cell * above[1] * e * (1 - e);
        gates[3] = cell * i * (1 - g * g);
        gates[4] = grad * bounded * o * (1 - o);
        to_left[0] = cell * f;
        to_above[0] = cell * e;
    }
};

template <class T, template <class> class C>
struct GridRunner {
    using Cell = C<T>;
    using V = Vec<T>;
    static constexpr int L = Vector<T>::lanes, G = Cell::GATES, K = Cell::CARRY, P = 1 + K, S = Cell::SAVED;

    const Grid<T>& s;
    const long D = s.features, H = s.hidden, W = padded<T>(s.hidden), X = padded<T>(s.features);
    const long blocks = (s.batch + s.rows - 1) / s.rows, pixels = s.height * s.width;
    const long places = s.last ? 1 : pixels;  // of outputs

    long count(long block) const { return std::min(s.rows, s.batch - block * s.rows); }
    // A plane (rows x W) for each value.
    T* saved_at(long task, long pixel) const { return s.saved + (task * pixels + pixel) * s.rows * S * W; }
    // Where direction d finds its row i and column j in the image.
    long pixel_at(long d, long i, long j) const {
        return (d & 2 ? s.height - 1 - i : i) * s.width + (d & 1 ? s.width - 1 - j : j);
    }

    bool has_output(long i, long j) const { return !s.last || (i == s.height - 1 && j == s.width - 1); }
    // Where the outputs of a block begin, and their gradient.
    long output_at(long d, long first, long pixel) const {
        return ((first * places + (s.last ? 0 : pixel)) * s.directions + d) * H;
    }

    void forward() const {
        const long input_size = G * W * D, state_size = G * W * H;
        Buffer<T> from_input(s.directions * input_size), from_state(s.directions * 2 * state_size);
        Buffer<T> bias(s.directions * G * W);
        for (long d = 0; d < s.directions; ++d) {
            for (int g = 0; g < G; ++g)
                std::memcpy(bias + (d * G + g) * W, s.bias + (d * G + g) * H, H * sizeof(T));
            const T *x = s.from_input + d * G * H * D, *h = s.from_state + d * G * H * 2 * H;
            pack_turned<T>(from_input + d * input_size, x, D, G, H, W, D, s.threads);
            for (long side = 0; side < 2; ++side) {
                T* to = from_state + (2 * d + side) * state_size;
                pack_turned<T>(to, h + side * H, 2 * H, G, H, W, H, s.threads);
            }
        }
#pragma omp parallel num_threads(s.threads)
        {
            Buffer<T> x(s.rows * D), gates(s.rows * G * W), line(s.width * s.rows * P * W), zeros(s.rows * P * W);
#pragma omp for schedule(static)
            for (long task = 0; task < s.directions * blocks; ++task) {
                const long d = task / blocks, first = task % blocks * s.rows, rows = count(task % blocks);
                const T* weights = from_state + 2 * d * state_size;
                if (s.initial) copy_line<0>(line, s.initial, first, rows, P);
                for (long i = 0; i < s.height; ++i)
                    for (long j = 0; j < s.width; ++j) {
                        const long pixel = pixel_at(d, i, j), cell = s.rows * P * W;
                        T* state = line + j * cell;  // still that of the pixel above
                        const T *above = i || s.initial ? state : zeros, *left = j ? state - cell : zeros;
                        copy_rows(x, D, s.inputs + (first * pixels + pixel) * D, pixels * D, rows, D);
                        const Factors<T> factors[] = {
                            {x, D, from_input + d * input_size, D},
                            {left, P * W, weights, j ? H : 0},
                            {above, P * W, weights + state_size, i || s.initial ? H : 0}};
                        product<T>(rows, G * W, factors, gates, G * W, bias + d * G * W);
                        points_forward(rows, gates, left, above, state, s.saved ? saved_at(task, i * s.width + j) : nullptr);
                        if (!has_output(i, j)) continue;
                        T* to = s.outputs + output_at(d, first, pixel);
                        copy_rows(to, places * s.directions * H, state, P * W, rows, H);
                    }
                if (K && s.carried) copy_line<1>(s.carried, line, first, rows, K);
            }
            streamed();
        }
    }

    // The last `parts` values of every state of a line, from the batch's (batch width parts*hidden) or, if BACK, to it.
    template <bool BACK>
    void copy_line(T* to, const T* from, long first, long rows, long parts) const {
        for (long j = 0; j < s.width; ++j)
            for (long row = 0; row < rows; ++row)
                for (long i = 0; i < parts; ++i) {
                    const long here = ((j * s.rows + row) * P + P - parts + i) * W;
                    const long there = (((first + row) * s.width + j) * parts + i) * H;
                    copy(to + (BACK ? there : here), from + (BACK ? here : there), H);
                }
    }

    static void copy_rows(T* to, long to_stride, const T* from, long from_stride, long rows, long count) {
        for (long row = 0; row < rows; ++row)
            copy(to + row * to_stride, from + row * from_stride, count);
    }

    void points_forward(long rows, const T* gates, const T* left, const T* above, T* state, T* saved) const {
        for (long row = 0; row < rows; ++row)
            for (long unit = 0; unit < W; unit += L) {
                V g[G], l[P], a[P], to[P], kept[S];
                for (int i = 0; i < G; ++i) g[i] = load(gates + (row * G + i) * W + unit);
                for (int i = 0; i < P; ++i) l[i] = load(left + (row * P + i) * W + unit);
                for (int i = 0; i < P; ++i) a[i] = load(above + (row * P + i) * W + unit);
                Cell::forward(g, l, a, to, kept);
                for (int i = 0; i < P; ++i) store(state + (row * P + i) * W + unit, to[i]);
                if (saved)
                    for (int i = 0; i < S; ++i) stream(saved + (i * s.rows + row) * W + unit, kept[i]);
            }
    }

    void backward() const {
        const long state_size = G * W * W;
        Buffer<T> to_input(s.directions * G * W * X), to_state(s.directions * 2 * state_size);
        for (long d = 0; d < s.directions; ++d) {
            const T *x = s.from_input + d * G * H * D, *h = s.from_state + d * G * H * 2 * H;
            pack_straight<T>(to_input + d * G * W * X, x, D, G, H, W, D, s.threads);
            for (long side = 0; side < 2; ++side) {
                T* to = to_state + (2 * d + side) * state_size;
                pack_straight<T>(to, h + side * H, 2 * H, G, H, W, H, s.threads);
            }
        }
        const long for_x = D * G * W, for_h = H * G * W, size = for_x + 2 * for_h + G * W;
        Buffer<T> totals(s.directions * blocks * size), zeros(std::max(X, s.rows * P * W));
#pragma omp parallel num_threads(s.threads)
        {
            Buffer<T> x(s.rows * D), gates(s.rows * G * W), grad_x(s.rows * X), grad(s.rows * W);
            Buffer<T> line(s.width * s.rows * P * W), beside(s.rows * P * W);  // what reaches the pixels above, and left
            Buffer<T> initial(s.initial ? s.width * s.rows * P * W : 0);       // in planes, as saved
#pragma omp for schedule(static)
            for (long task = 0; task < s.directions * blocks; ++task) {
                const long d = task / blocks, first = task % blocks * s.rows, rows = count(task % blocks);
                const T* weights = to_state + 2 * d * state_size;
                T *total_x = totals + task * size, *total_h = total_x + for_x, *total_bias = total_h + 2 * for_h;
                std::memset(line, 0, s.width * s.rows * P * W * sizeof(T));
                if (s.grad_carried) copy_line<0>(line, s.grad_carried, first, rows, K);
                if (s.initial)
                    for (long j = 0; j < s.width; ++j)
                        for (int i = 0; i < P; ++i)
                            copy_rows(
                                initial + (j * P + i) * s.rows * W, W,
                                s.initial + ((first * s.width + j) * P + i) * H, s.width * P * H, rows, H);
                for (long i = s.height - 1; i >= 0; --i) {
                    std::memset(beside, 0, s.rows * P * W * sizeof(T));
                    for (long j = s.width - 1; j >= 0; --j) {
                        const long pixel = pixel_at(d, i, j), here = i * s.width + j;
                        const T *left = j ? saved_at(task, here - 1) : zeros;
                        const T *start = s.initial ? initial + j * P * s.rows * W : zeros;
                        const T *above = i ? saved_at(task, here - s.width) : start;
                        T* up = line + j * s.rows * P * W;
                        const T* from_output = zeros;
                        if (has_output(i, j)) {
                            const T* from = s.grad_outputs + output_at(d, first, pixel);
                            copy_rows(grad, W, from, places * s.directions * H, rows, H);
                            from_output = grad;
                        }
                        points_backward(
                            rows, saved_at(task, here), left, above, from_output, beside, up, gates, total_bias);
                        copy_rows(x, D, s.inputs + (first * pixels + pixel) * D, pixels * D, rows, D);
                        outer<T>(D, G * W, rows, x, D, gates, G * W, total_x, G * W);
                        Ahead ahead;
                        fetch(ahead, task, here);
                        if (j) outer<T>(H, G * W, rows, left, W, gates, G * W, total_h, G * W, ahead);
                        if (i || s.initial) outer<T>(H, G * W, rows, above, W, gates, G * W, total_h + for_h, G * W, ahead);
                        if (j) product<T>(rows, W, G * W, gates, G * W, weights, beside, P * W, zeros, ahead);
                        if (i || s.initial)
                            product<T>(rows, W, G * W, gates, G * W, weights + state_size, up, P * W, zeros, ahead);
                        if (s.grad_inputs) {
                            product<T>(rows, X, G * W, gates, G * W, to_input + d * G * W * X, grad_x, X, zeros);
                            T* to = s.grad_inputs + ((d * s.batch + first) * pixels + pixel) * D;
                            copy_rows(to, pixels * D, grad_x, X, rows, D);
                        }
                    }
                }
                if (s.grad_initial) copy_line<1>(s.grad_initial, line, first, rows, P);
            }
        }
        for (long d = 0; d < s.directions; ++d) {
            T* sum = totals + d * blocks * size;
            add_up(sum, blocks, size, s.threads);
            for (long gate = 0; gate < G; ++gate)
                for (long unit = 0; unit < H; ++unit) {
                    const long row = (d * G + gate) * H + unit;
                    const T* column = sum + gate * W + unit;
                    for (long k = 0; k < D; ++k) s.grad_from_input[row * D + k] = column[k * G * W];
                    for (long k = 0; k < 2 * H; ++k) s.grad_from_state[row * 2 * H + k] = column[for_x + k * G * W];
                    s.grad_bias[row] = column[for_x + 2 * for_h];
                }
        }
    }

    // What the backward pass will read at the pixel that comes after `here`, and has not yet read.
    void fetch(Ahead& ahead, long task, long here) const {
        if (!here) return;
        const long next = here - 1, d = task / blocks, first = task % blocks * s.rows, plane = s.rows * W;
        if (next >= s.width) ahead.add(saved_at(task, next - s.width), P * plane);
        if (next) ahead.add(saved_at(task, next - 1), P * plane);
        ahead.add(saved_at(task, next) + P * plane, (S - P) * plane);
        if (s.last) return;
        const T* from = s.grad_outputs + output_at(d, first, pixel_at(d, next / s.width, next % s.width));
        ahead.add(from, H, count(task % blocks), places * s.directions * H);
    }

    void points_backward(
        long rows, const T* saved, const T* left, const T* above, const T* grad, T* beside, T* up, T* gates,
        T* total_bias) const {
        for (long unit = 0; unit < W; unit += L) {
            V sum[G];
            for (int i = 0; i < G; ++i) sum[i] = load(total_bias + i * W + unit);
            for (long row = 0; row < rows; ++row) {
                V kept[S], l[P], a[P], to[G], to_left[1], to_above[1], carry = V{};
                for (int i = 0; i < S; ++i) kept[i] = load(saved + (i * s.rows + row) * W + unit);
                for (int i = 0; i < P; ++i) l[i] = load(left + (i * s.rows + row) * W + unit);
                for (int i = 0; i < P; ++i) a[i] = load(above + (i * s.rows + row) * W + unit);
                T *by_left = beside + row * P * W + unit, *by_above = up + row * P * W + unit;
                const V all = load(grad + row * W + unit) + load(by_left) + load(by_above);
                if constexpr (K) carry = load(by_left + W) + load(by_above + W);
                Cell::backward(kept, l, a, all, carry, to, to_left, to_above);
                if constexpr (K) store(by_left + W, to_left[0]), store(by_above + W, to_above[0]);
                for (int i = 0; i < G; ++i) store(gates + (row * G + i) * W + unit, to[i]), sum[i] += to[i];
            }
            for (int i = 0; i < G; ++i) store(total_bias + i * W + unit, sum[i]);
        }
    }
};

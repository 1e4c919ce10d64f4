// A recurrence over maps, for any cell: its products are convolutions of the input's and of the state's map. Blocks of
// examples run side by side; an example's state stays in one core's cache for all steps. As in sequence.h, results do not
// depend on the number of threads.
//
// Maps lie in memory with a border of zeros. A row of a window, KERNEL pixels of all their features, is then one run of
// memory, so that a convolution is KERNEL matrix products whose left operand is read where it lies.
#pragma once
#include "sequence.h"

template <class T>
struct Maps {
    long batch, steps, height, width, features, hidden, kernel, rows, threads;  // `rows`: examples of a block
    const long *lengths;         // steps of each example; what comes after them is zero in the outputs
    const T *inputs;             // batch steps height width features
    const T *from_input, *bias;  // INPUT*hidden features kernel kernel; GATES*hidden
    const T *from_state;         // of SHARED and own blocks: blocks*hidden hidden kernel kernel
    const T *vectors;            // VECTORS*hidden
    const T *initial;            // batch height width PARTS*hidden; null: zeros
    T *outputs, *carried, *saved;  // batch steps height width hidden; batch height width CARRY*hidden; see `saved_at`
    // Only in the backward pass; null where the forward pass has null:
    const T *grad_outputs, *grad_carried;
    T *grad_inputs, *grad_from_input, *grad_bias, *grad_from_state, *grad_vectors, *grad_initial;
};

template <class T, template <class> class C>
struct MapRunner {
    using Cell = C<T>;
    static constexpr int G = Cell::GATES, IN = Cell::INPUT, SH = Cell::SHARED, OWN = G - IN;
    static constexpr int S = Cell::SAVED, K = Cell::CARRY, N = Cell::VECTORS;
    static constexpr int FIRST = !Cell::CARRIES_OUTPUT, PARTS = FIRST + K;  // of the state
    static_assert(Cell::RECURRENT && Cell::OUTPUTS == 1);

    const Maps<T>& s;
    const long D = s.features, H = s.hidden, W = padded<T>(s.hidden), X = padded<T>(s.features), k = s.kernel;
    const long border = k / 2, wide = s.width + 2 * border, high = s.height + 2 * border, pixels = s.height * s.width;
    const long blocks = (s.batch + s.rows - 1) / s.rows;
    const long gates = G * W;  // of a pixel in memory

    long end(long block) const { return std::min((block + 1) * s.rows, s.batch); }
    T* saved_at(long example, long step) const { return s.saved + (example * s.steps + step) * pixels * S * W; }
    long inner(long depth) const { return (border * wide + border) * depth; }  // where the map begins within its border
    // The gate that a block of the state's products is added to.
    static constexpr int gate_of(int block) { return block < SH ? block : IN + block - SH; }

    // A map into its border, which stays zero.
    void place(T* to, const T* from, long depth) const {
        for (long y = 0; y < s.height; ++y)
            std::memcpy(to + inner(depth) + y * wide * depth, from + y * s.width * depth, s.width * depth * sizeof(T));
    }
    // The same map without border, each pixel padded from `hidden`.
    void place_wide(T* to, const T* from) const { gather_rows<T, 1>(to, W, from, H, pixels, H); }

    // Weights (blocks*hidden x depth x k x k) as right operands, one for each row of a window: (k*depth x gates).
    Buffer<T> for_windows(const T* weights, long depth, bool of_state) const {
        Buffer<T> packed(k * k * depth * gates);
        const long count = of_state ? SH + OWN : IN;
#pragma omp parallel for schedule(static) num_threads(s.threads)
        for (long block = 0; block < count; ++block)
            for (long unit = 0; unit < H; ++unit) {
                const long column = (of_state ? gate_of(block) : block) * W + unit;
                const T* from = weights + (block * H + unit) * depth * k * k;
                for (long down = 0; down < k; ++down)
                    for (long right = 0; right < k; ++right)
                        for (long feature = 0; feature < depth; ++feature)
                            packed[down * k * depth * gates + at(column, right * depth + feature, k * depth)] =
                                from[(feature * k + down) * k + right];
            }
        return packed;
    }
    // The same weights for the gradient of what is convolved: (k*gates x columns), the windows turned.
    Buffer<T> turned(const T* weights, long depth, long columns, bool of_state) const {
        Buffer<T> packed(k * k * gates * columns);
        const long count = of_state ? SH + OWN : IN;
#pragma omp parallel for schedule(static) num_threads(s.threads)
        for (long feature = 0; feature < depth; ++feature)
            for (long block = 0; block < count; ++block)
                for (long unit = 0; unit < H; ++unit) {
                    const long gate = (of_state ? gate_of(block) : block) * W + unit;
                    const T* from = weights + ((block * H + unit) * depth + feature) * k * k;
                    for (long down = 0; down < k; ++down)
                        for (long right = 0; right < k; ++right)
                            packed[down * k * gates * columns + at(feature, right * gates + gate, k * gates)] =
                                from[(k - 1 - down) * k + k - 1 - right];
                }
        return packed;
    }
    // Where `product` expects an element of its right operand.
    static long at(long column, long row, long depth) {
        return column / PANEL<T> * PANEL<T> * depth + row * PANEL<T> + column % PANEL<T>;
    }

    // Adds a convolution to one panel of columns of a row of pixels, or puts it on `start`.
    void convolve(long y, const T* map, long depth, const T* weights, long columns, long column, T* to, const T* start) const {
        for (long down = 0; down < k; ++down)
            product<T>(
                s.width, PANEL<T>, k * depth, map + (y + down) * wide * depth, depth,
                weights + down * k * depth * columns + column * k * depth, to, columns, down ? nullptr : start);
    }

    void forward() const {
        auto from_input = for_windows(s.from_input, D, false), from_state = for_windows(s.from_state, H, true);
        Buffer<T> bias(gates), vectors(N * W);
        spread(bias.get(), W, s.bias, G, H);
        spread(vectors.get(), W, s.vectors, N, H);
#pragma omp parallel num_threads(s.threads)
        {
            Buffer<T> x(high * wide * D), h(high * wide * H);
            Buffer<T> products(pixels * gates), carry(pixels * K * W), out(pixels * W);
#pragma omp for schedule(dynamic)
            for (long block = 0; block < blocks; ++block)
                for (long example = block * s.rows; example < end(block); ++example) {
                    begin(example, h, carry);
                    for (long step = 0; step < s.lengths[example]; ++step) {
                        const long here = (example * s.steps + step) * pixels;
                        place(x, s.inputs + here * D, D);
                        for (long column = 0; column < gates; column += PANEL<T>)
                            for (long y = 0; y < s.height; ++y) {
                                T* to = products + y * s.width * gates + column;
                                const T* start = bias + column;
                                if (column < IN * W) {
                                    convolve(y, x, D, from_input, gates, column, to, start);
                                    start = nullptr;
                                }
                                if (column < SH * W || column >= IN * W)
                                    convolve(y, h, H, from_state, gates, column, to, start);
                            }
                        Points<T, C>::forward(
                            pixels, W, products, vectors, carry, out, s.saved ? saved_at(example, step) : nullptr);
                        scatter_rows<T, 1>(s.outputs + here * H, H, out, W, pixels, H);
                        place(h, s.outputs + here * H, H);
                    }
                    const long rest = s.steps - s.lengths[example];
                    T* after = s.outputs + (example * s.steps + s.lengths[example]) * pixels * H;
                    std::memset(after, 0, rest * pixels * H * sizeof(T));
                    if (K && s.carried) scatter_rows<T, K>(s.carried + example * pixels * K * H, K * H, carry, W, pixels, H);
                }
        }
    }

    void begin(long example, T* h, T* carry) const {
        std::memset(h, 0, high * wide * H * sizeof(T));
        std::memset(carry, 0, pixels * K * W * sizeof(T));
        if (!s.initial) return;
        const T* from = s.initial + example * pixels * PARTS * H;
        for (long y = 0; y < s.height; ++y)
            for (long x = 0; x < s.width; ++x)
                copy(h + inner(H) + (y * wide + x) * H, from + (y * s.width + x) * PARTS * H, H);
        gather_rows<T, K>(carry, W, from + FIRST * H, PARTS * H, pixels, H);
    }

    void backward() const {
        auto to_input = turned(s.from_input, D, X, false), to_state = turned(s.from_state, H, W, true);
        Buffer<T> vectors(N * W), zeros(std::max(W, X));
        spread(vectors.get(), W, s.vectors, N, H);
        const long input_size = k * k * D * gates, state_size = k * k * H * gates, bias_size = gates;
        const long size = input_size + state_size + bias_size + N * W;
        Buffer<T> totals(blocks * size);
#pragma omp parallel num_threads(s.threads)
        {
            Buffer<T> x(high * wide * D), h(high * wide * H), products(high * wide * gates);
            Buffer<T> now(pixels * W), before(pixels * W), grad(pixels * W), from_state(pixels * W);
            Buffer<T> carry(pixels * K * W), first_carry(pixels * K * W), grad_x(s.width * X);
#pragma omp for schedule(dynamic)
            for (long block = 0; block < blocks; ++block) {
                T *for_input = totals + block * size, *for_state = for_input + input_size,
                  *for_bias = for_state + state_size, *for_vectors = for_bias + bias_size;
                for (long example = block * s.rows; example < end(block); ++example) {
                    std::memset(carry, 0, pixels * K * W * sizeof(T));
                    std::memset(from_state, 0, pixels * W * sizeof(T));
                    if (K && s.grad_carried)
                        gather_rows<T, K>(carry, W, s.grad_carried + example * pixels * K * H, K * H, pixels, H);
                    for (long step = s.lengths[example] - 1; step >= 0; --step) {
                        const long here = (example * s.steps + step) * pixels;
                        const T* past = s.outputs + (here - pixels) * H;
                        const bool reads_state = step || s.initial;
                        place(x, s.inputs + here * D, D);
                        if (step) place(h, past, H), place_wide(before, past);
                        else begin(example, h, first_carry), start_wide(before, h);
                        place_wide(now, s.outputs + here * H);
                        place_wide(grad, s.grad_outputs + here * H);
                        for (long y = 0; y < s.height; ++y) {
                            const long row = y * s.width;
                            Points<T, C>::backward(
                                s.width, W, saved_at(example, step) + row * S * W, before + row * W, now + row * W,
                                grad + row * W, from_state + row * W, vectors, carry + row * K * W,
                                products + inner(gates) + y * wide * gates, for_bias, for_vectors);
                        }
                        add_weights(x, D, products, for_input, 0, IN);
                        if (reads_state) {
                            add_weights(h, H, products, for_state, 0, SH);
                            add_weights(h, H, products, for_state, IN, G);
                        }
                        for (long y = 0; reads_state && y < s.height; ++y)
                            for (long column = 0; column < W; column += PANEL<T>)
                                convolve(
                                    y, products, gates, to_state, W, column, from_state + y * s.width * W + column, zeros);
                        for (long y = 0; s.grad_inputs && y < s.height; ++y) {
                            for (long column = 0; column < X; column += PANEL<T>)
                                convolve(y, products, gates, to_input, X, column, grad_x + column, zeros);
                            scatter_rows<T, 1>(s.grad_inputs + (here + y * s.width) * D, D, grad_x, X, s.width, D);
                        }
                    }
                    if (s.grad_inputs) {
                        const long rest = s.steps - s.lengths[example];
                        T* after = s.grad_inputs + (example * s.steps + s.lengths[example]) * pixels * D;
                        std::memset(after, 0, rest * pixels * D * sizeof(T));
                    }
                    if (s.grad_initial) hand_over_state(example, carry, from_state);
                }
            }
        }
        add_up<T>(totals, blocks, size, s.threads);
        hand_over(s.grad_from_input, totals, D, false);
        hand_over(s.grad_from_state, totals + input_size, H, true);
        const T* rest = totals + input_size + state_size;
        for (int i = 0; i < G; ++i) std::memcpy(s.grad_bias + i * H, rest + i * W, H * sizeof(T));
        for (int i = 0; i < N; ++i) std::memcpy(s.grad_vectors + i * H, rest + bias_size + i * W, H * sizeof(T));
    }

    // The map within a border, each pixel padded.
    void start_wide(T* to, const T* h) const {
        for (long y = 0; y < s.height; ++y)
            gather_rows<T, 1>(to + y * s.width * W, W, h + inner(H) + y * wide * H, H, s.width, H);
    }

    // Adds what a step gives for the weights of some gates. It runs over all pixels in one go: between two rows of the map
    // lies the border of the gates' gradients, which is zero.
    void add_weights(const T* map, long depth, const T* products, T* to, long first, long last) const {
        const long count = (s.height - 1) * wide + s.width;
        for (long down = 0; down < k; ++down)
            outer<T>(
                k * depth, (last - first) * W, count, map + down * wide * depth, depth,
                products + inner(gates) + first * W, gates, to + down * k * depth * gates + first * W, gates);
    }

    void hand_over_state(long example, const T* carry, const T* from_state) const {
        for (long pixel = 0; pixel < pixels; ++pixel) {
            T* to = s.grad_initial + (example * pixels + pixel) * PARTS * H;
            for (int i = 0; i < K; ++i) copy(to + (FIRST + i) * H, carry + (pixel * K + i) * W, H);
            if (FIRST) copy(to, from_state + pixel * W, H);
            else
                for (long unit = 0; unit < H; ++unit) to[unit] += from_state[pixel * W + unit];
        }
    }

    // (k x k x depth x gates) to (blocks*hidden x depth x k x k).
    void hand_over(T* to, const T* from, long depth, bool of_state) const {
        for (long block = 0; block < (of_state ? SH + OWN : IN); ++block)
            for (long unit = 0; unit < H; ++unit)
                for (long feature = 0; feature < depth; ++feature)
                    for (long window = 0; window < k * k; ++window)
                        to[((block * H + unit) * depth + feature) * k * k + window] =
                            from[(window * depth + feature) * gates + (of_state ? gate_of(block) : block) * W + unit];
    }
};

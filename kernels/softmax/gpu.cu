// Softmax of each row of x [rows, classes]:
//
//     y = exp(x - largest) / sum(exp(x - largest))
//
// shifted by the row's largest value so that no exponential overflows; the sum runs in float64. A block has one row,
// which its THREADS threads share out; what each finds is joined in shared memory, pair by pair, always in the same
// order. NaN anywhere in a row makes its sum NaN, and so every y of it.

static_assert((THREADS & (THREADS - 1)) == 0, "threads are joined by halves");

// combine() of the values of all threads, for every thread.
template <class Combine>
__device__ double over_block(double value, double* values, Combine combine)
{
    __syncthreads();  // an earlier result may still be read
    values[threadIdx.x] = value;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half)
            values[threadIdx.x] = combine(values[threadIdx.x], values[threadIdx.x + half]);
    }
    __syncthreads();
    return values[0];
}

extern "C" __global__ void softmax(const float* __restrict__ x, int classes, float* __restrict__ y)
{
    __shared__ double values[THREADS];
    const size_t first = (size_t)blockIdx.x * classes;
    x += first;
    y += first;

    float largest = x[0];
    for (int c = threadIdx.x; c < classes; c += THREADS)
        largest = x[c] > largest ? x[c] : largest;
    largest = over_block(largest, values, [](double a, double b) { return a > b ? a : b; });

    double sum = 0.0;
    for (int c = threadIdx.x; c < classes; c += THREADS) {
        const float e = expf(x[c] - largest);
        y[c] = e;
        sum += e;
    }
    sum = over_block(sum, values, [](double a, double b) { return a + b; });

    for (int c = threadIdx.x; c < classes; c += THREADS)
        y[c] = y[c] / sum;
}

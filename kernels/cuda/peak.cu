// What a device does at best, against which kernels are measured: multiply-adds on registers alone, and a copy.

// y[thread] = the sum of CHAINS sums, each started at its own number and advanced rounds * STEPS times by
//
//     s = s * factor + term
//
// A multiply-add waits for the one before it in its chain; CHAINS independent ones a thread, and the warps beside it,
// keep the units busy all the same. With factor = term = 1 every number is whole, so that the result counts the
// multiply-adds that were done; they are parameters, so that the compiler cannot know.
extern "C" __global__ void multiply_adds(float factor, float term, int rounds, float* __restrict__ y)
{
    float sums[CHAINS];
#pragma unroll
    for (int chain = 0; chain < CHAINS; ++chain)
        sums[chain] = (float)chain;
    for (int round = 0; round < rounds; ++round) {
#pragma unroll
        for (int step = 0; step < STEPS; ++step) {
#pragma unroll
            for (int chain = 0; chain < CHAINS; ++chain)
                sums[chain] = fmaf(sums[chain], factor, term);
        }
    }
    float total = 0.0f;
#pragma unroll
    for (int chain = 0; chain < CHAINS; ++chain)
        total += sums[chain];
    y[blockIdx.x * blockDim.x + threadIdx.x] = total;
}

// y = x, 16 bytes a thread: the widest access there is, neighbours beside each other.
extern "C" __global__ void copy(const float4* __restrict__ x, float4* __restrict__ y, int count)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count)
        y[i] = x[i];
}

// Batch normalisation of x [rows, channels], which is NHWC with the images' pixels as rows:
//
//     y = clamp((x - mean) * scale + beta),    scale = 1 / sqrt(variance + epsilon) * gamma
//
// and in training the mean and the biased variance of each channel, summed in float64 in two passes: the mean, then the
// squared distances from it, so that a large mean does not drown a small variance.
//
// Blocks have 32 channels and a piece of the rows (cuda/channels.cuh). The pieces are the same on every device, and so
// are sums to the last bit: each block leaves its own in `partial` [pieces, channels], and one block then adds those.

#include "cuda/channels.cuh"
#include "cuda/numbers.cuh"

// A piece of TILE_ROWS rows a block, so that a thread computes its channel's scale once for several values. gamma may
// be null, for 1; y may be x.
extern "C" __global__ void batch_norm(
    const float* x, const float* gamma, const float* beta, const float* mean, const float* variance,
    float epsilon, float low, float high, int rows, int channels, float* y)
{
    const Place place = place_in(channels);
    const int channel = place.channel;
    if (!place.is_inside)
        return;
    const float inverse = 1.0f / sqrtf(variance[channel] + epsilon);
    const float scale = gamma ? inverse * gamma[channel] : inverse;
    const float centre = mean[channel];
    const float shift = beta[channel];
    const long long first = (long long)place.piece * TILE_ROWS;
    const long long last = min(first + TILE_ROWS, (long long)rows);
    for (long long row = first + place.warp; row < last; row += WARPS) {
        const size_t i = row * channels + channel;
        y[i] = clamp((x[i] - centre) * scale + shift, low, high);
    }
}

// partial = the sums of x over pieces of PIECE_ROWS rows.
extern "C" __global__ void sum_values(
    const float* __restrict__ x, int rows, int channels, double* __restrict__ partial)
{
    const Place place = place_in(channels);
    const long long first = (long long)place.piece * PIECE_ROWS;
    const long long last = min(first + PIECE_ROWS, (long long)rows);
    const double sum = sum_over_rows(place, first, last, [&](size_t row) { return x[row * channels + place.channel]; });
    if (place.is_first)
        partial[(size_t)place.piece * channels + place.channel] = sum;
}

// partial = the sums of (x - mean)^2 over the same pieces.
extern "C" __global__ void sum_squares(
    const float* __restrict__ x, const double* __restrict__ mean, int rows, int channels,
    double* __restrict__ partial)
{
    const Place place = place_in(channels);
    const long long first = (long long)place.piece * PIECE_ROWS;
    const long long last = min(first + PIECE_ROWS, (long long)rows);
    const double centre = place.is_inside ? mean[place.channel] : 0.0;
    const double sum = sum_over_rows(place, first, last, [&](size_t row) {
        const double distance = x[row * channels + place.channel] - centre;
        return distance * distance;
    });
    if (place.is_first)
        partial[(size_t)place.piece * channels + place.channel] = sum;
}

// The partial sums of all pieces, divided by the number of rows: in float64, and rounded.
extern "C" __global__ void divide_sums(
    const double* __restrict__ partial, int pieces, int channels, int rows,
    double* __restrict__ wide, float* __restrict__ rounded)
{
    const Place place = place_in(channels);
    const double sum =
        sum_over_rows(place, 0, pieces, [&](size_t piece) { return partial[piece * channels + place.channel]; });
    if (place.is_first) {
        wide[place.channel] = sum / rows;
        rounded[place.channel] = sum / rows;
    }
}

// y = moving - (moving - batch) * rest, [channels]. These functions round each step, where * and - would become one
// fused multiply-add: so it is what TensorFlow computes, to the last bit.
extern "C" __global__ void moving_average(
    const float* __restrict__ moving, const float* __restrict__ batch, float rest, int channels, float* __restrict__ y)
{
    const int channel = blockIdx.x * blockDim.x + threadIdx.x;
    if (channel < channels)
        y[channel] = __fsub_rn(moving[channel], __fmul_rn(__fsub_rn(moving[channel], batch[channel]), rest));
}

// y = variance * correction, [channels].
extern "C" __global__ void unbiased(
    const float* __restrict__ variance, float correction, int channels, float* __restrict__ y)
{
    const int channel = blockIdx.x * blockDim.x + threadIdx.x;
    if (channel < channels)
        y[channel] = variance[channel] * correction;
}

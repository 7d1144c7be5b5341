// Global average pooling: y[n, c] = the mean of x[n, p, c] over the pixels p of an image, summed in float64.
//
// A block has 32 channels of one image; its warps share out the pixels (cuda/channels.cuh).

#include "cuda/channels.cuh"

extern "C" __global__ void spatial_mean(const float* __restrict__ x, int pixels, int channels, float* __restrict__ y)
{
    const Place place = place_in(channels);
    const size_t image = place.piece;
    x += image * pixels * channels;
    const double sum = sum_over_rows(place, 0, pixels, [&](size_t p) { return x[p * channels + place.channel]; });
    if (place.is_first)
        y[image * channels + place.channel] = sum / pixels;
}

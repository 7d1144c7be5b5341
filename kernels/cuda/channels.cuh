// A block that adds up rows of a matrix [rows, channels]: it has 32 neighbouring channels, one a lane, so that a warp
// reads 128 bytes side by side; its WARPS warps share out the rows.

struct Place {
    int piece;       // of the rows: blocks are numbered by piece, then by group of channels
    int warp;        // of the block
    int channel;     // of the thread
    bool is_inside;  // whether there is a channel of that number
    bool is_first;   // whether the thread is the one of its channel that writes sums
};

__device__ Place place_in(int channels)
{
    const int groups = (channels - 1) / 32 + 1;
    Place place;
    place.piece = blockIdx.x / groups;
    place.warp = threadIdx.x / 32;
    place.channel = blockIdx.x % groups * 32 + threadIdx.x % 32;
    place.is_inside = place.channel < channels;
    place.is_first = place.is_inside && place.warp == 0;
    return place;
}

// The warps' sums of each channel added up, always in the same order. Every thread of the block calls it, once.
__device__ double sum_over_warps(double sum)
{
    __shared__ double sums[WARPS][32];
    const int lane = threadIdx.x % 32;
    sums[threadIdx.x / 32][lane] = sum;
    __syncthreads();
    double total = 0.0;
    for (int warp = 0; warp < WARPS; ++warp)
        total += sums[warp][lane];
    return total;
}

// The sum of term(row) over rows [first, last), for the channel of each thread. Every thread calls it, once.
template <class Term>
__device__ double sum_over_rows(Place place, long long first, long long last, Term term)
{
    double sum = 0.0;
    if (place.is_inside)
        for (long long row = first + place.warp; row < last; row += WARPS)
            sum += term(row);
    return sum_over_warps(sum);
}

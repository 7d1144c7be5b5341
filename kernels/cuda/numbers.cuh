// low below low, high above high, else v: NaN stays NaN, as in every tier.
__device__ __forceinline__ float clamp(float v, float low, float high)
{
    return v < low ? low : v > high ? high : v;
}

// By value: so four is read at once, and with the alignment that takes, wherever it lies.
__device__ __forceinline__ void spread(float *to, float4 four)
{
    to[0] = four.x;
    to[1] = four.y;
    to[2] = four.z;
    to[3] = four.w;
}

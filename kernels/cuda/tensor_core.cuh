// What tensor cores do, one warp at a time: instructions of sm_80 and newer that CUDA C++ has no plain name for.
//
// An mma adds a product of small matrices to D [16, 8], which lies in the registers of a warp ("fragments"). Thread
// (group, member) = (lane / 4, lane % 4) holds
//
//     d[i] = D[group + 8 * (i / 2)][2 * member + i % 2]
//     a[i] = A[group + 8 * (i % 2)][member + 4 * (i / 2)]    of A [16, 8 words]
//     b[i] = B[member + 4 * i][group]                        of B [8 words, 8]
//
// where a word of 32 bits is one number of tf32, or two of bfloat16 that follow each other along k, the first below.
#ifndef __CUDA_EMU__  // the tests' compiler brings functions of these names that do the same on a CPU

// float32 to tf32, which has its exponent and 10 bits of mantissa: to nearest, ties away from zero.
__device__ __forceinline__ unsigned to_tf32(float value)
{
    unsigned word;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(word) : "f"(value));
    return word;
}

// Two of float32 to bfloat16, which has its exponent and 7 bits of mantissa: to nearest, ties to even.
__device__ __forceinline__ unsigned pack_bf16(float low, float high)
{
    unsigned word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
}

// d += a b, 8 deep.
__device__ __forceinline__ void mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2])
{
    // volatile: all threads of a warp must come to it, in no branch.
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// d += a b, 16 deep.
__device__ __forceinline__ void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#endif

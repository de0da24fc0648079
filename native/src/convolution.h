// oneDNN's 3-D convolution with both of its gradients. Knows nothing of XLA.
#pragma once

#include <array>
#include <cstdint>

namespace convolution {

enum class Result { kOutput, kInputGradient, kKernelGradient };

// A convolution and what is to be computed of it. Arrays lie in memory as JAX has them, the last
// axis the innermost; all are float32, or all are bfloat16 with sums in float32.
struct Call {
  Result result;  // which of the three arrays is written; the two others are read
  bool is_bfloat16;
  std::array<int64_t, 5> input_shape;   // [N, X, Y, Z, C]
  std::array<int64_t, 5> kernel_shape;  // [kx, ky, kz, C, D]
  std::array<int64_t, 5> output_shape;  // [N, X', Y', Z', D]
  std::array<int64_t, 3> strides;
  std::array<int64_t, 6> pads;  // low and high of X, of Y, of Z
  void* input;
  void* kernel;
  void* output;
};

// Computes a call and returns when it is done. Any thread may call this at any time.
// Throws dnnl::error.
void Compute(const Call& call);

// Returns whether the processor multiplies in bfloat16 (AVX512-BF16 or AMX).
bool HasBfloat16();

}  // namespace convolution

// The convolution as calls of XLA's foreign function interface.

#include <algorithm>
#include <string>

#include "convolution.h"
#include "oneapi/dnnl/dnnl.hpp"
#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;
using convolution::Result;

// Calls a convolution for two arrays that are read, in the order input, kernel, output, and one
// that is written.
template <Result result>
ffi::Error Call(ffi::AnyBuffer first, ffi::AnyBuffer second, ffi::Result<ffi::AnyBuffer> written,
                ffi::Span<const int64_t> strides, ffi::Span<const int64_t> pads) {
  ffi::AnyBuffer third = *written;
  ffi::AnyBuffer& input = result == Result::kInputGradient ? third : first;
  ffi::AnyBuffer& kernel = result == Result::kKernelGradient  ? third
                           : result == Result::kInputGradient ? first
                                                              : second;
  ffi::AnyBuffer& output = result == Result::kOutput ? third : second;
  if (strides.size() != 3 || pads.size() != 6 || input.dimensions().size() != 5 ||
      kernel.dimensions().size() != 5 || output.dimensions().size() != 5) {
    return ffi::Error::InvalidArgument("a convolution has five axes, of which three are of space");
  }
  convolution::Call call{};
  call.result = result;
  call.is_bfloat16 = input.element_type() == ffi::DataType::BF16;
  std::copy_n(input.dimensions().begin(), 5, call.input_shape.begin());
  std::copy_n(kernel.dimensions().begin(), 5, call.kernel_shape.begin());
  std::copy_n(output.dimensions().begin(), 5, call.output_shape.begin());
  std::copy_n(strides.begin(), 3, call.strides.begin());
  std::copy_n(pads.begin(), 6, call.pads.begin());
  call.input = input.untyped_data();
  call.kernel = kernel.untyped_data();
  call.output = output.untyped_data();
  try {
    convolution::Compute(call);
  } catch (const std::exception& error) {
    return ffi::Error::Internal(std::string("oneDNN: ") + error.what());
  }
  return ffi::Error::Success();
}

auto Bind() {
  return ffi::Ffi::Bind()
      .Arg<ffi::AnyBuffer>()
      .Arg<ffi::AnyBuffer>()
      .Ret<ffi::AnyBuffer>()
      .Attr<ffi::Span<const int64_t>>("strides")
      .Attr<ffi::Span<const int64_t>>("pads");
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(ComputeOutput, Call<Result::kOutput>, Bind());
XLA_FFI_DEFINE_HANDLER_SYMBOL(ComputeInputGradient, Call<Result::kInputGradient>, Bind());
XLA_FFI_DEFINE_HANDLER_SYMBOL(ComputeKernelGradient, Call<Result::kKernelGradient>, Bind());

extern "C" bool HasBfloat16() { return convolution::HasBfloat16(); }

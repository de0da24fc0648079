// Calls convolutions from many threads at once, of more shapes than plans are kept for, and compares
// their results with those of a single thread. Built with -fsanitize=thread by `make native-races`.

#include <atomic>
#include <cstdio>
#include <thread>
#include <vector>

#include "convolution.h"

namespace {

constexpr int kThreads = 8, kShapes = 600, kChannels = 4;

std::vector<float> Convolve(int length) {
  std::vector<float> input(4 * 4 * length * kChannels), kernel(27 * kChannels * kChannels);
  std::vector<float> output(input.size());
  for (size_t i = 0; i < input.size(); ++i) input[i] = static_cast<float>(i % 7);
  for (size_t i = 0; i < kernel.size(); ++i) kernel[i] = static_cast<float>(i % 5);
  convolution::Call call{};
  call.result = convolution::Result::kOutput;
  call.input_shape = call.output_shape = {1, 4, 4, length, kChannels};
  call.kernel_shape = {3, 3, 3, kChannels, kChannels};
  call.strides = {1, 1, 1};
  call.pads = {1, 1, 1, 1, 1, 1};
  call.input = input.data();
  call.kernel = kernel.data();
  call.output = output.data();
  convolution::Compute(call);
  return output;
}

}  // namespace

int main() {
  std::vector<std::vector<float>> expected;
  for (int i = 0; i < kShapes; ++i) expected.push_back(Convolve(i + 1));
  std::atomic<int> faults{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      // Each begins elsewhere, so that different shapes meet.
      for (int i = 0; i < kShapes; ++i) {
        const int shape = (i + t * kShapes / kThreads) % kShapes;
        faults += Convolve(shape + 1) != expected[shape];
      }
    });
  }
  for (auto& thread : threads) thread.join();
  std::printf("%d threads, %d shapes: %d wrong results\n", kThreads, kShapes, faults.load());
  return faults != 0;
}

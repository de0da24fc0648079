#include "convolution.h"

#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <map>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "oneapi/dnnl/dnnl.hpp"

namespace convolution {
namespace {

using dnnl::memory;
using tag = memory::format_tag;

// A network has about 20 convolutions of three primitives each, for each shape of its patches.
constexpr size_t kMostPlans = 512;

// One thread that computes all calls, one after the other. XLA calls from as many threads as there
// are cores; OpenMP would keep a team of threads for each of them, and all teams would compete for
// the cores. What only this thread touches needs no lock.
class ComputeThread {
 public:
  ComputeThread() { std::thread(&ComputeThread::Loop, this).detach(); }

  // Runs a task on the thread and waits for it. Throws what the task throws.
  void Run(std::function<void()> task) {
    std::packaged_task<void()> work(std::move(task));
    std::future<void> done = work.get_future();
    {
      std::lock_guard<std::mutex> guard(mutex_);
      tasks_.push_back(std::move(work));
    }
    has_tasks_.notify_one();
    done.get();
  }

 private:
  void Loop() {
    while (true) {
      std::unique_lock<std::mutex> guard(mutex_);
      has_tasks_.wait(guard, [this] { return !tasks_.empty(); });
      std::packaged_task<void()> work = std::move(tasks_.front());
      tasks_.pop_front();
      guard.unlock();
      work();
    }
  }

  std::mutex mutex_;
  std::condition_variable has_tasks_;
  std::deque<std::packaged_task<void()>> tasks_;
};

// What oneDNN prepares for calls that differ in their data alone.
struct Plan {
  dnnl::primitive primitive;
  memory::desc input, kernel, output;
  memory::desc blocked_kernel;  // the order of the kernel that the primitive wants
};

const dnnl::engine& Engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

Plan MakePlan(const Call& call) {
  const auto& [n, X, Y, Z, channels] = call.input_shape;
  const auto& [kx, ky, kz, kernel_channels, features] = call.kernel_shape;
  const auto& [m, U, V, W, output_features] = call.output_shape;
  const auto type = call.is_bfloat16 ? memory::data_type::bf16 : memory::data_type::f32;
  // oneDNN names the axes of activations N, C, X, Y, Z and those of kernels D, C, x, y, z.
  const memory::desc input({n, channels, X, Y, Z}, type, tag::ndhwc);
  const memory::desc output({m, output_features, U, V, W}, type, tag::ndhwc);
  const memory::dims kernel_dims{features, kernel_channels, kx, ky, kz};
  const memory::desc kernel(kernel_dims, type, tag::dhwio), any(kernel_dims, type, tag::any);
  const memory::dims strides(call.strides.begin(), call.strides.end());
  const memory::dims low{call.pads[0], call.pads[2], call.pads[4]};
  const memory::dims high{call.pads[1], call.pads[3], call.pads[5]};
  dnnl::primitive_attr attributes;
  attributes.set_fpmath_mode(dnnl::fpmath_mode::strict);  // whatever the environment says
  const auto direct = dnnl::algorithm::convolution_direct;
  const dnnl::convolution_forward::primitive_desc forward(
      Engine(), dnnl::prop_kind::forward_training, direct, input, any, output, strides, low, high,
      attributes);
  switch (call.result) {
    case Result::kOutput:
      return {dnnl::convolution_forward(forward), input, kernel, output, forward.weights_desc()};
    case Result::kInputGradient: {
      const dnnl::convolution_backward_data::primitive_desc backward(
          Engine(), direct, input, any, output, strides, low, high, forward, attributes);
      return {dnnl::convolution_backward_data(backward), input, kernel, output,
              backward.weights_desc()};
    }
    case Result::kKernelGradient: {
      const dnnl::convolution_backward_weights::primitive_desc backward(
          Engine(), direct, input, any, output, strides, low, high, forward, attributes);
      return {dnnl::convolution_backward_weights(backward), input, kernel, output,
              backward.diff_weights_desc()};
    }
  }
  throw std::logic_error("no such result");
}

const Plan& FindPlan(const Call& call) {
  static std::map<std::vector<int64_t>, Plan> plans;
  std::vector<int64_t> key{static_cast<int64_t>(call.result), call.is_bfloat16};
  key.insert(key.end(), call.input_shape.begin(), call.input_shape.end());
  key.insert(key.end(), call.kernel_shape.begin(), call.kernel_shape.end());
  key.insert(key.end(), call.output_shape.begin(), call.output_shape.end());
  key.insert(key.end(), call.strides.begin(), call.strides.end());
  key.insert(key.end(), call.pads.begin(), call.pads.end());
  const auto found = plans.find(key);
  if (found != plans.end()) return found->second;
  // Scans of many sizes would fill memory with plans. A network makes its own again in a step.
  if (plans.size() == kMostPlans) plans.clear();
  return plans.emplace(std::move(key), MakePlan(call)).first->second;
}

void Execute(const Call& call) {
  const Plan& plan = FindPlan(call);
  dnnl::stream stream(Engine());
  memory input(plan.input, Engine(), call.input);
  memory kernel(plan.kernel, Engine(), call.kernel);
  memory output(plan.output, Engine(), call.output);
  const bool is_kernel_written = call.result == Result::kKernelGradient;
  const bool is_blocked = plan.blocked_kernel != plan.kernel;
  memory own_kernel = is_blocked ? memory(plan.blocked_kernel, Engine()) : kernel;
  if (is_blocked && !is_kernel_written) {
    dnnl::reorder(kernel, own_kernel).execute(stream, kernel, own_kernel);
  }
  plan.primitive.execute(
      stream,
      {{call.result == Result::kInputGradient ? DNNL_ARG_DIFF_SRC : DNNL_ARG_SRC, input},
       {is_kernel_written ? DNNL_ARG_DIFF_WEIGHTS : DNNL_ARG_WEIGHTS, own_kernel},
       {call.result == Result::kOutput ? DNNL_ARG_DST : DNNL_ARG_DIFF_DST, output}});
  if (is_blocked && is_kernel_written) {
    dnnl::reorder(own_kernel, kernel).execute(stream, own_kernel, kernel);
  }
  stream.wait();
}

}  // namespace

void Compute(const Call& call) {
  // Never destroyed: at the end of the process its thread still waits for tasks.
  static ComputeThread& thread = *new ComputeThread;
  thread.Run([&call] { Execute(call); });
}

bool HasBfloat16() {
  const auto isa = dnnl::get_effective_cpu_isa();
  return isa == dnnl::cpu_isa::avx512_core_bf16 || isa == dnnl::cpu_isa::avx512_core_fp16 ||
         isa == dnnl::cpu_isa::avx512_core_amx || isa == dnnl::cpu_isa::avx512_core_amx_fp16;
}

}  // namespace convolution

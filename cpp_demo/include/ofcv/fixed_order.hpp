#pragma once

#include <ATen/Context.h>

#include <mutex>

namespace ofcv {

/// How operators add on CUDA: always in the same order, so that the same input gives the same bits,
/// or with atomics, in whatever order the threads come. On the CPU the order is always the same.
enum class Sums { fixed_order, atomics };

namespace detail {

/// Switches LibTorch's deterministic algorithms on while any of these lives. They are a setting of
/// the whole process; one that the program made itself is left alone.
class FixedOrder {
 public:
  explicit FixedOrder(bool wanted) : is_wanted_(wanted) {
    if (!is_wanted_) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    at::Context& context = at::globalContext();
    if (n_living_++ > 0 || context.deterministicAlgorithms()) return;
    fills_ = context.deterministicFillUninitializedMemory();
    warns_ = context.deterministicAlgorithmsWarnOnly();
    context.setDeterministicFillUninitializedMemory(false);
    context.setDeterministicAlgorithms(true, /*warn_only=*/true);
    is_ours_ = true;
  }
  ~FixedOrder() {
    if (!is_wanted_) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    if (--n_living_ > 0 || !is_ours_) return;
    at::globalContext().setDeterministicAlgorithms(false, warns_);
    at::globalContext().setDeterministicFillUninitializedMemory(fills_);
    is_ours_ = false;
  }
  FixedOrder(const FixedOrder&) = delete;
  FixedOrder& operator=(const FixedOrder&) = delete;

 private:
  inline static std::mutex mutex_;
  inline static int n_living_ = 0;
  inline static bool is_ours_ = false;
  inline static bool fills_ = true;
  inline static bool warns_ = false;
  bool is_wanted_;
};

}  // namespace detail

}  // namespace ofcv

#pragma once

#include <ATen/Parallel.h>
#include <dlfcn.h>

namespace ofcv::detail {

/// The calling thread's number of OpenMP threads, or LibTorch's where the process has no OpenMP.
/// LibTorch sets that number the first time it is used in a thread, so it is asked for before that,
/// and by name: neither the headers nor the engine need OpenMP to be compiled.
inline int present_thread_count() {
  static const auto openmp =
      reinterpret_cast<int (*)()>(::dlsym(RTLD_DEFAULT, "omp_get_max_threads"));
  const int number = openmp ? openmp() : 0;
  const int of_libtorch = at::get_num_threads();
  return openmp ? number : of_libtorch;
}

/// Lets LibTorch use a number of threads for a while, and then gives the engine its own back; 0
/// leaves all to LibTorch. A thread that uses LibTorch for the first time meanwhile starts with
/// this number.
class ThreadCount {
 public:
  explicit ThreadCount(int number) : before_(number > 0 ? present_thread_count() : 0) {
    set(number);
  }
  ~ThreadCount() { set(before_); }
  ThreadCount(const ThreadCount&) = delete;
  ThreadCount& operator=(const ThreadCount&) = delete;

 private:
  static void set(int number) {
    if (number > 0 && number != at::get_num_threads()) at::set_num_threads(number);
  }

  int before_;
};

}  // namespace ofcv::detail

#pragma once

#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/script.h>

#include <vector>

#include "ofcv/archive.hpp"
#include "ofcv/graph.hpp"

namespace ofcv {

/// Loads a TorchScript archive. The graph runs as it was written: LibTorch's profiling executor is
/// switched off for the duration of a call, in this thread only. It spends 35 ms on recompiling in
/// the first calls and gains nothing afterwards on graphs of a handful of operations.
inline Graph load_torchscript(const Archive& archive, c10::Device device) {
  torch::jit::Module module = torch::jit::load(archive.file(), device);
  module.eval();
  return [forward = module.get_method("forward")](const std::vector<at::Tensor>& inputs) {
    const torch::jit::GraphOptimizerEnabledGuard without_profiling(false);
    const c10::IValue result = forward({inputs.begin(), inputs.end()});
    std::vector<at::Tensor> results;
    if (result.isTensor()) {
      results.push_back(result.toTensor());
    } else {
      for (const c10::IValue& element : result.toTupleRef().elements()) {
        results.push_back(element.toTensor());
      }
    }
    return results;
  };
}

}  // namespace ofcv

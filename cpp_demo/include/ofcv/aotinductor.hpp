#pragma once

#include <algorithm>
#include <filesystem>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "ofcv/archive.hpp"
#include "ofcv/error.hpp"
#include "ofcv/graph.hpp"
#include "ofcv/internal/temporary_folder.hpp"
#include "ofcv/machine.hpp"

#if OFCV_HAS_AOTINDUCTOR
#include <torch/csrc/inductor/aoti_runner/model_container_runner.h>
#include <torch/csrc/inductor/aoti_runner/model_container_runner_cpu.h>
#include <torch/csrc/inductor/aoti_torch/utils.h>
#endif

namespace ofcv {

namespace detail {

#if OFCV_HAS_AOTINDUCTOR
/// Compiled code for the CPU, called without the detours of LibTorch's runner, which cost a third
/// of a microsecond.
class CpuCode : public torch::inductor::AOTIModelContainerRunnerCpu {
 public:
  explicit CpuCode(const std::string& library) : AOTIModelContainerRunnerCpu(library, 1, true) {
    if (get_num_outputs_func_(container_handle_, &n_outputs_) != AOTI_RUNTIME_SUCCESS) {
      throw std::runtime_error("the number of outputs is unknown");
    }
    align_weights();
  }

  /// Takes contiguous inputs.
  std::vector<at::Tensor> run(const std::vector<at::Tensor>& inputs) {
    // A handle is a tensor on the heap. The code deletes those of the inputs; those of the outputs
    // are ours to delete.
    std::vector<AtenTensorHandle> handles(inputs.size() + n_outputs_);
    std::transform(inputs.begin(), inputs.end(), handles.begin(), [](const at::Tensor& input) {
      return torch::aot_inductor::tensor_pointer_to_tensor_handle(new at::Tensor(input));
    });
    AtenTensorHandle* outputs = handles.data() + inputs.size();
    if (run_func_(container_handle_, handles.data(), inputs.size(), outputs, n_outputs_, nullptr,
                  proxy_executor_handle_) != AOTI_RUNTIME_SUCCESS) {
      throw std::runtime_error(last_error(*this));
    }
    std::vector<at::Tensor> results(n_outputs_);
    for (std::size_t i = 0; i < n_outputs_; ++i) {
      results[i] = *torch::aot_inductor::tensor_handle_to_tensor_pointer(outputs[i]);
    }
    // Two outputs may be one and the same handle.
    std::sort(outputs, outputs + n_outputs_);
    AtenTensorHandle* end = std::unique(outputs, outputs + n_outputs_);
    for (AtenTensorHandle* output = outputs; output != end; ++output) {
      delete torch::aot_inductor::tensor_handle_to_tensor_pointer(*output);
    }
    return results;
  }

 private:
  // LibTorch 2.11 keeps no reason: it writes it to the standard error.
  template <typename Runner>
  static const char* last_error(const Runner& runner) {
    const char* reason = "no reason given";
    if constexpr (requires { runner.get_last_error_func_; }) {
      if (runner.get_last_error_func_ != nullptr) runner.get_last_error_func_(&reason);
    }
    return reason;
  }

  // The code keeps its weights at an address that vector instructions are slow to read from.
  // LibTorch's arrays start at a multiple of 64 bytes; a step of 50 atoms gains a tenth. The code's
  // own copy stays, so weights take their memory twice.
  void align_weights() {
    constexpr bool use_inactive = false, validate_full_update = true, user_managed = true;
    // Weights come out under their names in the graph, and go in under those in the code.
    const auto weights = extract_constants_map(use_inactive);
    for (const auto& [name, name_in_graph] : getConstantNamesToOriginalFQNs()) {
      const auto found = weights.find(name_in_graph);
      if (found == weights.end()) continue;
      const at::Tensor& old = found->second;
      // The code knows the strides: they stay what they are, which clone() does not promise.
      weights_[name] = at::empty_strided(old.sizes(), old.strides(), old.options()).copy_(old);
    }
    if (!weights_.empty()) {
      update_constant_buffer(weights_, use_inactive, validate_full_update, user_managed);
    }
  }

  std::size_t n_outputs_ = 0;
  std::unordered_map<std::string, at::Tensor> weights_;
};

/// Compiled code behind a lock of ours, which is faster than LibTorch's own synchronisation. It
/// takes every input to be contiguous.
template <typename Run>
Graph locked(Run run) {
  return [run, mutex = std::make_shared<std::mutex>()](const std::vector<at::Tensor>& inputs) {
    std::vector<at::Tensor> tensors;
    tensors.reserve(inputs.size());
    for (const at::Tensor& input : inputs) tensors.push_back(input.contiguous());
    const std::lock_guard<std::mutex> lock(*mutex);
    return run(std::move(tensors));
  };
}

inline Graph compiled_code(const std::string& library, c10::Device device) {
  if (device.is_cpu()) {
    return locked([code = std::make_shared<CpuCode>(library)](std::vector<at::Tensor>&& inputs) {
      return code->run(inputs);
    });
  }
  constexpr bool single_threaded = true;
  const auto create = torch::inductor::getAOTIModelRunnerRegistry().at("cuda");
  std::shared_ptr code = create(library, 1, device.str(), "", single_threaded);
  return locked(
      [code](std::vector<at::Tensor>&& inputs) { return code->boxed_run(std::move(inputs)); });
}
#endif

}  // namespace detail

/// Loads the compiled code of a package. It is unpacked from the archive that was checked, and
/// removed from the disk again as soon as it is mapped into memory: nothing is left behind, not
/// even by a process that is killed.
inline Graph load_aotinductor(Archive& archive, [[maybe_unused]] c10::Device device) {
  static constexpr const char* prefix = "data/aotinductor/model/";
  static constexpr const char* library = "model.wrapper.so";
  if (!archive.contains(std::string(prefix) + library)) {
    throw archive.foreign("no compiled code in the archive");
  }
#if OFCV_HAS_AOTINDUCTOR
  const detail::TemporaryFolder folder;
  for (const std::string& name : archive.names()) {
    if (name.starts_with(prefix)) {
      folder.write(std::filesystem::path(name).filename(), archive.read(name));
    }
  }
  return detail::compiled_code(folder.path_of(library), device);
#else
  throw Error("model", "LibTorch 2.11 or later for a .pt2 file", TORCH_VERSION);
#endif
}

}  // namespace ofcv

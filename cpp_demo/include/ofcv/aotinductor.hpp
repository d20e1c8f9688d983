#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <mutex>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "ofcv/archive.hpp"
#include "ofcv/error.hpp"
#include "ofcv/graph.hpp"
#include "ofcv/machine.hpp"

#if OFCV_HAS_AOTINDUCTOR
#include <torch/csrc/inductor/aoti_runner/model_container_runner.h>
#endif

namespace ofcv {

namespace detail {

/// A folder of its own among the temporary files (see TMPDIR), removed at the end.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "ofcv-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) {
      throw Error("model", "a folder for temporary files", "none to be had as '" + name + "'");
    }
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code busy;
    std::filesystem::remove_all(path_, busy);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  void write(const std::string& name, const std::string& content) const {
    std::ofstream stream(path_ / name, std::ios::binary);
    stream.write(content.data(), static_cast<std::streamsize>(content.size()));
    stream.close();
    if (!stream) {
      throw Error("model", "room for temporary files", "none in '" + path_.string() + "'");
    }
  }

  std::string path_of(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

#if OFCV_HAS_AOTINDUCTOR
/// LibTorch's runner of compiled code, without its own synchronisation: a lock of ours is faster.
class CompiledCode {
 public:
  CompiledCode(const std::string& library, c10::Device device) : state_(std::make_shared<State>()) {
    const auto& runners = torch::inductor::getAOTIModelRunnerRegistry();
    const auto create = runners.at(device.is_cpu() ? "cpu" : "cuda");
    constexpr bool single_threaded = true;
    state_->runner = create(library, 1, device.str(), "", single_threaded);
  }

  std::vector<at::Tensor> operator()(const std::vector<at::Tensor>& inputs) const {
    // Compiled code takes every input to be contiguous.
    std::vector<at::Tensor> tensors;
    tensors.reserve(inputs.size());
    for (const at::Tensor& input : inputs) tensors.push_back(input.contiguous());
    const std::lock_guard<std::mutex> lock(state_->mutex);
    return state_->runner->boxed_run(std::move(tensors));
  }

 private:
  struct State {
    std::mutex mutex;
    std::unique_ptr<torch::inductor::AOTIModelContainerRunner> runner;
  };

  std::shared_ptr<State> state_;
};
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
  return detail::CompiledCode(folder.path_of(library), device);
#else
  throw Error("model", "LibTorch 2.13 or later for a .pt2 file", TORCH_VERSION);
#endif
}

}  // namespace ofcv

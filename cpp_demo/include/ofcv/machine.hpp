#pragma once

#include <c10/core/Device.h>
#include <torch/cuda.h>
#include <torch/version.h>

#include <set>
#include <sstream>
#include <string>

#include "ofcv/error.hpp"
#include "ofcv/metadata.hpp"

/// Whether this LibTorch can run compiled artifacts: 2.11 is the oldest that was tried.
#define OFCV_HAS_AOTINDUCTOR (TORCH_VERSION_MAJOR > 2 || TORCH_VERSION_MINOR >= 11)

#if OFCV_HAS_AOTINDUCTOR
#include <ATen/cpu/Utils.h>
#endif

namespace ofcv {

/// What this CPU has, as PyTorch names it, e.g. `x86_64`, `avx2`, `fma3`.
inline std::set<std::string> cpu_features() {
  std::set<std::string> features;
#if OFCV_HAS_AOTINDUCTOR
  for (const auto& [name, value] : at::cpu::get_cpu_capabilities()) {
    if (value.isString()) {
      features.insert(value.toStringRef());
    } else if (value.isInt()) {
      features.insert(name + "=" + std::to_string(value.toInt()));
    } else if (value.isBool() && value.toBool()) {
      features.insert(name);
    }
  }
#endif
  return features;
}

/// Throws unless a compiled artifact can run here, on `device`, with this LibTorch.
inline void require_this_machine(const Metadata& metadata, c10::Device device) {
  const std::string ours =
      std::to_string(TORCH_VERSION_MAJOR) + "." + std::to_string(TORCH_VERSION_MINOR);
  const auto torch = metadata.versions.find("torch");
  const std::string version = torch == metadata.versions.end() ? "none" : torch->second;
  const std::string theirs = version.substr(0, version.find('.', version.find('.') + 1));
  if (theirs != ours) {
    throw Error("model", "an artifact compiled by PyTorch " + ours,
                "one compiled by PyTorch " + theirs);
  }
  const bool has_cuda = torch::cuda::is_available();
  if (metadata.device != "cpu" && !(metadata.device == "cuda" && has_cuda)) {
    throw Error("model", has_cuda ? "an artifact for cpu or cuda" : "an artifact for cpu",
                "one for " + metadata.device);
  }
  const std::set<std::string> here = cpu_features();
  std::istringstream needed(metadata.instruction_set.value_or(""));
  std::string missing;
  for (std::string name; needed >> name;) {
    if (!here.contains(name)) missing += " " + name;
  }
  if (!missing.empty()) {
    throw Error("model", "an artifact for this CPU", "one that needs" + missing);
  }
  if (metadata.device != (device.is_cpu() ? "cpu" : "cuda")) {
    throw Error("device", metadata.device + ", for which the artifact was compiled",
                "'" + device.str() + "'");
  }
}

}  // namespace ofcv

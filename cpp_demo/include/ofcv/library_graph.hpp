#pragma once

#include <ATen/ATen.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ofcv/error.hpp"
#include "ofcv/graph.hpp"
#include "ofcv/library.hpp"
#include "ofcv/validation.hpp"

namespace ofcv {

/// A library as a graph on LibTorch's tensors; the CPU's alone.
inline Graph load_library(std::shared_ptr<const Library> library, c10::Device device) {
  if (!device.is_cpu()) throw Error("device", "cpu for a .so file", "'" + device.str() + "'");
  return [library](const std::vector<at::Tensor>& inputs) {
    std::vector<at::Tensor> tensors, results;
    std::vector<const void*> given;
    std::vector<void*> places;
    for (const at::Tensor& input : inputs) {
      given.push_back(tensors.emplace_back(input.contiguous()).const_data_ptr());
    }
    Symbols symbols;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const auto sizes = inputs[i].sizes();
      const TensorSpec& spec = library->metadata().inputs[i];
      symbols.require_shape(spec, {sizes.data(), sizes.size()});
      if (Symbols::are_told_by(spec)) {
        const auto* entries = tensors[i].const_data_ptr<std::int64_t>();
        symbols.note_entries(spec, std::span(entries, static_cast<std::size_t>(inputs[i].numel())));
      }
    }
    const std::vector<std::int64_t> free = library->free_sizes(symbols);
    for (const TensorSpec& spec : library->metadata().outputs) {
      const Shape sizes = symbols.sizes(spec);
      const auto type = spec.dtype == DType::float64 ? at::kDouble : at::kFloat;
      places.push_back(results.emplace_back(at::empty(sizes, type)).mutable_data_ptr());
    }
    library->call(free.data(), given.data(), places.data());
    return results;
  };
}

}  // namespace ofcv

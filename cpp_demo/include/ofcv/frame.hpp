#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "ofcv/model.hpp"

namespace ofcv {

/// An artifact that is called with one frame after another. Inputs and outputs stay in memory of
/// the artifact's own dtype: converting them in LibTorch would take longer than a small network.
class Frame {
 public:
  /// Arguments as for Model.
  Frame(const std::string& path, const std::string& device, int threads)
      : model_(path, device, threads) {
    const Metadata& metadata = model_.metadata();
    if (metadata.inputs.at(0).dtype == DType::float64) {
      memory_.emplace<Memory<double>>(metadata);
    } else {
      memory_.emplace<Memory<float>>(metadata);
    }
  }

  const Metadata& metadata() const { return model_.metadata(); }

  /// Number of values of an input.
  std::size_t input_size(std::size_t index) const {
    return std::visit([&](const auto& memory) { return memory.input_values[index].size(); },
                      memory_);
  }

  void set_input(std::size_t index, std::span<const double> values) {
    std::visit([&](auto& memory) { std::ranges::copy(values, memory.input_values[index].begin()); },
               memory_);
  }

  void evaluate() {
    std::visit([&](auto& memory) { model_.evaluate(memory.inputs, memory.outputs); }, memory_);
  }

  std::vector<double> output(std::size_t index) const {
    return std::visit(
        [&](const auto& memory) {
          const auto& values = memory.output_values[index];
          return std::vector<double>(values.begin(), values.end());
        },
        memory_);
  }

 private:
  template <typename T>
  struct Memory {
    Memory() = default;
    explicit Memory(const Metadata& metadata) {
      for (const TensorSpec& spec : metadata.inputs) {
        input_values.emplace_back(count(shape(spec)));
        inputs.emplace_back(input_values.back().data(), shape(spec));
      }
      for (const TensorSpec& spec : metadata.outputs) {
        output_values.emplace_back(count(shape(spec)));
        outputs.emplace_back(output_values.back().data(), shape(spec));
      }
    }

    std::vector<std::vector<T>> input_values, output_values;
    std::vector<View> inputs;
    std::vector<MutableView> outputs;
  };

  /// The only free size of a collective variable is its number of frames.
  static Shape shape(const TensorSpec& spec) {
    Shape sizes;
    for (const Dimension& dimension : spec.shape) {
      sizes.push_back(dimension.is_symbolic() ? 1 : dimension.size);
    }
    return sizes;
  }

  Model model_;
  std::variant<Memory<float>, Memory<double>> memory_;
};

}  // namespace ofcv

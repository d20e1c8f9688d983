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
/// the artifact's own dtypes: converting them in LibTorch would take longer than a small network.
class Frame {
 public:
  /// Arguments as for Model.
  Frame(const std::string& path, const std::string& device, int threads)
      : model_(path, device, threads),
        inputs_(memory_for(metadata().inputs)),
        outputs_(memory_for(metadata().outputs)),
        input_views_(views<View>(metadata().inputs, inputs_)),
        output_views_(views<MutableView>(metadata().outputs, outputs_)) {}

  const Metadata& metadata() const { return model_.metadata(); }

  void set_input(std::size_t index, std::span<const double> values) {
    const auto copy = [&](auto& input) {
      if (values.size() != input.size()) {
        const std::int64_t got[] = {static_cast<std::int64_t>(values.size())};
        const TensorSpec& spec = metadata().inputs[index];
        throw Error(spec.name, "shape " + shape_text(spec.shape), tuple_text(got));
      }
      std::ranges::copy(values, input.begin());
    };
    std::visit(copy, inputs_.at(index));
  }

  void evaluate() { model_.evaluate(input_views_, output_views_); }

  std::vector<double> output(std::size_t index) const {
    const auto copy = [](const auto& output) {
      return std::vector<double>(output.begin(), output.end());
    };
    return std::visit(copy, outputs_.at(index));
  }

  /// Number of values of each output.
  std::vector<std::size_t> output_sizes() const {
    std::vector<std::size_t> sizes;
    for (const Memory& output : outputs_) {
      sizes.push_back(std::visit([](const auto& values) { return values.size(); }, output));
    }
    return sizes;
  }

 private:
  using Memory = std::variant<std::vector<float>, std::vector<double>>;

  /// The only free size of a collective variable is its number of frames.
  static Shape shape(const TensorSpec& spec) {
    Shape sizes;
    for (const Dimension& dimension : spec.shape) {
      sizes.push_back(dimension.is_symbolic() ? 1 : dimension.size);
    }
    return sizes;
  }

  static std::vector<Memory> memory_for(const std::vector<TensorSpec>& specs) {
    std::vector<Memory> memory;
    for (const TensorSpec& spec : specs) {
      const auto size = static_cast<std::size_t>(count(shape(spec)));
      if (spec.dtype == DType::float32) {
        memory.emplace_back(std::vector<float>(size));
      } else {
        memory.emplace_back(std::vector<double>(size));
      }
    }
    return memory;
  }

  template <typename AnyView>
  static std::vector<AnyView> views(const std::vector<TensorSpec>& specs,
                                    std::vector<Memory>& memory) {
    std::vector<AnyView> views;
    for (std::size_t i = 0; i < specs.size(); ++i) {
      std::visit([&](auto& values) { views.emplace_back(values.data(), shape(specs[i])); },
                 memory[i]);
    }
    return views;
  }

  Model model_;
  std::vector<Memory> inputs_, outputs_;
  std::vector<View> input_views_;
  std::vector<MutableView> output_views_;
};

}  // namespace ofcv

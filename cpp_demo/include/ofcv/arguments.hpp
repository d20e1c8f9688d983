#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "ofcv/box.hpp"
#include "ofcv/dtype.hpp"
#include "ofcv/elements.hpp"
#include "ofcv/error.hpp"
#include "ofcv/lattice.hpp"
#include "ofcv/metadata.hpp"
#include "ofcv/validation.hpp"
#include "ofcv/view.hpp"

namespace ofcv {

/// Which checks a call makes. Number, shapes and dtypes of the tensors are always checked;
/// `all` also refuses NaN, infinities, integers out of range and a `box` that is none, which reads
/// every input once, and copies it to the host first where it is on CUDA. With `shapes_only` an
/// index out of range is undefined behaviour on CUDA.
enum class Checks { all, shapes_only };

namespace detail {

inline void require_number(const char* what, const std::vector<TensorSpec>& specs,
                           std::size_t number) {
  if (number == specs.size()) return;
  std::string names;
  for (const TensorSpec& spec : specs) names += (names.empty() ? "" : ", ") + spec.name;
  throw Error(what, std::to_string(specs.size()) + " tensors (" + names + ")",
              std::to_string(number));
}

template <typename AnyView>
void require_view(const TensorSpec& spec, const AnyView& view, Symbols& symbols) {
  symbols.require_shape(spec, view.shape);
  if (is_floating(view.dtype) != is_floating(spec.dtype)) {
    throw Error(spec.name,
                is_floating(spec.dtype) ? "dtype float32 or float64" : "dtype int64 or int32",
                dtype_name(view.dtype));
  }
  if (view.data == nullptr && count(view.shape) > 0) {
    throw Error(spec.name, "a pointer to " + std::to_string(count(view.shape)) + " values",
                "a null pointer");
  }
}

/// Throws at the first integer that is not among the choices; elements are called by their symbols.
template <typename T>
void require_choice(const TensorSpec& spec, const T* data, std::int64_t size) {
  const std::vector<std::int64_t>& choices = *spec.choices;
  for (std::int64_t i = 0; i < size; ++i) {
    if (std::ranges::find(choices, data[i]) != choices.end()) continue;
    if (spec.name == "elements") throw unknown_element(choices, symbol_of(data[i]), i);
    std::vector<std::int64_t> ascending = choices;
    std::ranges::sort(ascending);
    std::string expected;
    for (const std::int64_t choice : ascending) {
      expected += (expected.empty() ? "" : " or ") + std::to_string(choice);
    }
    throw Error(spec.name, expected, std::to_string(data[i]) + " at position " + std::to_string(i));
  }
}

/// Throws unless integers lie in the range of `spec`, or are among its choices.
template <typename T>
void require_range(const TensorSpec& spec, const T* data, std::span<const std::int64_t> sizes,
                   const Symbols& symbols) {
  if (spec.choices) return require_choice(spec, data, count(sizes));
  if (!spec.low || !spec.high) return;
  const bool is_free = spec.high->is_symbolic();
  const std::int64_t high = is_free ? symbols.size(spec.high->symbol) : spec.high->size;
  require_in_range(spec.name, data, count(sizes), *spec.low, high);
}

/// Sets the size that the entries of an input tell, if they tell any. Throws if they are out of
/// range.
inline void note_entries(const TensorSpec& spec, const View& view, Symbols& symbols) {
  if (!Symbols::are_told_by(spec)) return;
  const auto noted = [&]<typename T>(const T* entries) {
    require_range(spec, entries, view.shape, symbols);
    symbols.note_entries(spec, std::span(entries, static_cast<std::size_t>(count(view.shape))));
  };
  if (view.dtype == DType::int32) noted(static_cast<const std::int32_t*>(view.data));
  if (view.dtype == DType::int64) noted(static_cast<const std::int64_t*>(view.data));
}

/// Throws unless the values, in the dtype of `spec`, are such as it takes. `symbols` holds the
/// sizes of the inputs up to this one.
inline void require_values(const TensorSpec& spec, const void* data,
                           std::span<const std::int64_t> sizes, BoxRule rule,
                           const Symbols& symbols) {
  const auto numbers = [&](const auto* values) {
    require_finite(spec.name, values, sizes);
    if (spec.name != "box" || count(sizes) != 9) return;
    const bool is_none = std::all_of(values, values + 9, [](auto entry) { return entry == 0; });
    if (rule == BoxRule::optional && is_none) return;
    require_box(lattice_from(values), rule == BoxRule::orthorhombic);
  };
  if (spec.dtype == DType::float32) numbers(static_cast<const float*>(data));
  if (spec.dtype == DType::float64) numbers(static_cast<const double*>(data));
  if (spec.dtype == DType::int32)
    require_range(spec, static_cast<const std::int32_t*>(data), sizes, symbols);
  if (spec.dtype == DType::int64)
    require_range(spec, static_cast<const std::int64_t*>(data), sizes, symbols);
}

/// Converts numbers of the caller's dtype to those of a file or back: float32 and float64, int32
/// and int64. Returns whether they are two of those. Tensor::copy_ does the same and takes a
/// microsecond to get going.
inline bool convert(DType from, const void* source, DType to, void* target, std::int64_t size) {
  const auto copied = [&](const auto* numbers, auto* places) {
    std::copy_n(numbers, size, places);
    return true;
  };
  using enum DType;
  if (from == float64 && to == float32) {
    return copied(static_cast<const double*>(source), static_cast<float*>(target));
  }
  if (from == float32 && to == float64) {
    return copied(static_cast<const float*>(source), static_cast<double*>(target));
  }
  if (from == int32 && to == int64) {
    return copied(static_cast<const std::int32_t*>(source), static_cast<std::int64_t*>(target));
  }
  if (from == int64 && to == int32) {
    return copied(static_cast<const std::int64_t*>(source), static_cast<std::int32_t*>(target));
  }
  return false;
}

}  // namespace detail

}  // namespace ofcv

#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "ofcv/box.hpp"
#include "ofcv/dtype.hpp"
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
  if (view.data == nullptr) {
    throw Error(spec.name, "a pointer to " + std::to_string(count(view.shape)) + " values",
                "a null pointer");
  }
}

/// Throws unless integers lie in the range of `spec`.
template <typename T>
void require_range(const TensorSpec& spec, const T* data, std::span<const std::int64_t> sizes) {
  if (!spec.low || !spec.high) return;
  std::int64_t high = spec.high->size;
  for (std::size_t i = 0; i < sizes.size() && spec.high->is_symbolic(); ++i) {
    if (spec.shape[i].symbol == spec.high->symbol) high = sizes[i];
  }
  require_in_range(spec.name, data, count(sizes), *spec.low, high);
}

/// Throws unless the values, in the dtype of `spec`, are such as it takes; a box must be
/// orthorhombic where that is said.
inline void require_values(const TensorSpec& spec, const void* data,
                           std::span<const std::int64_t> sizes, bool orthorhombic) {
  const auto numbers = [&](const auto* values) {
    require_finite(spec.name, values, sizes);
    if (spec.name == "box" && count(sizes) == 9) require_box(lattice_from(values), orthorhombic);
  };
  if (spec.dtype == DType::float32) numbers(static_cast<const float*>(data));
  if (spec.dtype == DType::float64) numbers(static_cast<const double*>(data));
  if (spec.dtype == DType::int32)
    require_range(spec, static_cast<const std::int32_t*>(data), sizes);
  if (spec.dtype == DType::int64)
    require_range(spec, static_cast<const std::int64_t*>(data), sizes);
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

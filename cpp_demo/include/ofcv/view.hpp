#pragma once

#include <concepts>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "ofcv/dtype.hpp"

namespace ofcv {

using Shape = std::vector<std::int64_t>;

/// Number of elements of a shape.
inline std::int64_t count(std::span<const std::int64_t> shape) {
  std::int64_t product = 1;
  for (const std::int64_t size : shape) product *= size;
  return product;
}

/// A tuple as Python writes it, e.g. `(4, 231)` or `(4,)`.
inline std::string tuple_text(std::span<const std::int64_t> entries) {
  std::string text = "(";
  for (std::size_t i = 0; i < entries.size(); ++i) {
    text += (i > 0 ? ", " : "") + std::to_string(entries[i]);
  }
  return text + (entries.size() == 1 ? ",)" : ")");
}

/// The caller's memory as a C-order array. Nothing is owned or copied.
template <typename Void>
struct AnyView {
  template <typename T>
    requires Element<std::remove_const_t<T>> && std::convertible_to<T*, Void*>
  AnyView(T* data, Shape shape)
      : data(data), dtype(dtype_of<std::remove_const_t<T>>()), shape(std::move(shape)) {}
  AnyView(Void* data, DType dtype, Shape shape)
      : data(data), dtype(dtype), shape(std::move(shape)) {}

  Void* data;
  DType dtype;
  Shape shape;
};

using View = AnyView<const void>;   ///< is only read
using MutableView = AnyView<void>;  ///< is written to

}  // namespace ofcv

#pragma once

#include <cstdint>
#include <span>
#include <string>
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

/// The caller's memory as a C-order array that is only read. Nothing is owned or copied.
struct View {
  template <Element T>
  View(const T* data, Shape shape) : data(data), dtype(dtype_of<T>()), shape(std::move(shape)) {}
  View(const void* data, DType dtype, Shape shape)
      : data(data), dtype(dtype), shape(std::move(shape)) {}

  const void* data;
  DType dtype;
  Shape shape;
};

/// The caller's memory as a C-order array that results are written to.
struct MutableView {
  template <Element T>
  MutableView(T* data, Shape shape) : data(data), dtype(dtype_of<T>()), shape(std::move(shape)) {}
  MutableView(void* data, DType dtype, Shape shape)
      : data(data), dtype(dtype), shape(std::move(shape)) {}

  void* data;
  DType dtype;
  Shape shape;
};

}  // namespace ofcv

#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "ofcv/view.hpp"

/// A C-order array that owns its memory.
struct Array {
  Array(ofcv::DType dtype, ofcv::Shape shape)
      : dtype(dtype), shape(std::move(shape)), bytes(ofcv::count(this->shape) * size_of(dtype)) {}

  ofcv::View view() const { return {bytes.data(), dtype, shape}; }
  ofcv::MutableView mutable_view() { return {bytes.data(), dtype, shape}; }

  template <typename T>
  T* data() {
    return reinterpret_cast<T*>(bytes.data());
  }

  ofcv::DType dtype;
  ofcv::Shape shape;
  std::vector<std::byte> bytes;
};

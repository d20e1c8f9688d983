#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>

namespace ofcv {

/// Element types of the tensors that go in and out of an artifact.
enum class DType { float32, float64, int32, int64, boolean };

inline constexpr std::array dtypes = {DType::float32, DType::float64, DType::int32, DType::int64,
                                      DType::boolean};

/// As numpy spells them.
constexpr auto names_of(DType) {
  return std::array{"float32", "float64", "int32", "int64", "bool"};
}

constexpr const char* dtype_name(DType dtype) {
  return names_of(dtype)[static_cast<std::size_t>(dtype)];
}

constexpr bool is_floating(DType dtype) {
  return dtype == DType::float32 || dtype == DType::float64;
}

constexpr std::size_t size_of(DType dtype) {
  if (dtype == DType::boolean) return 1;
  return dtype == DType::float32 || dtype == DType::int32 ? 4 : 8;
}

/// A C++ type that has a DType. `long` and `long long` are both int64 where they hold 64 bits.
template <typename T>
concept Element = std::same_as<T, float> || std::same_as<T, double> ||
                  (std::signed_integral<T> && (sizeof(T) == 4 || sizeof(T) == 8));

template <Element T>
constexpr DType dtype_of() {
  if constexpr (std::same_as<T, float>) return DType::float32;
  if constexpr (std::same_as<T, double>) return DType::float64;
  return sizeof(T) == 4 ? DType::int32 : DType::int64;
}

}  // namespace ofcv

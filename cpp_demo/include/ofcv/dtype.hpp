#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace ofcv {

/// Element types of the tensors that go in and out of an artifact.
enum class DType { float32, float64, int32, int64, boolean };

inline constexpr DType dtypes[] = {DType::float32, DType::float64, DType::int32, DType::int64,
                                   DType::boolean};

constexpr bool is_floating(DType dtype) {
  return dtype == DType::float32 || dtype == DType::float64;
}

constexpr std::size_t size_of(DType dtype) {
  if (dtype == DType::boolean) return 1;
  return dtype == DType::float32 || dtype == DType::int32 ? 4 : 8;
}

/// The name as numpy spells it.
constexpr const char* dtype_name(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return "float32";
    case DType::float64:
      return "float64";
    case DType::int32:
      return "int32";
    case DType::int64:
      return "int64";
    case DType::boolean:
      return "bool";
  }
  return "unknown";
}

constexpr std::optional<DType> dtype_from_name(std::string_view name) {
  for (const DType dtype : dtypes) {
    if (name == dtype_name(dtype)) return dtype;
  }
  return std::nullopt;
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

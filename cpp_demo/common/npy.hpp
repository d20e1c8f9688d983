#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "common/array.hpp"
#include "ofcv/error.hpp"

/// NumPy's .npy files (format versions 1 to 3) of little-endian float32, float64, int32, int64 and
/// bool in C order. Anything else is refused.
namespace npy {

static_assert(std::endian::native == std::endian::little,
              "values are read and written as they lie");

namespace detail {

constexpr std::string_view magic = "\x93NUMPY";

/// NumPy's name of a dtype.
inline const char* descr_of(ofcv::DType dtype) {
  static constexpr const char* names[] = {"<f4", "<f8", "<i4", "<i8", "|b1"};
  return names[static_cast<int>(dtype)];
}

struct Header {
  ofcv::DType dtype;
  ofcv::Shape shape;
};

/// Reads a Python dictionary, {'descr': '<f8', 'fortran_order': False, 'shape': (3, 4), }, as the
/// JSON that other quotes, brackets and words make of it.
inline Header parse_header(const std::string& text, const std::string& path) {
  std::string json;
  for (const char c : text) {
    static constexpr std::string_view python = "'()TF", replacements = "\"[]tf";
    if (c == ')' || c == '}') json.erase(json.find_last_not_of(", ") + 1);
    const std::size_t which = python.find(c);
    json += which == python.npos ? c : replacements[which];
  }
  const auto parsed = nlohmann::json::parse(json, nullptr, /*allow_exceptions=*/false);
  const auto header = parsed.is_object() ? parsed : nlohmann::json::object();
  const auto descr = header.value("descr", nlohmann::json());
  const auto fortran_order = header.value("fortran_order", nlohmann::json());
  const auto shape = header.value("shape", nlohmann::json());
  bool is_header = header.size() == 3 && descr.is_string() && fortran_order.is_boolean();
  is_header &= shape.is_array();
  for (const auto& size : shape) is_header &= size.is_number_unsigned();
  if (!is_header) throw ofcv::Error(path, "a .npy header", "a malformed one");
  if (fortran_order) throw ofcv::Error(path, "an array in C order", "one in Fortran order");
  for (const ofcv::DType dtype : ofcv::dtypes) {
    if (descr == descr_of(dtype)) return {dtype, shape.get<ofcv::Shape>()};
  }
  throw ofcv::Error(path, "little-endian float32, float64, int32, int64 or bool",
                    "'" + descr.get<std::string>() + "'");
}

/// The number of bytes of an array, or nothing where it is beyond `limit`.
inline std::optional<std::uint64_t> byte_count(const Header& header, std::uint64_t limit) {
  std::uint64_t elements = 1;
  for (const std::int64_t size : header.shape) {
    if (size == 0) return 0;
  }
  for (const std::int64_t size : header.shape) {
    if (static_cast<std::uint64_t>(size) > limit / elements) return std::nullopt;
    elements *= static_cast<std::uint64_t>(size);
  }
  return elements * size_of(header.dtype);
}

}  // namespace detail

inline Array read(const std::string& path) {
  std::ifstream stream(path, std::ios::binary | std::ios::ate);
  const std::streamoff file_size = stream ? static_cast<std::streamoff>(stream.tellg()) : -1;
  if (file_size < 0) throw ofcv::Error(path, "a readable file", "none");
  stream.seekg(0);

  char preamble[8];  // magic, major and minor version
  if (!stream.read(preamble, 8) || std::string_view(preamble, 6) != detail::magic) {
    throw ofcv::Error(path, "a .npy file", "a file of another format");
  }
  const int major = static_cast<unsigned char>(preamble[6]);
  if (major < 1 || major > 3) {
    throw ofcv::Error(path, ".npy format version 1, 2 or 3", std::to_string(major));
  }
  std::uint32_t header_size = 0;
  const int header_size_bytes = major == 1 ? 2 : 4;
  if (!stream.read(reinterpret_cast<char*>(&header_size), header_size_bytes) ||
      header_size > file_size) {
    throw ofcv::Error(path, "a .npy header", "a truncated one");
  }
  std::string text(header_size, '\0');
  if (!stream.read(text.data(), header_size)) {
    throw ofcv::Error(path, "a .npy header", "a truncated one");
  }
  const detail::Header header = detail::parse_header(text, path);

  const auto got = static_cast<std::uint64_t>(file_size - stream.tellg());
  if (detail::byte_count(header, static_cast<std::uint64_t>(file_size)) != got) {
    throw ofcv::Error(path, "as many values as the header's shape says",
                      std::to_string(got) + " bytes");
  }
  Array array(header.dtype, header.shape);
  stream.read(reinterpret_cast<char*>(array.bytes.data()), static_cast<std::streamsize>(got));
  if (!stream) throw ofcv::Error(path, "a readable file", "a read error");
  return array;
}

/// Writes all but the values in format version 1, aligned to 64 bytes, as NumPy does.
inline void write_header(std::ostream& stream, ofcv::DType dtype, const ofcv::Shape& shape) {
  std::string header = std::string("{'descr': '") + detail::descr_of(dtype) +
                       "', 'fortran_order': False, 'shape': " + ofcv::tuple_text(shape) + ", }";
  constexpr std::size_t before_header = 10;
  header.resize((before_header + header.size() + 1 + 63) / 64 * 64 - before_header - 1, ' ');
  header += '\n';
  const auto header_size = static_cast<std::uint16_t>(header.size());
  stream << detail::magic << '\x01' << '\x00';
  stream.write(reinterpret_cast<const char*>(&header_size), 2);
  stream << header;
}

inline void write(std::ostream& stream, const ofcv::View& array) {
  write_header(stream, array.dtype, array.shape);
  stream.write(static_cast<const char*>(array.data),
               static_cast<std::streamsize>(ofcv::count(array.shape) * size_of(array.dtype)));
}

}  // namespace npy

#pragma once

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <limits>
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

/// Reads the header's Python dictionary, {'descr': '<f8', 'fortran_order': False, 'shape': (3, 4)}.
class Header {
 public:
  Header(std::string_view text, const std::string& path) : rest_(text), path_(path) {
    std::optional<ofcv::DType> dtype;
    std::optional<bool> fortran_order;
    std::optional<ofcv::Shape> shape;
    expect('{');
    while (!accept('}')) {
      const std::string_view key = string();
      expect(':');
      if (key == "descr" && !dtype) {
        dtype = dtype_from_descr(string());
      } else if (key == "fortran_order" && !fortran_order) {
        fortran_order = boolean();
      } else if (key == "shape" && !shape) {
        shape = tuple();
      } else {
        malformed();
      }
      if (!accept(',') && peek() != '}') malformed();
    }
    if (peek() != '\0' || !dtype || !fortran_order || !shape) malformed();
    if (*fortran_order) throw ofcv::Error(path_, "an array in C order", "one in Fortran order");
    this->dtype = *dtype;
    this->shape = *shape;
  }

  ofcv::DType dtype;
  ofcv::Shape shape;

 private:
  ofcv::DType dtype_from_descr(std::string_view descr) const {
    for (const ofcv::DType dtype : ofcv::dtypes) {
      if (descr == descr_of(dtype)) return dtype;
    }
    throw ofcv::Error(path_, "little-endian float32, float64, int32, int64 or bool",
                      "'" + std::string(descr) + "'");
  }

  char peek() {
    rest_.remove_prefix(std::min(rest_.find_first_not_of(" \n"), rest_.size()));
    return rest_.empty() ? '\0' : rest_.front();
  }

  bool accept(char c) {
    if (peek() != c) return false;
    rest_.remove_prefix(1);
    return true;
  }

  void expect(char c) {
    if (!accept(c)) malformed();
  }

  std::string_view string() {
    const char quote = peek();
    if (quote != '\'' && quote != '"') malformed();
    const std::size_t end = rest_.find(quote, 1);
    if (end == rest_.npos) malformed();
    const std::string_view content = rest_.substr(1, end - 1);
    rest_.remove_prefix(end + 1);
    return content;
  }

  bool boolean() {
    const bool value = peek() == 'T';
    const std::string_view word = value ? "True" : "False";
    if (!rest_.starts_with(word)) malformed();
    rest_.remove_prefix(word.size());
    return value;
  }

  ofcv::Shape tuple() {
    ofcv::Shape shape;
    expect('(');
    while (!accept(')')) {
      peek();
      std::int64_t size = 0;
      const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), size);
      if (error != std::errc{} || size < 0) malformed();
      rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
      shape.push_back(size);
      if (!accept(',') && peek() != ')') malformed();
    }
    return shape;
  }

  [[noreturn]] void malformed() const {
    throw ofcv::Error(path_, "a .npy header", "a malformed one");
  }

  std::string_view rest_;
  const std::string& path_;
};

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
  const detail::Header header(text, path);

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

/// Writes format version 1, its data aligned to 64 bytes, as NumPy does.
inline void write(std::ostream& stream, const ofcv::View& array) {
  std::string header = std::string("{'descr': '") + detail::descr_of(array.dtype) +
                       "', 'fortran_order': False, 'shape': " + ofcv::tuple_text(array.shape) +
                       ", }";
  constexpr std::size_t before_header = 10;
  header.resize((before_header + header.size() + 1 + 63) / 64 * 64 - before_header - 1, ' ');
  header += '\n';
  const auto header_size = static_cast<std::uint16_t>(header.size());
  stream << detail::magic << '\x01' << '\x00';
  stream.write(reinterpret_cast<const char*>(&header_size), 2);
  stream << header;
  stream.write(static_cast<const char*>(array.data),
               static_cast<std::streamsize>(ofcv::count(array.shape) * size_of(array.dtype)));
}

}  // namespace npy

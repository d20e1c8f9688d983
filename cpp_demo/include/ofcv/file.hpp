#pragma once

#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <system_error>
#include <utility>

#include "ofcv/error.hpp"

namespace ofcv {

/// A file's name and content, read once: what is made of it later is made of the same bytes,
/// whatever becomes of the file and of the working directory. Copies share them.
class File {
 public:
  File(std::string path) : path_(std::move(path)) {  // NOLINT: a path is as good as its file
    std::error_code unreachable;
    std::ifstream stream;
    if (std::filesystem::is_regular_file(path_, unreachable)) {
      stream.open(path_, std::ios::binary);
    }
    if (!stream.is_open()) throw Error("model", "an existing file", "'" + path_ + "'");
    bytes_ = std::make_shared<const std::string>(std::istreambuf_iterator<char>(stream),
                                                 std::istreambuf_iterator<char>());
  }
  File(const char* path) : File(std::string(path)) {}               // NOLINT
  File(const std::filesystem::path& path) : File(path.string()) {}  // NOLINT

  const std::string& path() const { return path_; }
  const std::shared_ptr<const std::string>& bytes() const { return bytes_; }

 private:
  std::string path_;
  std::shared_ptr<const std::string> bytes_;
};

}  // namespace ofcv

#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>

#include "ofcv/error.hpp"

namespace ofcv::detail {

/// A folder of its own among the temporary files (see TMPDIR), removed at the end.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::error_code missing;
    const auto folder = std::filesystem::temp_directory_path(missing);
    std::string name = (folder / "ofcv-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) {
      throw Error("model", "a folder for temporary files", "none to be had as '" + name + "'");
    }
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code busy;
    std::filesystem::remove_all(path_, busy);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  void write(const std::string& name, const std::string& content) const {
    std::ofstream stream(path_ / name, std::ios::binary);
    stream.write(content.data(), static_cast<std::streamsize>(content.size()));
    stream.close();
    if (!stream) {
      throw Error("model", "room for temporary files", "none in '" + path_.string() + "'");
    }
  }

  std::string path_of(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

}  // namespace ofcv::detail

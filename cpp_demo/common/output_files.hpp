#pragma once

#include <unistd.h>

#include <deque>
#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>

#include "ofcv/error.hpp"

/// Files that appear under their names only when all of them are complete: they are written beside
/// their places and renamed by `commit`. Without it nothing is left behind and old files stay.
class OutputFiles {
 public:
  OutputFiles() = default;
  OutputFiles(const OutputFiles&) = delete;
  OutputFiles& operator=(const OutputFiles&) = delete;
  ~OutputFiles() {
    std::error_code ignored;
    for (const File& file : files_) std::filesystem::remove(file.temporary, ignored);
  }

  std::ostream& open(const std::string& path) {
    const std::string temporary = path + ".part-" + std::to_string(::getpid());
    File& file = files_.emplace_back(path, temporary, std::ofstream(temporary, std::ios::binary));
    if (!file.stream) throw ofcv::Error("--output", "a place to write to", "'" + path + "'");
    return file.stream;
  }

  /// A full disk is noticed while the old files are still there.
  void commit() {
    for (File& file : files_) {
      file.stream.close();
      if (file.stream) continue;
      throw ofcv::Error("--output", "room to write '" + file.path + "'", "a write error");
    }
    for (const File& file : files_) {
      std::error_code error;
      std::filesystem::rename(file.temporary, file.path, error);
      if (error) throw ofcv::Error("--output", "a place to write to", "'" + file.path + "'");
    }
  }

 private:
  struct File {
    std::string path, temporary;
    std::ofstream stream;
  };

  std::deque<File> files_;
};

#pragma once

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>
#include <utility>

#include "ofcv/error.hpp"

/// A file that appears under its name only when it is complete: it is written beside its place and
/// renamed by `commit`. Without `commit` nothing is left behind and an old file stays.
class AtomicFile {
 public:
  explicit AtomicFile(std::string path)
      : path_(std::move(path)),
        temporary_(path_ + ".part-" + std::to_string(::getpid())),
        stream_(temporary_, std::ios::binary) {
    if (!stream_) throw ofcv::Error("--output", "a place to write to", "'" + path_ + "'");
  }
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile() {
    std::error_code ignored;
    if (!temporary_.empty()) std::filesystem::remove(temporary_, ignored);
  }

  std::ostream& stream() { return stream_; }

  /// Flushes what was written, so that a full disk is noticed while the old file is still there.
  void close() {
    stream_.close();
    if (!stream_) throw ofcv::Error("--output", "room to write '" + path_ + "'", "a write error");
  }

  void commit() {
    std::error_code error;
    std::filesystem::rename(temporary_, path_, error);
    if (error) throw ofcv::Error("--output", "a place to write to", "'" + path_ + "'");
    temporary_.clear();
  }

 private:
  std::string path_;
  std::string temporary_;
  std::ofstream stream_;
};

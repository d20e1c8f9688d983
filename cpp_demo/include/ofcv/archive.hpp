#pragma once

#include <caffe2/serialize/inline_container.h>
#include <caffe2/serialize/read_adapter_interface.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "ofcv/error.hpp"
#include "ofcv/file.hpp"
#include "ofcv/sha256.hpp"

namespace ofcv {

namespace detail {

/// A file's bytes as LibTorch reads them.
class BytesAdapter : public caffe2::serialize::ReadAdapterInterface {
 public:
  explicit BytesAdapter(std::shared_ptr<const std::string> bytes) : bytes_(std::move(bytes)) {}
  std::size_t size() const override { return bytes_->size(); }
  std::size_t read(std::uint64_t position, void* buffer, std::size_t n,
                   const char* /*what*/ = "") const override {
    if (position >= bytes_->size()) return 0;
    n = std::min(n, bytes_->size() - static_cast<std::size_t>(position));
    std::memcpy(buffer, bytes_->data() + position, n);
    return n;
  }

 private:
  std::shared_ptr<const std::string> bytes_;
};

}  // namespace detail

/// An archive (.pt or .pt2) whose content agrees with the digest it carries. The digest guards
/// against damage, not against someone who means harm: that person can write a new one.
class Archive {
 public:
  /// Checks the digest; no code of the archive is looked at.
  explicit Archive(const File& file)
      : path_(file.path()), file_(std::make_shared<detail::BytesAdapter>(file.bytes())) {
    try {
      reader_ = std::make_unique<caffe2::serialize::PyTorchStreamReader>(file_);
      names_ = reader_->getAllRecords();
    } catch (const std::exception&) {
      if (file.bytes()->starts_with("PK")) throw foreign("truncated or damaged");
      throw foreign(path_.ends_with(".pt2") ? "not an AOTInductor package"
                                            : "not a TorchScript archive");
    }
    std::sort(names_.begin(), names_.end());
    if (!contains(metadata_record)) throw foreign("no ofcv.json in the archive");
    if (!contains(digest_record)) throw foreign("no digest in the archive");
    if (digest() != read(digest_record)) throw foreign("its content does not match its digest");
  }

  std::string metadata_text() { return read(metadata_record); }

  /// All records by their names below the archive's top folder, sorted.
  const std::vector<std::string>& names() const { return names_; }

  bool contains(const std::string& name) const {
    return std::binary_search(names_.begin(), names_.end(), name);
  }

  std::string read(const std::string& name) {
    const auto [data, size] = record(name);
    return {static_cast<const char*>(data.get()), size};
  }

  /// The error for a file that is not one of ours.
  Error foreign(const std::string& reason) const {
    return Error("model", "an ofcv-export artifact", "'" + path_ + "' (" + reason + ")");
  }

  /// What was checked is what is loaded, even if the file is replaced.
  std::shared_ptr<caffe2::serialize::ReadAdapterInterface> file() const { return file_; }

 private:
  static constexpr const char* metadata_record = "extra/ofcv.json";
  static constexpr const char* digest_record = "extra/ofcv.sha256";

  // SHA-256 over the records sorted by name: name, zero byte, length as 8 bytes little-endian,
  // data. The serialization id is made by the writer from what the digest covers already.
  std::string digest() {
    if (std::adjacent_find(names_.begin(), names_.end()) != names_.end()) {
      throw foreign("two records of one name");
    }
    Sha256 sha;
    for (const std::string& name : names_) {
      if (name == digest_record || name == caffe2::serialize::kSerializationIdRecordName) continue;
      const auto [data, size] = record(name);
      std::uint8_t length[8];
      for (int i = 0; i < 8; ++i) length[i] = static_cast<std::uint8_t>(size >> 8 * i);
      sha.update(name.c_str(), name.size() + 1);
      sha.update(length, 8);
      sha.update(data.get(), size);
    }
    return sha.hex_digest();
  }

  std::tuple<at::DataPtr, std::size_t> record(const std::string& name) {
    try {
      return reader_->getRecord(name);
    } catch (const std::exception&) {
      throw foreign("truncated or damaged");
    }
  }

  std::string path_;
  std::shared_ptr<caffe2::serialize::ReadAdapterInterface> file_;
  std::unique_ptr<caffe2::serialize::PyTorchStreamReader> reader_;
  std::vector<std::string> names_;
};

}  // namespace ofcv

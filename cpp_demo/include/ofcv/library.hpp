#pragma once

#include <dlfcn.h>
#include <sys/utsname.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ofcv/arguments.hpp"
#include "ofcv/error.hpp"
#include "ofcv/file.hpp"
#include "ofcv/internal/temporary_folder.hpp"
#include "ofcv/metadata.hpp"
#include "ofcv/sha256.hpp"
#include "ofcv/validation.hpp"
#include "ofcv/view.hpp"

namespace ofcv {

namespace detail {

/// What stands behind a library of ours: the beginning of its names, offset and length of its JSON
/// and the length of that beginning (8, 8 and 4 bytes, little-endian), SHA-256 of all before as 64
/// digits, a mark.
struct Trailer {
  static constexpr std::string_view mark = "ofcv.so\n";
  static constexpr std::size_t places = 20, digits = 64;

  /// Throws unless the digest is that of the content.
  explicit Trailer(const File& file) {
    const std::string& content = *file.bytes();
    const auto foreign = [&](const std::string& reason) {
      return Error("model", "an ofcv-export artifact", "'" + file.path() + "' (" + reason + ")");
    };
    const std::size_t end = mark.size() + digits;
    if (!content.ends_with(mark) || content.size() < end + places) {
      throw foreign("no trailer behind the library");
    }
    const std::size_t body = content.size() - end;
    Sha256 sha;
    sha.update(content.data(), body);
    if (sha.hex_digest() != content.substr(body, digits)) {
      throw foreign("its content does not match its digest");
    }
    const std::size_t start = body - places;
    const auto number = [&](std::size_t offset, int n_bytes) {
      std::uint64_t value = 0;
      for (int i = n_bytes; i-- > 0;) {
        value = value << 8 | static_cast<unsigned char>(content[start + offset + i]);
      }
      return static_cast<std::size_t>(value);
    };
    const std::size_t offset = number(0, 8), length = number(8, 8), n_symbol = number(16, 4);
    if (n_symbol > start || offset > start || length > start - offset) {
      throw foreign("a trailer that does not fit the library");
    }
    symbol = content.substr(start - n_symbol, n_symbol);
    json = content.substr(offset, length);
  }

  std::string symbol, json;
};

}  // namespace detail

/// A shared library (.so) that ofcv-export wrote: the functions of a file, with nothing else to
/// install, LibTorch included.
///
///     ofcv::Library library("cv.so");
///     library.evaluate({{positions, {1, 22, 3}}}, {{values, {1, 1}}, {gradient, {1, 1, 22, 3}}});
///
/// Calls are const and may come from several threads at once.
class Library {
 public:
  /// Whether a file is a library at all, ours or not.
  static bool is_one(const File& file) {
    return file.bytes()->starts_with(
        "\x7f"
        "ELF");
  }

  /// Checks the digest and reads the metadata; the library is not loaded.
  static Metadata read_metadata(const File& file) {
    return Metadata::parse(detail::Trailer(file).json);
  }

  /// Checks the digest and loads the library, from a copy of what was checked.
  explicit Library(const File& file) {
    const detail::Trailer trailer(file);
    metadata_ = Metadata::parse(trailer.json);
    box_rule_ = metadata_.box_rule();
    for (const std::vector<TensorSpec>& specs : {metadata_.inputs, metadata_.outputs}) {
      for (const TensorSpec& spec : specs) {
        for (const Dimension& size : spec.shape) {
          const auto known = std::ranges::find(free_sizes_, size.symbol, &FreeSize::name);
          if (!size.is_symbolic() || known != free_sizes_.end()) continue;
          FreeSize& added = free_sizes_.emplace_back(FreeSize{size.symbol, std::nullopt});
          if (const auto most = metadata_.options.find(size.symbol);
              most != metadata_.options.end()) {
            added.most = most->get<std::int64_t>();
          }
        }
      }
    }
    require_machine();
    const detail::TemporaryFolder folder;
    folder.write("model.so", *file.bytes());
    handle_.reset(dlopen(folder.path_of("model.so").c_str(), RTLD_NOW | RTLD_LOCAL));
    if (handle_ != nullptr) {
      call_ = reinterpret_cast<Evaluate*>(dlsym(handle_.get(), (trailer.symbol + "_call").c_str()));
      error_ = reinterpret_cast<Reason*>(dlsym(handle_.get(), (trailer.symbol + "_error").c_str()));
    }
    if (call_ == nullptr || error_ == nullptr) {
      const char* reason = dlerror();
      throw Error("model", "a library that this system can load",
                  "'" + file.path() + "' (" + (reason ? reason : "no reason given") + ")");
    }
  }

  const Metadata& metadata() const { return metadata_; }

  /// Evaluates the caller's memory: used in place where its dtype is the file's, and converted
  /// otherwise, float32 and float64, int32 and int64 into each other. `outputs` are left alone when
  /// the call throws.
  void evaluate(const std::vector<View>& inputs, const std::vector<MutableView>& outputs,
                Checks checks = Checks::all) const;

  class Call;

  /// The same without any check but the library's own: arrays of the file's dtypes, in its order.
  /// `sizes` are those of `free_sizes`, in that order.
  void call(const std::int64_t* sizes, const void* const* inputs, void* const* outputs) const {
    if (const int code = call_(sizes, inputs, outputs)) throw Error(error_(code));
  }

  /// The sizes of a call that are free, in the order in which inputs and then outputs name them.
  /// Throws at one that is larger than the file was made for.
  std::vector<std::int64_t> free_sizes(const Symbols& symbols) const {
    std::vector<std::int64_t> sizes;
    for (const FreeSize& size : free_sizes_) {
      const std::int64_t found = sizes.emplace_back(symbols.size(size.name));
      if (size.most && found > *size.most) {
        const std::string least = Symbols::may_be_none(size.name) ? "0" : "1";
        throw Error(size.name, least + " to " + std::to_string(*size.most), std::to_string(found));
      }
    }
    return sizes;
  }

 private:
  struct FreeSize {
    std::string name;
    std::optional<std::int64_t> most;
  };

  using Evaluate = int(const std::int64_t*, const void* const*, void* const*);
  using Reason = const char*(int);

  struct Close {
    void operator()(void* handle) const { dlclose(handle); }
  };

  void require_machine() const {
    utsname here{};
    uname(&here);
    const std::string needed = metadata_.instruction_set.value_or("");
    if (needed == here.machine) return;
    throw Error("model", "an artifact for this CPU", "one that needs " + needed);
  }

  Metadata metadata_;
  BoxRule box_rule_ = BoxRule::any;
  std::vector<FreeSize> free_sizes_;
  std::unique_ptr<void, Close> handle_;
  Evaluate* call_ = nullptr;
  Reason* error_ = nullptr;
};

/// A call of a library on the caller's memory, made ready once: an engine whose arrays stay where
/// they are calls it step by step. It keeps references to the library and to both lists of views.
/// Sizes that entries of an input tell stay as they are.
class Library::Call {
 public:
  Call(const Library& library, const std::vector<View>& inputs,
       const std::vector<MutableView>& outputs)
      : library_(library), inputs_(inputs), outputs_(outputs) {
    const Metadata& metadata = library.metadata();
    detail::require_number("inputs", metadata.inputs, inputs.size());
    detail::require_number("outputs", metadata.outputs, outputs.size());
    std::size_t n_bytes = 0;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      n_bytes += checked(metadata.inputs[i], inputs[i]);
      detail::note_entries(metadata.inputs[i], inputs[i], symbols_);
    }
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      n_bytes += checked(metadata.outputs[i], outputs[i]);
    }
    // In one piece: allocations are a good part of a small function's time.
    converted_.reset(new std::byte[n_bytes]);
    std::byte* free = converted_.get();
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      given_.push_back(place(metadata.inputs[i], inputs[i], free));
    }
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      results_.push_back(place(metadata.outputs[i], outputs[i], free));
    }
    sizes_ = library.free_sizes(symbols_);
  }

  /// Evaluates what the memory of the inputs holds now; see `Library::evaluate`.
  void operator()(Checks checks = Checks::all) {
    const Metadata& metadata = library_.metadata();
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      const TensorSpec& spec = metadata.inputs[i];
      const View& input = inputs_[i];
      if (given_[i] != input.data) {
        detail::convert(input.dtype, input.data, spec.dtype, const_cast<void*>(given_[i]),
                        count(input.shape));
      }
      if (checks == Checks::all) {
        detail::require_values(spec, given_[i], input.shape, library_.box_rule_, symbols_);
      }
    }
    library_.call(sizes_.data(), given_.data(), results_.data());
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      detail::convert(metadata.outputs[i].dtype, results_[i], outputs_[i].dtype, outputs_[i].data,
                      count(outputs_[i].shape));
    }
  }

 private:
  /// Memory that a view takes in the file's dtype, in steps that suit any of them.
  template <typename Void>
  static std::size_t bytes_of(const TensorSpec& spec, const AnyView<Void>& view) {
    const std::size_t n_bytes = static_cast<std::size_t>(count(view.shape)) * size_of(spec.dtype);
    return (n_bytes + 15) / 16 * 16;
  }

  /// Throws unless a view fits; returns the memory that its conversion takes.
  template <typename Void>
  std::size_t checked(const TensorSpec& spec, const AnyView<Void>& view) {
    detail::require_view(spec, view, symbols_);
    return view.dtype == spec.dtype ? 0 : bytes_of(spec, view);
  }

  /// Where a view is in the file's dtype: in place, or in the next free memory.
  template <typename Void>
  static Void* place(const TensorSpec& spec, const AnyView<Void>& view, std::byte*& free) {
    if (view.dtype == spec.dtype) return view.data;
    if (!detail::convert(view.dtype, nullptr, spec.dtype, nullptr, 0)) {
      throw Error(spec.name, std::string("dtype ") + dtype_name(spec.dtype),
                  dtype_name(view.dtype));
    }
    return std::exchange(free, free + bytes_of(spec, view));
  }

  const Library& library_;
  const std::vector<View>& inputs_;
  const std::vector<MutableView>& outputs_;
  Symbols symbols_;
  std::unique_ptr<std::byte[]> converted_;
  std::vector<const void*> given_;
  std::vector<void*> results_;
  std::vector<std::int64_t> sizes_;
};

inline void Library::evaluate(const std::vector<View>& inputs,
                              const std::vector<MutableView>& outputs, Checks checks) const {
  Call(*this, inputs, outputs)(checks);
}

}  // namespace ofcv

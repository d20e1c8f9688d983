#pragma once

/// What evaluates a file in an engine, with LibTorch or without. Defining OFCV_WITHOUT_TORCH leaves
/// LibTorch out of the program; then .so files alone can be opened.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "ofcv/error.hpp"
#include "ofcv/file.hpp"
#include "ofcv/library.hpp"
#include "ofcv/metadata.hpp"
#include "ofcv/view.hpp"

#ifndef OFCV_WITHOUT_TORCH
#include "ofcv/model.hpp"
#endif

namespace ofcv {

struct Evaluator {
  Metadata metadata;
  std::function<void(const std::vector<View>&, const std::vector<MutableView>&)> evaluate;
  /// Returns a call on memory, and lists of views of it, that stay where they are.
  std::function<std::function<void()>(const std::vector<View>&, const std::vector<MutableView>&)>
      prepare;
};

#ifdef OFCV_WITHOUT_TORCH
/// Reads the metadata of a .so file. The digest is checked; the library is not loaded.
inline Metadata read_metadata(const File& file) {
  if (Library::is_one(file)) return Library::read_metadata(file);
  throw Error("model", "a .so file, since this was built without LibTorch",
              "'" + file.path() + "'");
}
#endif

/// Opens a file; `threads` are those of LibTorch during a call, see ofcv::Model.
inline Evaluator open(const File& file, const std::string& device, int threads) {
  if (threads < 0) throw Error("threads", "0 or more", std::to_string(threads));
  if (Library::is_one(file)) {
    if (device != "cpu") throw Error("device", "cpu for a .so file", "'" + device + "'");
    const auto library = std::make_shared<const Library>(file);
    return {
        library->metadata(),
        [library](const auto& inputs, const auto& outputs) { library->evaluate(inputs, outputs); },
        [library](const auto& inputs, const auto& outputs) {
          const auto call = std::make_shared<Library::Call>(*library, inputs, outputs);
          return [library, call] { (*call)(); };
        }};
  }
#ifdef OFCV_WITHOUT_TORCH
  return {read_metadata(file), {}, {}};  // which throws
#else
  const auto model = std::make_shared<const Model>(file, device, threads);
  return {model->metadata(),
          [model](const auto& inputs, const auto& outputs) { model->evaluate(inputs, outputs); },
          [model](const auto& inputs, const auto& outputs) {
            return [model, &inputs, &outputs] { model->evaluate(inputs, outputs); };
          }};
#endif
}

}  // namespace ofcv

#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "ofcv/dtype.hpp"
#include "ofcv/error.hpp"

namespace ofcv {

/// One entry of a shape: a fixed size, or a symbol such as `batch` that stands for any size.
struct Dimension {
  std::int64_t size = 0;
  std::string symbol;

  bool is_symbolic() const { return !symbol.empty(); }
};

/// Name, dtype and shape of one input or output; `low` and `high` are the half-open range of an
/// integer input. The end of the range may be a symbol of the tensor's own shape.
struct TensorSpec {
  std::string name;
  DType dtype;
  std::vector<Dimension> shape;
  std::optional<std::int64_t> low, high;
  std::string high_symbol;
};

/// What an artifact says about itself (`ofcv.json`, schema 1).
struct Metadata {
  std::string kind;
  std::string format;
  std::vector<TensorSpec> inputs;
  std::vector<TensorSpec> outputs;
  nlohmann::json details;                          ///< facts specific to the kind
  std::optional<std::vector<std::int64_t>> atoms;  ///< zero-based, in the engine's numbering
  std::optional<std::string> length_unit;
  std::map<std::string, std::string> output_units;
  bool periodic = false;
  std::string device;           ///< what it was made for; a TorchScript file runs on any
  std::string instruction_set;  ///< what the CPU must have to run compiled code
  std::string torch_version;    ///< version of PyTorch that wrote it
  std::string created;
  nlohmann::json document;  ///< everything, as it stands in the file

  static constexpr int schema = 1;

  /// Throws unless `text` is metadata of this schema.
  static Metadata parse(const std::string& text);
};

namespace detail {

inline Dimension parse_dimension(const nlohmann::json& entry) {
  if (entry.is_string() && !entry.get<std::string>().empty()) return {0, entry.get<std::string>()};
  const auto size = entry.get<std::int64_t>();
  if (size < 0) throw Error("model", "sizes of at least 0 in the metadata", std::to_string(size));
  return {size, ""};
}

template <typename T>
std::optional<T> parse_optional(const nlohmann::json& object, const char* key) {
  if (!object.contains(key) || object.at(key).is_null()) return std::nullopt;
  return object.at(key).get<T>();
}

inline TensorSpec parse_tensor_spec(const nlohmann::json& entry) {
  TensorSpec spec;
  spec.name = entry.at("name").get<std::string>();
  const auto name = entry.at("dtype").get<std::string>();
  const std::optional<DType> dtype = dtype_from_name(name);
  if (!dtype) throw Error(spec.name, "dtype float32, float64, int32 or int64", name);
  spec.dtype = *dtype;
  for (const nlohmann::json& size : entry.at("shape")) spec.shape.push_back(parse_dimension(size));
  spec.low = parse_optional<std::int64_t>(entry, "low");
  if (entry.contains("high") && entry.at("high").is_string()) {
    spec.high_symbol = entry.at("high").get<std::string>();
  } else {
    spec.high = parse_optional<std::int64_t>(entry, "high");
  }
  return spec;
}

}  // namespace detail

inline Metadata Metadata::parse(const std::string& text) {
  Metadata metadata;
  try {
    metadata.document = nlohmann::json::parse(text);
    const nlohmann::json& document = metadata.document;
    const nlohmann::json& version = document.at("schema");
    if (version != schema) {
      throw Error("model", "metadata of schema " + std::to_string(schema),
                  "schema " + version.dump());
    }
    metadata.kind = document.at("kind").get<std::string>();
    metadata.format = document.at("format").get<std::string>();
    for (const nlohmann::json& entry : document.at("inputs")) {
      metadata.inputs.push_back(detail::parse_tensor_spec(entry));
    }
    for (const nlohmann::json& entry : document.at("outputs")) {
      metadata.outputs.push_back(detail::parse_tensor_spec(entry));
    }
    metadata.details = document.value("details", nlohmann::json::object());
    metadata.atoms = detail::parse_optional<std::vector<std::int64_t>>(document, "atoms");
    metadata.length_unit = detail::parse_optional<std::string>(document, "length_unit");
    const auto units = document.value("output_units", nlohmann::json::object());
    for (const auto& [name, unit] : units.items()) {
      if (unit.is_string()) metadata.output_units[name] = unit.get<std::string>();
    }
    metadata.periodic = detail::parse_optional<bool>(document, "periodic").value_or(false);
    metadata.device = detail::parse_optional<std::string>(document, "device").value_or("");
    metadata.instruction_set =
        detail::parse_optional<std::string>(document, "instruction_set").value_or("");
    const auto versions = document.value("versions", nlohmann::json::object());
    metadata.torch_version = detail::parse_optional<std::string>(versions, "torch").value_or("");
    metadata.created = detail::parse_optional<std::string>(document, "created").value_or("");
  } catch (const nlohmann::json::exception&) {
    throw Error("model", "metadata of schema " + std::to_string(schema),
                "an incomplete or malformed ofcv.json");
  }
  return metadata;
}

}  // namespace ofcv

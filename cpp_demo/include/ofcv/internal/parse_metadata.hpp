#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "ofcv/dtype.hpp"
#include "ofcv/error.hpp"
#include "ofcv/metadata.hpp"

namespace ofcv::detail {

/// Reads metadata as strictly as the Python package: every field has its type, none is missing and
/// none is unknown. `place` is where a value stands, e.g. `details.box.fixed[0]`.
struct MetadataReader {
  using Json = nlohmann::json;

  /// An object, read field by field.
  class Object {
   public:
    Object(const Json& value, const std::string& place) : value_(value), place_(place) {
      if (!value.is_object()) throw malformed(place, "no object");
    }

    template <typename T>
    Object& field(const char* name, T& result) {
      if (!value_.contains(name)) throw malformed(place_of(name), "missing");
      return field_or_default(name, result);
    }

    template <typename T>
    Object& field_or_default(const char* name, T& result) {
      known_.insert(name);
      if (value_.contains(name)) read(value_.at(name), place_of(name), result);
      return *this;
    }

    /// A text, or an optional one, that is one of these.
    template <typename Text>
    Object& field(const char* name, Text& result, std::initializer_list<const char*> choices) {
      field(name, result);
      const std::optional<std::string> text = result;
      for (const char* choice : choices) {
        if (!text || *text == choice) return *this;
      }
      throw malformed(place_of(name), "'" + *text + "'");
    }

    void require_no_others() const {
      for (const auto& [name, value] : value_.items()) {
        if (!known_.contains(name)) throw malformed(place_of(name), "unknown");
      }
    }

   private:
    std::string place_of(const std::string& name) const {
      return place_.empty() ? name : place_ + "." + name;
    }

    const Json& value_;
    const std::string& place_;
    std::set<std::string> known_;
  };

  static Error malformed(const std::string& place, const std::string& what) {
    return Error("metadata", "schema 2", "others (" + place + " is " + what + ")");
  }

  static void read(const Json& value, const std::string& place, bool& result) {
    if (!value.is_boolean()) throw malformed(place, "no boolean");
    result = value.get<bool>();
  }

  static void read(const Json& value, const std::string& place, std::int64_t& result) {
    const bool fits = value.is_number_unsigned() ? value.get<std::uint64_t>() <= INT64_MAX
                                                 : value.is_number_integer();
    if (!fits) throw malformed(place, "no integer");
    result = value.get<std::int64_t>();
  }

  static void read(const Json& value, const std::string& place, double& result) {
    if (!value.is_number()) throw malformed(place, "no number");
    result = value.get<double>();
  }

  static void read(const Json& value, const std::string& place, std::string& result) {
    if (!value.is_string()) throw malformed(place, "no text");
    result = value.get<std::string>();
  }

  static void read(const Json& value, const std::string& place, Description& result) {
    if (!value.is_object()) throw malformed(place, "no object");
    result = value;
  }

  static void read(const Json& value, const std::string& place, DType& result) {
    std::string name;
    read(value, place, name);
    const std::optional<DType> dtype = dtype_from_name(name);
    if (!dtype) throw malformed(place, "'" + name + "'");
    result = *dtype;
  }

  static void read(const Json& value, const std::string& place, Dimension& result) {
    if (value.is_string()) return read(value, place, result.symbol);
    read(value, place, result.size);
    if (result.size < 0) throw malformed(place, "below 0");
  }

  template <typename T>
  static void read(const Json& value, const std::string& place, std::optional<T>& result) {
    if (!value.is_null()) read(value, place, result.emplace());
  }

  template <typename T>
  static void read(const Json& value, const std::string& place, std::vector<T>& result) {
    if (!value.is_array()) throw malformed(place, "no array");
    result.resize(value.size());
    for (std::size_t i = 0; i < result.size(); ++i) read(value[i], at(place, i), result[i]);
  }

  template <typename T, std::size_t N>
  static void read(const Json& value, const std::string& place, std::array<T, N>& result) {
    if (!value.is_array() || value.size() != N) {
      throw malformed(place, "no array of " + std::to_string(N));
    }
    for (std::size_t i = 0; i < N; ++i) read(value[i], at(place, i), result[i]);
  }

  template <typename T>
  static void read(const Json& value, const std::string& place, std::map<std::string, T>& result) {
    if (!value.is_object()) throw malformed(place, "no object");
    for (const auto& [name, entry] : value.items()) read(entry, place + "." + name, result[name]);
  }

  /// The kind that the tag names.
  template <typename... Kinds>
  static void read(const Json& value, const std::string& place, std::variant<Kinds...>& result) {
    const Json kind = value.is_object() ? value.value("kind", Json()) : Json();
    const bool found =
        ((kind == Kinds::kind && (read(value, place, result.template emplace<Kinds>()), true)) ||
         ...);
    if (!found) throw malformed(place + ".kind", kind.is_null() ? "missing" : kind.dump());
  }

  template <typename Struct>
  static void read(const Json& value, const std::string& place, Struct& result) {
    Object object(value, place);
    if constexpr (requires { Struct::kind; }) {
      std::string kind;
      object.field("kind", kind, {Struct::kind});
    }
    list(object, result);
    object.require_no_others();
  }

  static std::string at(const std::string& place, std::size_t index) {
    return place + "[" + std::to_string(index) + "]";
  }

  // The fields of each type, in Python's order.

  static void list(Object& object, TensorSpec& spec) {
    object.field("name", spec.name).field("dtype", spec.dtype).field("shape", spec.shape);
    object.field_or_default("low", spec.low).field_or_default("high", spec.high);
    object.field_or_default("example", spec.example);
  }

  static void list(Object& object, Box& box) {
    object.field("run_time", box.run_time, {"triclinic", "orthorhombic"});
    object.field("fixed", box.fixed).field("open", box.open).field("fractions", box.fractions);
  }

  static void list(Object& object, Pattern& pattern) {
    object.field("descriptor_index", pattern.descriptor_index);
    object.field("atom_index", pattern.atom_index);
  }

  static void list(Object& object, SmartDerivativesDetails& details) {
    object.field("n_atoms", details.n_atoms).field("n_descriptors", details.n_descriptors);
    object.field("nnz", details.nnz).field("n_frames", details.n_frames);
    object.field("form", details.form, {"scatter", "gather"});
    object.field("descriptors", details.descriptors);
  }

  static void list(Object& object, SparseChainRuleDetails& details) {
    object.field("n_atoms", details.n_atoms).field("n_descriptors", details.n_descriptors);
    object.field("nnz", details.nnz).field("pattern", details.pattern);
    object.field("descriptors", details.descriptors);
  }

  static void list(Object& object, RescalingDetails& details) {
    object.field("n_basis", details.n_basis).field("epsilon", details.epsilon);
    object.field_or_default("s_coeff", details.s_coeff).field_or_default("s_grad", details.s_grad);
    object.field_or_default("atomic_numbers", details.atomic_numbers);
  }

  static void list(Object& object, EnergyFunctionalDetails& details) {
    object.field("n_basis", details.n_basis).field("atomic_reference", details.atomic_reference);
    object.field_or_default("transform", details.transform);
    object.field_or_default("atomic_numbers", details.atomic_numbers);
  }

  static void list(Object& object, VariableDetails& details) {
    object.field("n_atoms", details.n_atoms).field("n_outputs", details.n_outputs);
    object.field("box", details.box).field("descriptors", details.descriptors);
    object.field("parameters", details.parameters).field("time_unit", details.time_unit);
    object.field("bias", details.bias);
    object.field("form", details.form, {"general", "one frame", "cyclic pairs", "gathered pairs"});
  }

  static void list(Object& object, ContractDetails& details) {
    object.field("contract", details.contract).field("variable", details.variable);
    object.field_or_default("engine_inputs", details.engine_inputs);
    object.field_or_default("group", details.group);
  }

  static void list(Object& object, Digests& digests) {
    object.field("pattern", digests.pattern).field("weights", digests.weights);
  }

  static void list(Object& object, Parity& parity) {
    object.field("reference", parity.reference).field("runtime", parity.runtime);
    object.field("max_abs_error", parity.max_abs_error);
    object.field("max_rel_error", parity.max_rel_error);
    object.field("tolerance", parity.tolerance).field("comparisons", parity.comparisons);
  }

  static void list(Object& object, ProbeOutput& output) {
    object.field("places", output.places).field("values", output.values);
    object.field("scale", output.scale);
  }

  static void list(Object& object, Probe& probe) {
    object.field("sizes", probe.sizes).field("outputs", probe.outputs);
  }

  static void list(Object& object, Metadata& metadata) {
    std::int64_t schema = 0;
    object.field("schema", schema).field("format", metadata.format);
    object.field("details", metadata.details);
    object.field("inputs", metadata.inputs).field("outputs", metadata.outputs);
    object.field("options", metadata.options).field("atoms", metadata.atoms);
    object.field("elements", metadata.elements).field("length_unit", metadata.length_unit);
    object.field("output_units", metadata.output_units).field("sha256", metadata.sha256);
    object.field("versions", metadata.versions).field("opset", metadata.opset);
    object.field("device", metadata.device).field("instruction_set", metadata.instruction_set);
    object.field("created", metadata.created).field("parity", metadata.parity);
    object.field("probe", metadata.probe);
  }
};

}  // namespace ofcv::detail

namespace ofcv {

inline Metadata Metadata::parse(const std::string& text) {
  Metadata metadata;
  metadata.document = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  const nlohmann::json& document = metadata.document;
  if (!document.is_object()) throw Error("metadata", "schema 2", "no JSON object");
  const nlohmann::json version = document.value("schema", nlohmann::json());
  if (version != schema) throw Error("metadata", "schema 2", version.dump());
  detail::MetadataReader::read(document, "", metadata);
  return metadata;
}

}  // namespace ofcv

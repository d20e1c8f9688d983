#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <type_traits>
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

  /// The fields of an object.
  struct Fields {
    const Json& object;
    const std::string& place;
    std::set<std::string> known = {};

    /// `names` are those of the values, with commas in between.
    template <typename... Values>
    void read(std::string names, Values&... values) {
      names += ",";
      (field(names, values, true), ...);
    }

    template <typename... Values>
    void read_or_default(std::string names, Values&... values) {
      names += ",";
      (field(names, values, false), ...);
    }

    template <typename T>
    void field(std::string& names, T& value, bool is_required) {
      const std::size_t comma = names.find(',');
      const std::string name = names.substr(0, comma);
      names.erase(0, names.find_first_not_of(", ", comma));
      known.insert(name);
      const auto found = object.find(name);
      if (found != object.end()) {
        MetadataReader::read(*found, inside(place, name), value);
      } else if (is_required) {
        throw malformed(inside(place, name), "missing");
      }
    }
  };

  static Error malformed(const std::string& place, const std::string& what) {
    return Error("metadata", "schema 2", "others (" + place + " is " + what + ")");
  }

  static std::string inside(const std::string& place, const std::string& name) {
    return place.empty() ? name : place + "." + name;
  }

  static std::string inside(const std::string& place, std::size_t index) {
    return place + "[" + std::to_string(index) + "]";
  }

  static void require(bool holds, const std::string& place, const std::string& what) {
    if (!holds) throw malformed(place, what);
  }

  static void read(const Json& value, const std::string& place, std::int64_t& result) {
    const bool is_large = value.is_number_unsigned() && value.get<std::uint64_t>() > INT64_MAX;
    require(value.is_number_integer() && !is_large, place, "no integer");
    result = value.get<std::int64_t>();
  }

  static void read(const Json& value, const std::string& place, Description& result) {
    require(value.is_object(), place, "no object");
    result = value;
  }

  template <typename Plain>
    requires std::same_as<Plain, bool> || std::same_as<Plain, double> ||
             std::same_as<Plain, std::string>
  static void read(const Json& value, const std::string& place, Plain& result) {
    if constexpr (std::same_as<Plain, bool>) require(value.is_boolean(), place, "no boolean");
    if constexpr (std::same_as<Plain, double>) require(value.is_number(), place, "no number");
    if constexpr (std::same_as<Plain, std::string>) require(value.is_string(), place, "no text");
    result = value.get<Plain>();
  }

  template <typename Enum>
    requires std::is_enum_v<Enum>
  static void read(const Json& value, const std::string& place, Enum& result) {
    static constexpr auto names = names_of(Enum());
    const auto found = std::ranges::find(names, value);
    require(found != names.end(), place, value.dump());
    result = static_cast<Enum>(found - names.begin());
  }

  static void read(const Json& value, const std::string& place, Dimension& result) {
    if (value.is_string()) return read(value, place, result.symbol);
    read(value, place, result.size);
    require(result.size >= 0, place, "below 0");
  }

  template <typename T>
  static void read(const Json& value, const std::string& place, std::optional<T>& result) {
    if (!value.is_null()) read(value, place, result.emplace());
  }

  template <typename T>
  static void read(const Json& value, const std::string& place, std::vector<T>& result) {
    require(value.is_array(), place, "no array");
    result.resize(value.size());
    for (std::size_t i = 0; i < result.size(); ++i) read(value[i], inside(place, i), result[i]);
  }

  template <typename T, std::size_t N>
  static void read(const Json& value, const std::string& place, std::array<T, N>& result) {
    require(value.is_array() && value.size() == N, place, "no array of " + std::to_string(N));
    for (std::size_t i = 0; i < N; ++i) read(value[i], inside(place, i), result[i]);
  }

  template <typename T>
  static void read(const Json& value, const std::string& place, std::map<std::string, T>& result) {
    require(value.is_object(), place, "no object");
    for (const auto& [name, entry] : value.items()) read(entry, inside(place, name), result[name]);
  }

  /// The type whose kind it is.
  template <typename... Kinds>
  static void read(const Json& value, const std::string& place, std::variant<Kinds...>& result) {
    const Json kind = value.is_object() ? value.value("kind", Json()) : Json();
    const auto read_if = [&]<typename Kind>(Kind&& details) {
      if (kind != Kind::kind) return false;
      read(value, place, details);
      result = std::move(details);
      return true;
    };
    require((read_if(Kinds()) || ...), inside(place, "kind"), kind.dump());
  }

  template <typename Struct>
  static void read(const Json& value, const std::string& place, Struct& result) {
    require(value.is_object(), place, "no object");
    Fields fields{value, place};
    result.list(fields);
    if constexpr (requires { result.list_with_defaults(fields); }) {
      result.list_with_defaults(fields);
    }
    if constexpr (requires { Struct::kind; }) {
      std::string kind;
      fields.read("kind", kind);
      require(kind == Struct::kind, inside(place, "kind"), "'" + kind + "'");
    }
    for (const auto& [name, entry] : value.items()) {
      require(fields.known.contains(name), inside(place, name), "unknown");
    }
  }
};

}  // namespace ofcv::detail

namespace ofcv {

inline Metadata Metadata::parse(const std::string& text) {
  Metadata metadata;
  metadata.document = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  const nlohmann::json& document = metadata.document;
  if (!document.is_object()) throw Error("metadata", "schema 2", "no JSON object");
  const nlohmann::json schema = document.value("schema", nlohmann::json());
  if (schema != 2) throw Error("metadata", "schema 2", schema.dump());
  detail::MetadataReader::read(document, "", metadata);
  return metadata;
}

}  // namespace ofcv

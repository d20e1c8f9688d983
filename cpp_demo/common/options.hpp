#pragma once

#include <charconv>
#include <cmath>
#include <exception>
#include <iostream>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "ofcv/error.hpp"
#ifndef OFCV_WITHOUT_TORCH
#include "ofcv/model.hpp"
#endif

/// The number that the whole text is, if it is one and finite; a plus sign may stand before it.
template <typename T>
std::optional<T> parse_number(std::string_view text) {
  if (text.starts_with('+')) text.remove_prefix(1);
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  if (!std::isfinite(static_cast<double>(value))) return std::nullopt;
  return value;
}

/// The options of a command line. Which there are, and which of them take a value, is read from the
/// usage text: its lines `  --name VALUE  what it is for` and `  --name  what it is for`. Of an
/// option that is given twice, the last one counts.
class Options {
 public:
  Options(std::string_view usage, const std::vector<std::string>& words) {
    for (std::size_t i = 0; i < words.size(); ++i) {
      const std::string& name = words[i] == "-h" ? "--help" : words[i];
      const std::size_t place = usage.find("\n  " + name + " ");
      if (!name.starts_with("--") || name.find(' ') != name.npos || place == usage.npos) {
        throw ofcv::Error("arguments", "an option that --help lists", "'" + words[i] + "'");
      }
      std::vector<std::string>& values = given_[name];
      if (usage[place + name.size() + 4] == ' ') continue;
      if (i + 1 == words.size() || words[i + 1].empty()) {
        throw ofcv::Error(name, "a value", "nothing");
      }
      values.push_back(words[++i]);
    }
  }

  bool has(const std::string& name) const { return given_.contains(name); }

  /// All values that were given, in order.
  std::vector<std::string> all(const std::string& name) const {
    return has(name) ? given_.at(name) : std::vector<std::string>();
  }

  std::string text(const std::string& name, const std::string& absent = "") const {
    return has(name) ? given_.at(name).back() : absent;
  }

  /// Throws unless it was given.
  std::string required(const std::string& name, const std::string& what) const {
    if (!has(name)) throw ofcv::Error(name, what, "nothing");
    return text(name);
  }

  /// A number that `fits`; `what` says which do.
  template <typename T, typename Fits>
  T number(const std::string& name, T absent, const std::string& what, Fits fits) const {
    if (!has(name)) return absent;
    const std::optional<T> value = parse_number<T>(text(name));
    if (!value || !fits(*value)) throw ofcv::Error(name, what, "'" + text(name) + "'");
    return *value;
  }

  int positive_integer(const std::string& name, int absent) const {
    return number(name, absent, "a positive integer", [](int value) { return value > 0; });
  }

 private:
  std::map<std::string, std::vector<std::string>> given_;
};

/// What the programs' main does: prints the usage or runs, and when something is wrong prints one
/// line on stderr and returns 2.
inline int run_program(const std::string& name, const char* usage, int argc, char** argv,
                       int (*run)(const Options&)) {
  try {
    const Options options(usage, {argv + 1, argv + argc});
    if (!options.has("--help")) return run(options);
    std::cout << usage;
    return 0;
  } catch (const std::exception& error) {
#ifdef OFCV_WITHOUT_TORCH
    std::cerr << name << ": " << error.what() << "\n";
#else
    std::cerr << name << ": " << ofcv::detail::reason(error) << "\n";
#endif
  }
  return 2;
}

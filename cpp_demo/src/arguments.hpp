#pragma once

#include <cctype>
#include <charconv>
#include <string>
#include <string_view>
#include <vector>

#include "ofcv/error.hpp"

/// A file given as `FILE` or `NAME=FILE`.
struct NamedFile {
  std::string name;  ///< empty where none was given
  std::string path;

  static NamedFile parse(const std::string& text) {
    const std::size_t equals = text.find('=');
    if (equals == text.npos || !is_identifier(std::string_view(text).substr(0, equals))) {
      return {"", text};
    }
    return {text.substr(0, equals), text.substr(equals + 1)};
  }

 private:
  static bool is_identifier(std::string_view text) {
    for (const unsigned char c : text) {
      if (!std::isalnum(c) && c != '_') return false;
    }
    return !text.empty();
  }
};

/// The demo's command line.
struct Arguments {
  std::string model;
  std::vector<NamedFile> inputs;
  std::vector<NamedFile> outputs;
  std::string device = "cpu";
  int repeat = 20;
  int threads = 1;
  bool metadata = false;
  bool help = false;

  static constexpr const char* usage =
      R"(usage: ofcv_demo --model FILE --input [NAME=]FILE ... [--output [NAME=]FILE ...]

Evaluates an ofcv-export artifact on arrays from files and times it.

  --model FILE           the artifact (.pt or .pt2)
  --input [NAME=]FILE    an input, as .npy; without NAME the first input that has none yet.
                         A missing ref_idx counts the frames from 0. Positions may come as .xyz
                         (plain or extended): a collective_variable takes its atoms from them,
                         converted from Angstrom to its unit, and a missing box from the frames'
                         Lattice; for a sparse_chain_rule of pair distances they stand in for
                         descriptors_wrt_positions, which are computed from them.
  --output [NAME=]FILE   where a result goes, as .npy; NAME is needed where there are several
  --device cpu|cuda      where to run (default: cpu)
  --repeat N             timed calls (default: 20), after 5 calls that are not timed
  --threads N            threads of LibTorch (default: 1)
  --metadata             print the artifact's metadata as JSON and stop; runs nothing
  --help                 print this and stop

Exit code: 0, or 2 with one line on stderr when something is wrong.
)";

  static Arguments parse(const std::vector<std::string>& words) {
    Arguments arguments;
    for (std::size_t i = 0; i < words.size(); ++i) {
      const std::string& option = words[i];
      const auto value = [&]() -> const std::string& {
        if (i + 1 == words.size() || words[i + 1].empty()) {
          throw ofcv::Error(option, "a value", "nothing");
        }
        return words[++i];
      };
      if (option == "--help" || option == "-h") {
        arguments.help = true;
      } else if (option == "--metadata") {
        arguments.metadata = true;
      } else if (option == "--model") {
        arguments.model = value();
      } else if (option == "--input") {
        arguments.inputs.push_back(NamedFile::parse(value()));
      } else if (option == "--output") {
        arguments.outputs.push_back(NamedFile::parse(value()));
      } else if (option == "--device") {
        arguments.device = value();
      } else if (option == "--repeat") {
        arguments.repeat = positive_integer(option, value());
      } else if (option == "--threads") {
        arguments.threads = positive_integer(option, value());
      } else {
        throw ofcv::Error("arguments", "an option that --help lists", "'" + option + "'");
      }
    }
    if (!arguments.help && arguments.model.empty()) {
      throw ofcv::Error("--model", "a file", "nothing");
    }
    return arguments;
  }

 private:
  static int positive_integer(const std::string& option, const std::string& text) {
    int value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size() || value < 1) {
      throw ofcv::Error(option, "a positive integer", "'" + text + "'");
    }
    return value;
  }
};

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/options.hpp"
#include "ofcv/atoms.hpp"
#include "ofcv/box.hpp"
#include "ofcv/error.hpp"

/// Extended XYZ and plain XYZ: one or several frames with the same atoms, in the units of the file.
namespace xyz {

struct Frames {
  std::int64_t n_frames = 0;
  std::int64_t n_atoms = 0;
  std::vector<double> positions;  ///< (n_frames, n_atoms, 3)
  ofcv::Elements elements;        ///< (n_atoms); nothing where the frames do not tell
  std::vector<std::optional<ofcv::Lattice>> lattices;  ///< (n_frames); nothing where there is none
  std::vector<std::string> pbc;                        ///< (n_frames), e.g. `T T F`
};

namespace detail {

inline std::vector<std::string_view> split(std::string_view text, std::string_view separators) {
  std::vector<std::string_view> words;
  for (std::size_t end, begin = text.find_first_not_of(separators); begin != text.npos;
       begin = text.find_first_not_of(separators, end)) {
    end = std::min(text.find_first_of(separators, begin), text.size());
    words.push_back(text.substr(begin, end - begin));
    if (end == text.size()) break;
  }
  return words;
}

/// The value of `key` in a comment line such as `Lattice="9 0 0 ..."
/// Properties=species:S:1:pos:R:3` or an empty text. Words inside quotes are no keys.
inline std::string_view comment_value(std::string_view comment, std::string_view key) {
  bool quoted = false;
  for (std::size_t i = 0; i < comment.size(); ++i) {
    if (comment[i] == '"') quoted = !quoted;
    const bool starts_word = !quoted && (i == 0 || comment[i - 1] == ' ' || comment[i - 1] == '\t');
    if (!starts_word || !comment.substr(i).starts_with(key)) continue;
    std::string_view value = comment.substr(i + key.size());
    if (!value.starts_with('=')) continue;
    value.remove_prefix(1);
    if (value.starts_with('"')) return value.substr(1, value.find('"', 1) - 1);
    return value.substr(0, value.find_first_of(" \t"));
  }
  return {};
}

inline std::optional<ofcv::Lattice> parse_lattice(std::string_view text, const std::string& where) {
  if (text.empty()) return std::nullopt;
  std::vector<double> numbers;
  for (const std::string_view word : split(text, " \t")) {
    numbers.push_back(parse_number<double>(word).value_or(std::nan("")));
  }
  if (numbers.size() != 9 || std::ranges::any_of(numbers, [](double x) { return std::isnan(x); })) {
    throw ofcv::Error(where, "Lattice=\"ax ay az bx by bz cx cy cz\"",
                      "'" + std::string(text) + "'");
  }
  return ofcv::lattice_from(numbers.data());
}

/// Where things stand in an atom's line.
struct Columns {
  std::size_t position = 1;
  std::optional<std::size_t> species = 0;
  std::size_t total = 0;  ///< 0 for plain XYZ: at least four
};

inline Columns parse_columns(std::string_view properties, const std::string& where) {
  if (properties.empty()) return {};
  const ofcv::Error malformed(where, "Properties=<name>:<type>:<columns>:... with pos:R:3",
                              "'" + std::string(properties) + "'");
  const std::vector<std::string_view> words = split(properties, ":");
  if (words.size() % 3 != 0) throw malformed;
  Columns columns{.species = std::nullopt};
  bool found = false;
  for (std::size_t i = 0; i < words.size(); i += 3) {
    const auto width = parse_number<std::size_t>(words[i + 2]).value_or(0);
    if (width < 1 || width > 1000) throw malformed;
    if (words[i] == "species" && width == 1) columns.species = columns.total;
    if (words[i] == "pos") {
      if (found || words[i + 1] != "R" || width != 3) throw malformed;
      columns.position = columns.total;
      found = true;
    }
    columns.total += width;
  }
  if (!found) throw malformed;
  return columns;
}

}  // namespace detail

inline Frames read(const std::string& path) {
  std::ifstream stream(path);
  if (!stream) throw ofcv::Error(path, "a readable file", "none");
  std::int64_t line_number = 0;
  std::string line;
  const auto next_line = [&] {
    if (!std::getline(stream, line)) return false;
    ++line_number;
    if (line.ends_with('\r')) line.pop_back();
    return true;
  };
  const auto where = [&] { return path + ", line " + std::to_string(line_number); };

  Frames frames;
  while (next_line()) {
    const std::vector<std::string_view> head = detail::split(line, " \t");
    if (head.empty()) {
      if (stream.peek() == std::ifstream::traits_type::eof()) break;
    }
    const std::optional<std::int64_t> number =
        head.size() == 1 ? parse_number<std::int64_t>(head[0]) : std::nullopt;
    if (number.value_or(0) < 1) {
      throw ofcv::Error(where(), "the number of atoms", "'" + line + "'");
    }
    const std::int64_t n_atoms = *number;
    if (frames.n_frames > 0 && n_atoms != frames.n_atoms) {
      throw ofcv::Error(where(), std::to_string(frames.n_atoms) + " atoms as in the first frame",
                        std::to_string(n_atoms));
    }
    if (!next_line()) throw ofcv::Error(where(), "a comment line", "the end of the file");
    const detail::Columns columns =
        detail::parse_columns(detail::comment_value(line, "Properties"), where());
    frames.lattices.push_back(
        detail::parse_lattice(detail::comment_value(line, "Lattice"), where()));
    frames.pbc.emplace_back(detail::comment_value(line, "pbc"));
    if (frames.n_frames == 0 && columns.species) frames.elements.emplace();

    for (std::int64_t atom = 0; atom < n_atoms; ++atom) {
      if (!next_line()) {
        throw ofcv::Error(where(), std::to_string(n_atoms) + " atoms in the frame",
                          std::to_string(atom) + " and the end of the file");
      }
      const std::vector<std::string_view> words = detail::split(line, " \t");
      if (columns.total == 0 ? words.size() < 4 : words.size() != columns.total) {
        throw ofcv::Error(
            where(),
            columns.total == 0 ? "at least 4 columns" : std::to_string(columns.total) + " columns",
            std::to_string(words.size()));
      }
      for (std::size_t dim = 0; dim < 3; ++dim) {
        const std::string_view word = words[columns.position + dim];
        const std::optional<double> coordinate = parse_number<double>(word);
        if (!coordinate) throw ofcv::Error(where(), "a coordinate", "'" + std::string(word) + "'");
        frames.positions.push_back(*coordinate);
      }
      if (!frames.elements || !columns.species) continue;
      const std::string element(words[*columns.species]);
      if (frames.n_frames == 0) frames.elements->push_back(element);
      const std::string& before = frames.elements->at(static_cast<std::size_t>(atom));
      if (element != before) {
        throw ofcv::Error(where(), before + " as in the first frame", element);
      }
    }
    frames.n_atoms = n_atoms;
    ++frames.n_frames;
  }
  if (frames.n_frames == 0) throw ofcv::Error(path, "at least one frame", "an empty file");
  return frames;
}

}  // namespace xyz

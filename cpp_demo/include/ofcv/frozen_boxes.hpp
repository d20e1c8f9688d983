#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "ofcv/box.hpp"
#include "ofcv/error.hpp"
#include "ofcv/metadata.hpp"

namespace ofcv {

/// Lattice vectors as rows.
using Box = std::array<double, 9>;

namespace detail {

/// Appends the periodic boxes with a fixed size among descriptions of descriptors.
inline void collect_boxes(const nlohmann::json& description, std::vector<Box>& boxes) {
  if (!description.is_structured()) return;
  for (const auto& [key, entry] : description.items()) {
    if (key != "box" || !entry.is_object()) {
      collect_boxes(entry, boxes);
      continue;
    }
    if (entry.value("scaled", false)) {
      throw Error("model", "an artifact that takes positions", "one that takes fractions of a box");
    }
    if (!entry.value("periodic", false) || entry.at("type") == "run time") continue;
    Box box{};
    if (entry.at("type") == "orthorhombic") {
      const auto lengths = entry.at("lengths").get<std::array<double, 3>>();
      for (int i = 0; i < 3; ++i) box[4 * i] = lengths[i];
    } else {
      const auto vectors = entry.at("vectors").get<std::array<std::array<double, 3>, 3>>();
      for (int i = 0; i < 9; ++i) box[i] = vectors[i / 3][i % 3];
    }
    boxes.push_back(box);
  }
}

inline std::string box_text(const Box& box) {
  double rows[3][3];
  for (int i = 0; i < 9; ++i) rows[i / 3][i % 3] = box[i];
  return rows_text(rows);
}

}  // namespace detail

/// The boxes that are part of the artifact, in its length unit. Throws where positions are
/// fractions.
inline std::vector<Box> frozen_boxes(const Metadata& metadata) {
  std::vector<Box> boxes;
  detail::collect_boxes(metadata.details.value("descriptors", nlohmann::json()), boxes);
  return boxes;
}

/// Throws unless `box` is the frozen one, to 1e-4 of its largest component.
inline void require_same_box(const Box& frozen, const Box& box) {
  double largest = 0, difference = 0;
  for (int i = 0; i < 9; ++i) {
    largest = std::max(largest, std::abs(frozen[i]));
    difference = std::max(difference, std::abs(frozen[i] - box[i]));
  }
  if (difference <= 1e-4 * largest) return;
  throw Error("box", "the artifact's own " + detail::box_text(frozen), detail::box_text(box));
}

}  // namespace ofcv

#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include "array.hpp"
#include "ofcv/error.hpp"
#include "ofcv/metadata.hpp"
#include "ofcv/units.hpp"
#include "xyz.hpp"

/// The frames of an .xyz file, in Angstrom, as the positions and the box of a `collective_variable`
/// artifact, in its unit.
class Trajectory {
 public:
  /// Throws unless the artifact's unit is known and the frames have all of its atoms.
  Trajectory(const ofcv::Metadata& metadata, const std::string& path)
      : path_(path),
        unit_(ofcv::length_factor(metadata.length_unit.value_or(""), "A")),
        atoms_(atoms_of(metadata)),
        frames_(xyz::read(path)) {
    // The frames have the same number of atoms, so the first one is the first that lacks some.
    const std::int64_t needed = *std::max_element(atoms_.begin(), atoms_.end()) + 1;
    if (frames_.n_atoms < needed) {
      throw ofcv::Error("positions", "at least " + std::to_string(needed) + " atoms",
                        std::to_string(frames_.n_atoms) + " in frame 0");
    }
  }

  /// (n_frames, n_atoms, 3): the artifact's atom k is the frames' atom `metadata.atoms[k]`.
  Array positions() const {
    const auto n_atoms = static_cast<std::int64_t>(atoms_.size());
    Array positions(ofcv::DType::float64, {frames_.n_frames, n_atoms, 3});
    double* out = positions.data<double>();
    for (std::int64_t frame = 0; frame < frames_.n_frames; ++frame) {
      for (const std::int64_t atom : atoms_) {
        const double* in = frames_.positions.data() + 3 * (frame * frames_.n_atoms + atom);
        for (int dim = 0; dim < 3; ++dim) *out++ = in[dim] / unit_;
      }
    }
    return positions;
  }

  /// (3, 3): the lattice vectors as rows. Throws unless all frames have the same.
  Array box() const {
    for (std::size_t frame = 0; frame < frames_.lattices.size(); ++frame) {
      const std::string here = " frame " + std::to_string(frame);
      if (!frames_.lattices[frame]) {
        throw ofcv::Error("box", "lattice vectors", "none in" + here);
      }
      if (frames_.lattices[frame] != frames_.lattices[0]) {
        throw ofcv::Error("box", "one box for all frames", "others from" + here);
      }
    }
    const xyz::Lattice& lattice = frames_.lattices.at(0).value();
    Array box(ofcv::DType::float64, {3, 3});
    for (std::size_t i = 0; i < lattice.size(); ++i) box.data<double>()[i] = lattice[i] / unit_;
    return box;
  }

  /// Where the arrays came from, for the report.
  std::string source() const {
    return "from " + path_ + " (" + std::to_string(frames_.n_frames) + " frames)";
  }

 private:
  static std::vector<std::int64_t> atoms_of(const ofcv::Metadata& metadata) {
    std::vector<std::int64_t> atoms = metadata.atoms.value_or(std::vector<std::int64_t>());
    if (!metadata.atoms) {
      atoms.resize(metadata.details.value("n_atoms", std::size_t{0}));
      std::iota(atoms.begin(), atoms.end(), 0);
    }
    if (atoms.empty() || *std::min_element(atoms.begin(), atoms.end()) < 0) {
      throw ofcv::Error("model", "zero-based indices of atoms in the metadata", "others");
    }
    return atoms;
  }

  std::string path_;
  double unit_;  ///< in Angstrom
  std::vector<std::int64_t> atoms_;
  xyz::Frames frames_;
};

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "common/array.hpp"
#include "demo/xyz.hpp"
#include "ofcv/atoms.hpp"
#include "ofcv/box.hpp"
#include "ofcv/error.hpp"
#include "ofcv/metadata.hpp"
#include "ofcv/units.hpp"

/// The frames of an .xyz file, in Angstrom, as the positions and the box of a `collective_variable`
/// artifact, in its unit.
class Trajectory {
 public:
  /// Throws unless the frames have the artifact's atoms, elements and box, where it has its own.
  Trajectory(const ofcv::Metadata& metadata, const std::string& path)
      : path_(path),
        unit_(ofcv::length_in_nm(metadata.length_unit.value_or("")) / ofcv::length_in_nm("A")),
        atoms_(ofcv::atoms_of(metadata, metadata.variable()->n_atoms)),
        frames_(xyz::read(path)) {
    ofcv::require_positions(*metadata.variable());
    // The frames have the same number of atoms, so the first one is the first that lacks some.
    const std::int64_t needed = std::ranges::max(atoms_) + 1;
    if (frames_.n_atoms < needed) {
      throw ofcv::Error("positions", "at least " + std::to_string(needed) + " atoms",
                        std::to_string(frames_.n_atoms) + " in frame 0");
    }
    ofcv::require_elements(metadata, atoms_, frames_.elements);
    for (const ofcv::Lattice& own : metadata.variable()->box.fixed) {
      for (std::size_t frame = 0; frame < frames_.lattices.size(); ++frame) {
        ofcv::require_same_box(own, lattice(frame));
      }
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
      if (lattice(frame) != lattice(0)) {
        throw ofcv::Error("box", "one box for all frames",
                          "others from frame " + std::to_string(frame));
      }
    }
    Array box(ofcv::DType::float64, {3, 3});
    std::memcpy(box.data<double>(), lattice(0).data(), box.bytes.size());
    return box;
  }

  /// Where the arrays came from, for the report.
  std::string source() const {
    return "from " + path_ + " (" + std::to_string(frames_.n_frames) + " frames)";
  }

 private:
  /// The lattice vectors of a frame in the artifact's unit.
  ofcv::Lattice lattice(std::size_t frame) const {
    const std::string here = " in frame " + std::to_string(frame);
    // 1 by 1 by 1 is what PDB files say of a system without a box.
    constexpr ofcv::Lattice unit_box = {{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}};
    if (frames_.lattices[frame].value_or(unit_box) == unit_box) {
      throw ofcv::Error("box", "lattice vectors", "none" + here);
    }
    const std::string& pbc = frames_.pbc[frame];
    if (pbc.find_first_of("Ff0") != pbc.npos) {
      throw ofcv::Error("box", "a periodic system", "one with pbc=\"" + pbc + "\"" + here);
    }
    return ofcv::lattice_from(frames_.lattices[frame]->front().data(), 1 / unit_);
  }

  std::string path_;
  double unit_;  ///< in Angstrom
  std::vector<std::int64_t> atoms_;
  xyz::Frames frames_;
};

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "ofcv/atom_graph.hpp"
#include "ofcv/box.hpp"
#include "ofcv/error.hpp"
#include "ofcv/internal/atom_selection.hpp"
#include "ofcv/internal/pair_search.hpp"
#include "ofcv/internal/pairs.hpp"
#include "ofcv/internal/reference_frame.hpp"
#include "ofcv/lattice.hpp"
#include "ofcv/validation.hpp"

namespace ofcv {

/// What a graph's nodes and edges are. Lengths are in the unit of the positions.
struct NeighbourhoodSettings {
  double cutoff = 0;         ///< longest edge
  std::int64_t n_atoms = 0;  ///< atoms in the positions
  /// Zero-based atoms, in the order of the nodes; none: all that are not of the environment.
  std::optional<std::vector<std::int64_t>> system = std::nullopt;
  /// Atoms that are nodes where they are near the system.
  std::optional<std::vector<std::int64_t>> environment = std::nullopt;
  double buffer = 0;  ///< added to the cutoff where environment atoms are chosen
  /// Longest edge between atoms of the subsystem, beside the ordinary edges.
  std::optional<double> long_range_cutoff = std::nullopt;
  std::optional<std::vector<std::int64_t>> subsystem = std::nullopt;  ///< atoms of the system
  /// By how much the radii of a search are enlarged. What it found is used again, and measured
  /// anew, for as long as atoms and box have not moved too far for it.
  double skin = 0;
};

/// Finds the graph of each frame: nodes, edges, and the lattice vectors that edges cross.
///
/// Nodes are the atoms of the system and the environment atoms near them. An environment atom is a
/// candidate if an image of it is within cutoff + buffer of a system atom. Edges join system atoms
/// and candidates, in both directions, wherever images are no farther apart than the cutoff; an
/// atom has edges to its own images too. Candidates without an edge are left out, system atoms
/// never are. These are the graphs of mlcolvar 2.0, and those of
/// `ofcv_export.neighbours.Neighbourhood`.
///
/// Every graph is that of a search of its own, whatever was searched before. One object must not be
/// used by two threads at a time.
class Neighbourhood {
 public:
  /// Throws `Error` unless the settings make sense.
  explicit Neighbourhood(const NeighbourhoodSettings& settings)
      : cutoff_(settings.cutoff),
        inclusion_(settings.cutoff + settings.buffer),
        long_range_cutoff_(settings.long_range_cutoff),
        skin_(settings.skin),
        n_atoms_(settings.n_atoms) {
    require_lengths(settings);
    selection_ = detail::select_atoms(settings.n_atoms, settings.system, settings.environment,
                                      settings.subsystem);
    radius_ = std::max(inclusion_, long_range_cutoff_.value_or(0));
    const std::size_t n_rows = selection_.atoms.size();
    positions_.resize(n_rows);
    everyone_.assign(n_rows, 1);
    is_candidate_.resize(n_rows);
    is_node_.resize(n_rows);
    node_of_.resize(n_rows);
  }

  /// The graph of a frame, which stays until the next call.
  ///
  /// `positions` holds (n_atoms, 3) numbers, of any images; `box` the lattice vectors as rows, in
  /// any order and of either handedness, or is null for an open system. Throws `Error` unless all
  /// are finite, there are as many atoms as in the settings, the box has a volume and no more than
  /// ten lattice vectors in a direction are within the largest radius. A call that uses an earlier
  /// search allocates nothing.
  const AtomGraph& find(const double* positions, std::int64_t n_atoms, const double* box) {
    require_positions(positions, n_atoms);
    const std::optional<Lattice> lattice = checked(box);
    for (std::size_t row = 0; row < positions_.size(); ++row) {
      const double* position = positions + 3 * selection_.atoms[row];
      positions_[row] = {position[0], position[1], position[2]};
    }
    if (!has_lists_ || !reference_.covers(positions_, lattice, radius_, skin_)) search(lattice);
    measure(lattice.value_or(Lattice{}));
    return graph_;
  }

  /// Searches so far.
  std::int64_t rebuilds() const { return rebuilds_; }

 private:
  /// Lattice vectors in a direction within the largest radius.
  static constexpr double most_images = 10;
  static constexpr std::int64_t most_lattice_vectors = 1000000000;

  static std::string text(double value) {
    if (std::isnan(value)) return "nan";
    if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
    return nlohmann::json(value).dump();
  }

  static std::string short_text(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%g", value);
    return text;
  }

  static void require_positive(const char* name, double value) {
    if (std::isfinite(value) && value > 0) return;
    throw Error(name, "a positive number", text(value));
  }

  static void require_lengths(const NeighbourhoodSettings& settings) {
    require_positive("cutoff", settings.cutoff);
    for (const auto& [name, value] :
         {std::pair("buffer", settings.buffer), std::pair("skin", settings.skin)}) {
      if (std::isfinite(value) && value >= 0) continue;
      throw Error(name, "a finite number of at least 0", text(value));
    }
    if (settings.long_range_cutoff) {
      const double value = *settings.long_range_cutoff;
      require_positive("long_range_cutoff", value);
      if (!(value > settings.cutoff)) {
        throw Error("long_range_cutoff", "more than the cutoff of " + text(settings.cutoff),
                    text(value));
      }
      if (!settings.subsystem) throw Error("subsystem", "atoms for long_range_cutoff", "none");
    } else if (settings.subsystem) {
      throw Error("long_range_cutoff", "one for subsystem", "none");
    }
    if (!settings.environment && settings.buffer > 0) {
      throw Error("buffer", "0 without an environment", text(settings.buffer));
    }
  }

  void require_positions(const double* positions, std::int64_t n_atoms) const {
    if (n_atoms != n_atoms_) {
      throw Error("positions", "shape (" + std::to_string(n_atoms_) + ", 3)",
                  "(" + std::to_string(n_atoms) + ", 3)");
    }
    const std::int64_t shape[] = {n_atoms, 3};
    require_finite("positions", positions, shape);
  }

  /// The lattice, which is checked unless it is the one that was checked last.
  std::optional<Lattice> checked(const double* box) {
    if (box == nullptr) return std::nullopt;
    const Lattice lattice = lattice_from(box);
    if (lattice == checked_box_) return lattice;
    const std::int64_t shape[] = {3, 3};
    require_finite("box", box, shape);
    require_box(lattice, false);
    const Vector planes = detail::Fractions(lattice).plane_distances();
    const double least = std::min({planes[0], planes[1], planes[2]}), reach = radius_ + skin_;
    if (!(least * most_images >= reach)) {
      throw Error("box",
                  "one whose planes are at least " + short_text(reach / most_images) +
                      " apart for radii of up to " + short_text(reach),
                  short_text(least));
    }
    checked_box_ = lattice;
    return lattice;
  }

  void search(const std::optional<Lattice>& box) {
    if (box) require_countable(*box);
    has_lists_ = false;
    search_.set_points(positions_, box);
    const std::size_t n_rows = positions_.size();
    const std::size_t n_system = selection_.n_system;
    std::fill(is_candidate_.begin(), is_candidate_.end(), 0);
    found_.clear();
    if (n_rows > n_system) search_.between(n_system, inclusion_ + skin_, found_);
    for (const detail::Pair& pair : found_) is_candidate_[pair.second] = 1;
    near_.set(found_);
    members_.clear();
    for (std::size_t row = 0; row < n_rows; ++row) {
      if (row < n_system || is_candidate_[row]) members_.push_back(static_cast<std::int32_t>(row));
    }
    search_.among(members_, cutoff_ + skin_, found_);
    set(edges_, directed_);
    found_.clear();
    if (long_range_cutoff_) {
      search_.among(selection_.subsystem, *long_range_cutoff_ + skin_, found_);
    }
    set(far_, directed_far_);

    // What a later call may need at most.
    const std::size_t most_edges = directed_.size() + directed_far_.size();
    graph_.nodes.reserve(n_rows);
    graph_.system_mask.reserve(members_.size());
    graph_.edge_index.reserve(2 * most_edges);
    graph_.cell_shifts.reserve(3 * most_edges);
    graph_.long_range_mask.reserve(most_edges);
    ++rebuilds_;
    if (skin_ > 0) {
      reference_.set(positions_, box);
      has_lists_ = true;
    }
  }

  void set(detail::MeasuredPairs& pairs, detail::DirectedPairs& directed) {
    directed.set(found_, positions_.size());
    pairs.set(found_);
  }

  /// Throws unless 32 bits hold the lattice vectors between an atom and the origin.
  void require_countable(const Lattice& box) const {
    const detail::Fractions fractions(box);
    for (std::size_t row = 0; row < positions_.size(); ++row) {
      const Vector fraction = fractions(positions_[row]);
      const bool is_countable = std::ranges::all_of(fraction, [](double value) {
        return std::abs(value) < static_cast<double>(most_lattice_vectors);
      });
      if (is_countable) continue;
      throw Error(
          "positions",
          "atoms within " + std::to_string(most_lattice_vectors) + " lattice vectors of the origin",
          "atom " + std::to_string(selection_.atoms[row]) + " beyond");
    }
  }

  /// Makes the graph of the pairs that are near now.
  void measure(const Lattice& box) {
    find_candidates(box);
    const std::span<const std::uint32_t> ordinary =
        directed_.choose(edges_.within(cutoff_, positions_, box, is_candidate_));
    std::span<const std::uint32_t> far;
    if (long_range_cutoff_) {
      far = directed_far_.choose(far_.within(*long_range_cutoff_, positions_, box, is_candidate_));
    }
    number_nodes(ordinary);
    const std::size_t n_edges = ordinary.size() + far.size();
    graph_.edge_index.resize(2 * n_edges);
    graph_.cell_shifts.resize(3 * n_edges);
    graph_.long_range_mask.assign(n_edges, 0);
    std::fill_n(graph_.long_range_mask.rbegin(), far.size(), 1);
    write(directed_.data(), ordinary, 0);
    write(directed_far_.data(), far, ordinary.size());
  }

  // Bytes may be any object's: with local pointers compilers need not look the members up again
  // after each.

  void find_candidates(const Lattice& box) {
    const std::uint8_t* is_near = near_.within(inclusion_, positions_, box, everyone_).data();
    const std::vector<detail::Pair>& pairs = near_.pairs();
    std::uint8_t* is_candidate = is_candidate_.data();
    std::fill_n(is_candidate, is_candidate_.size(), std::uint8_t{0});
    std::fill_n(is_candidate, selection_.n_system, std::uint8_t{1});
    const detail::Pair* pair = pairs.data();
    for (std::size_t n = 0, size = pairs.size(); n < size; ++n) {
      is_candidate[pair[n].second] |= is_near[n];
    }
  }

  /// Makes nodes of the system and of what has an edge.
  void number_nodes(std::span<const std::uint32_t> ordinary) {
    const std::size_t n_rows = is_node_.size();
    std::uint8_t* is_node = is_node_.data();
    std::fill_n(is_node, n_rows, std::uint8_t{0});
    std::fill_n(is_node, selection_.n_system, std::uint8_t{1});
    const detail::Pair* pairs = directed_.data();
    for (const std::uint32_t n : ordinary) is_node[pairs[n].first] = 1;
    graph_.nodes.resize(n_rows);
    std::int64_t *nodes = graph_.nodes.data(), *node_of = node_of_.data();
    const std::int64_t* atoms = selection_.atoms.data();
    std::size_t n_nodes = 0;
    for (std::size_t row = 0; row < n_rows; ++row) {
      nodes[n_nodes] = atoms[row];
      node_of[row] = static_cast<std::int64_t>(n_nodes);
      n_nodes += is_node[row];
    }
    graph_.nodes.resize(n_nodes);
    graph_.system_mask.assign(n_nodes, 0);
    std::fill_n(graph_.system_mask.begin(), selection_.n_system, 1);
  }

  /// Writes chosen pairs as the edges from `begin` on.
  void write(const detail::Pair* pairs, std::span<const std::uint32_t> chosen, std::size_t begin) {
    std::int64_t* senders = graph_.edge_index.data() + begin;
    std::int64_t* receivers = senders + graph_.n_edges();
    std::int64_t* shifts = graph_.cell_shifts.data() + 3 * begin;
    const std::int64_t* node_of = node_of_.data();
    for (const std::uint32_t n : chosen) {
      const auto& [first, second, shift] = pairs[n];
      *senders++ = node_of[first];
      *receivers++ = node_of[second];
      for (const std::int32_t crossed : shift) *shifts++ = crossed;
    }
  }

  double cutoff_, inclusion_;
  std::optional<double> long_range_cutoff_;
  double skin_;
  std::int64_t n_atoms_;
  double radius_ = 0;  ///< the largest
  detail::AtomSelection selection_;
  std::int64_t rebuilds_ = 0;

  // What the last search found, all radii enlarged by the skin. Atoms are rows of the selection.
  bool has_lists_ = false;
  detail::ReferenceFrame reference_;
  detail::MeasuredPairs near_;  ///< of a system atom and an environment atom, for the inclusion
  detail::MeasuredPairs edges_, far_;
  detail::DirectedPairs directed_, directed_far_;
  std::optional<Lattice> checked_box_;

  // Of the present call.
  detail::PairSearch search_;
  std::vector<detail::Pair> found_;
  std::vector<std::int32_t> members_;
  std::vector<Vector> positions_;
  std::vector<std::uint8_t> everyone_, is_candidate_, is_node_;
  std::vector<std::int64_t> node_of_;
  AtomGraph graph_;
};

}  // namespace ofcv

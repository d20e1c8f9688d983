#pragma once

#include <cstdint>
#include <vector>

namespace ofcv {

/// Atoms as nodes, pairs of near ones as edges. Arrays are in C order.
struct AtomGraph {
  /// Atoms, zero-based rows of the positions: those of the system in the order given, then those of
  /// the environment, ascending.
  std::vector<std::int64_t> nodes;
  /// (2, n_edges): all senders, then all receivers, as numbers of nodes. Every pair comes in both
  /// directions. Ordinary edges come first, then those of long range, each by sender, receiver and
  /// shift.
  std::vector<std::int64_t> edge_index;
  /// (n_edges, 3): lattice vectors crossed. An edge's vector is
  /// x[receiver] - x[sender] + cell_shifts @ box.
  std::vector<std::int64_t> cell_shifts;
  /// (n_nodes,): 1 for an atom of the system.
  std::vector<std::int64_t> system_mask;
  /// (n_edges,): 1 for an edge of long range.
  std::vector<std::int64_t> long_range_mask;

  std::int64_t n_nodes() const { return static_cast<std::int64_t>(nodes.size()); }
  std::int64_t n_edges() const { return static_cast<std::int64_t>(long_range_mask.size()); }
};

}  // namespace ofcv

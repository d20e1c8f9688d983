#include "fused_step.hpp"

#include <algorithm>
#include <cmath>

// Sizes are constants, loops are over contiguous memory, and nothing is allocated: what is left is
// for the compiler to vectorise.

namespace {

/// Value, and its derivatives with respect to the distances.
template <int n_pairs, int n_1, int n_2>
float value_and_slopes(const float* distances, const Network& network, float* slopes) {
  alignas(64) float y_1[n_1], y_2[n_2], slope_1[n_1] = {}, slope_2[n_2];
  std::copy_n(network.bias_1, n_1, y_1);
  for (int p = 0; p < n_pairs; ++p) {
    for (int k = 0; k < n_1; ++k) y_1[k] += network.weights_1[p * n_1 + k] * distances[p];
  }
  for (float& y : y_1) y = std::tanh(y);
  std::copy_n(network.bias_2, n_2, y_2);
  for (int j = 0; j < n_1; ++j) {
    for (int k = 0; k < n_2; ++k) y_2[k] += network.weights_2[j * n_2 + k] * y_1[j];
  }
  for (float& y : y_2) y = std::tanh(y);
  float value = network.bias_3;
  for (int k = 0; k < n_2; ++k) {
    value += network.weights_3[k] * y_2[k];
    slope_2[k] = network.weights_3[k] * (1 - y_2[k] * y_2[k]);
  }
  for (int j = 0; j < n_2; ++j) {
    for (int k = 0; k < n_1; ++k) {
      slope_1[k] += network.weights_2_transposed[j * n_1 + k] * slope_2[j];
    }
  }
  for (int k = 0; k < n_1; ++k) slope_1[k] *= 1 - y_1[k] * y_1[k];
  for (int p = 0; p < n_pairs; ++p) {
    float sum = 0;
    for (int k = 0; k < n_1; ++k) sum += network.weights_1[p * n_1 + k] * slope_1[k];
    slopes[p] = sum;
  }
  return value;
}

template <int n_atoms, int n_1, int n_2>
void all_pairs(const float* positions, const Network& network, float* value, float* derivatives) {
  constexpr int n_pairs = n_atoms * (n_atoms - 1) / 2;
  alignas(64) float x[n_atoms], y[n_atoms], z[n_atoms];
  alignas(64) float distances[n_pairs], inverses[n_pairs], forces[n_pairs];
  for (int i = 0; i < n_atoms; ++i) {
    x[i] = positions[3 * i];
    y[i] = positions[3 * i + 1];
    z[i] = positions[3 * i + 2];
  }
  float* row = distances;
  for (int i = 0; i < n_atoms; ++i) {
    for (int j = i + 1; j < n_atoms; ++j) {
      const float dx = x[j] - x[i], dy = y[j] - y[i], dz = z[j] - z[i];
      row[j - i - 1] = dx * dx + dy * dy + dz * dz;
    }
    row += n_atoms - 1 - i;
  }
  for (int p = 0; p < n_pairs; ++p) {
    distances[p] = std::sqrt(distances[p]);
    inverses[p] = 1 / distances[p];
  }
  *value = value_and_slopes<n_pairs, n_1, n_2>(distances, network, forces);
  for (int p = 0; p < n_pairs; ++p) forces[p] *= inverses[p];

  alignas(64) float fx[n_atoms] = {}, fy[n_atoms] = {}, fz[n_atoms] = {};
  const float* force = forces;
  for (int i = 0; i < n_atoms; ++i) {
    float sum_x = 0, sum_y = 0, sum_z = 0;
    for (int j = i + 1; j < n_atoms; ++j) {
      const float f = force[j - i - 1];
      const float dx = f * (x[j] - x[i]), dy = f * (y[j] - y[i]), dz = f * (z[j] - z[i]);
      sum_x += dx;
      sum_y += dy;
      sum_z += dz;
      fx[j] += dx;
      fy[j] += dy;
      fz[j] += dz;
    }
    fx[i] -= sum_x;
    fy[i] -= sum_y;
    fz[i] -= sum_z;
    force += n_atoms - 1 - i;
  }
  for (int i = 0; i < n_atoms; ++i) {
    derivatives[3 * i] = fx[i];
    derivatives[3 * i + 1] = fy[i];
    derivatives[3 * i + 2] = fz[i];
  }
}

template <int n_atoms, int n_pairs, int n_1, int n_2>
void chosen_pairs(const float* positions, const std::int32_t* pairs, const Network& network,
                  float* value, float* derivatives) {
  alignas(64) float dx[n_pairs], dy[n_pairs], dz[n_pairs];
  alignas(64) float distances[n_pairs], inverses[n_pairs], forces[n_pairs];
  for (int p = 0; p < n_pairs; ++p) {
    const float* start = positions + 3 * pairs[2 * p];
    const float* end = positions + 3 * pairs[2 * p + 1];
    dx[p] = end[0] - start[0];
    dy[p] = end[1] - start[1];
    dz[p] = end[2] - start[2];
  }
  for (int p = 0; p < n_pairs; ++p) {
    distances[p] = std::sqrt(dx[p] * dx[p] + dy[p] * dy[p] + dz[p] * dz[p]);
    inverses[p] = 1 / distances[p];
  }
  *value = value_and_slopes<n_pairs, n_1, n_2>(distances, network, forces);
  for (int p = 0; p < n_pairs; ++p) {
    forces[p] *= inverses[p];
    dx[p] *= forces[p];
    dy[p] *= forces[p];
    dz[p] *= forces[p];
  }
  std::fill_n(derivatives, 3 * n_atoms, 0.0F);
  for (int p = 0; p < n_pairs; ++p) {
    float* start = derivatives + 3 * pairs[2 * p];
    float* end = derivatives + 3 * pairs[2 * p + 1];
    start[0] -= dx[p];
    start[1] -= dy[p];
    start[2] -= dz[p];
    end[0] += dx[p];
    end[1] += dy[p];
    end[2] += dz[p];
  }
}

}  // namespace

void all_pairs_of_10_atoms(const float* positions, const std::int32_t*, const Network& network,
                           float* value, float* derivatives) {
  all_pairs<10, 32, 32>(positions, network, value, derivatives);
}

void all_pairs_of_50_atoms(const float* positions, const std::int32_t*, const Network& network,
                           float* value, float* derivatives) {
  all_pairs<50, 64, 64>(positions, network, value, derivatives);
}

void chosen_pairs_of_100_atoms(const float* positions, const std::int32_t* pairs,
                               const Network& network, float* value, float* derivatives) {
  chosen_pairs<100, 300, 64, 64>(positions, pairs, network, value, derivatives);
}

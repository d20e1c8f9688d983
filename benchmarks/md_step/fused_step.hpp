#pragma once

#include <cstdint>

/// Weights of a network descriptors -> n_1 tanh -> n_2 tanh -> 1.
struct Network {
  const float* weights_1;             // (n_pairs, n_1)
  const float* bias_1;                // (n_1,)
  const float* weights_2;             // (n_1, n_2)
  const float* weights_2_transposed;  // (n_2, n_1)
  const float* bias_2;                // (n_2,)
  const float* weights_3;             // (n_2,)
  float bias_3;
};

/// One MD step of a fixed size by hand: value and derivatives with respect to all positions.
using Step = void (*)(const float* positions, const std::int32_t* pairs, const Network& network,
                      float* value, float* derivatives);

void all_pairs_of_10_atoms(const float*, const std::int32_t*, const Network&, float*, float*);
void all_pairs_of_50_atoms(const float*, const std::int32_t*, const Network&, float*, float*);
void chosen_pairs_of_100_atoms(const float*, const std::int32_t*, const Network&, float*, float*);

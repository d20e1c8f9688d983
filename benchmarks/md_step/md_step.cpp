// Times one MD step of one system in several ways, all in turns: md_step FOLDER N_ATOMS.
//
// The folder holds positions.bin, box.bin where there is a box, and what there is of value.pt (for
// autograd), weights.bin and pairs.bin (for the function written by hand), cv.pt, cv.pt2 and
// cv_WAY.so, compiled from C. Times are of one frame, also where a call takes more.
//
// A line for each way: its name, and the 10 %, 50 % and 90 % quantiles of the calling thread's
// processor time in microseconds, which other programs on the machine disturb least.

#include <dlfcn.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/script.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <deque>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <map>
#include <ofcv/model.hpp>
#include <string>
#include <vector>

#include "fused_step.hpp"

namespace {

constexpr int n_warm_up = 200, n_rounds = 200, n_calls = 25;
constexpr double tolerance = 1e-4;

struct Size {
  Step step;
  int n_pairs, n_1, n_2;
};

const std::map<int, Size> sizes = {
    {10, {all_pairs_of_10_atoms, 45, 32, 32}},
    {50, {all_pairs_of_50_atoms, 1225, 64, 64}},
    {100, {chosen_pairs_of_100_atoms, 300, 64, 64}},
};

struct Way {
  std::string name;
  std::function<void()> step;
  int n_frames = 1;
  std::vector<double> microseconds = {};
};

/// Compiled functions of C: the name of the way, and how many frames a call takes.
const std::vector<std::pair<std::string, int>> libraries = {
    {"c", 1}, {"c_fast", 1}, {"c_64", 64}, {"emx", 1}, {"casadi", 1}};
constexpr int most_frames = 64;

template <typename T>
std::vector<T> read(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  const std::string bytes(std::istreambuf_iterator<char>(stream), {});
  std::vector<T> values(bytes.size() / sizeof(T));
  std::copy_n(bytes.data(), values.size() * sizeof(T), reinterpret_cast<char*>(values.data()));
  return values;
}

/// The network's weights one after the other, at an address that suits vector instructions.
Network network_of(const std::vector<float>& weights, const Size& size) {
  static const at::Tensor aligned =
      at::tensor(weights, at::TensorOptions().dtype(at::kFloat)).clone();
  const float* next = aligned.const_data_ptr<float>();
  const auto take = [&](int count) {
    next += count;
    return next - count;
  };
  return {take(size.n_pairs * size.n_1),
          take(size.n_1),
          take(size.n_1 * size.n_2),
          take(size.n_2 * size.n_1),
          take(size.n_2),
          take(size.n_2),
          *take(1)};
}

double microseconds_now() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return 1e6 * static_cast<double>(time.tv_sec) + 1e-3 * static_cast<double>(time.tv_nsec);
}

/// The function of a file of C source, compiled, without and with a box.
using Open = int (*)(const float* positions, float* values, float* derivatives);
using InBox = int (*)(const float* positions, const float* box, float* values, float* derivatives,
                      float* box_derivatives);

void* function_in(const std::string& path) {
  void* library = dlopen(path.c_str(), RTLD_NOW);
  void* symbol = library != nullptr ? dlsym(library, "cv_evaluate") : nullptr;
  if (symbol != nullptr) return symbol;
  std::cerr << dlerror() << "\n";
  std::exit(1);
}

/// Ends the program unless all ways give the same derivatives.
void require_agreement(const std::vector<Way>& ways, std::vector<float>& derivatives,
                       int n_entries) {
  ways[0].step();
  const std::vector<float> expected(derivatives.begin(), derivatives.begin() + n_entries);
  double largest = 0;
  for (const float entry : expected) largest = std::max(largest, std::abs(double{entry}));
  for (const Way& way : ways) {
    std::fill(derivatives.begin(), derivatives.end(), 0.0F);
    way.step();
    for (std::size_t i = 0; i < expected.size(); ++i) {
      if (std::abs(derivatives[i] - expected[i]) <= tolerance * largest) continue;
      std::cerr << way.name << ": expected the derivatives of " << ways[0].name << "\n";
      std::exit(1);
    }
  }
}

void measure(std::vector<Way>& ways) {
  for (const Way& way : ways) {
    for (int call = 0; call < n_warm_up; ++call) way.step();
  }
  for (int round = 0; round < n_rounds; ++round) {
    for (Way& way : ways) {
      way.step();
      const double start = microseconds_now();
      for (int call = 0; call < n_calls; ++call) way.step();
      way.microseconds.push_back((microseconds_now() - start) / n_calls / way.n_frames);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: md_step FOLDER N_ATOMS\n";
    return 1;
  }
  const std::string folder = argv[1];
  const int n_atoms = std::atoi(argv[2]);
  const auto has = [&](const std::string& name) {
    return std::filesystem::exists(folder + "/" + name);
  };
  const auto frame = read<float>(folder + "/positions.bin");
  std::vector<float> positions;
  for (int k = 0; k < most_frames; ++k) {
    positions.insert(positions.end(), frame.begin(), frame.end());
  }
  std::vector<float> box = has("box.bin") ? read<float>(folder + "/box.bin") : std::vector<float>();
  std::vector<float> value(most_frames), derivatives(3 * n_atoms * most_frames);
  std::vector<float> box_derivatives(9 * most_frames);

  std::vector<ofcv::View> inputs = {{positions.data(), {1, n_atoms, 3}}};
  std::vector<ofcv::MutableView> outputs = {{value.data(), {1, 1}},
                                            {derivatives.data(), {1, 1, n_atoms, 3}}};
  if (!box.empty()) {
    inputs.push_back({box.data(), {3, 3}});
    outputs.push_back({box_derivatives.data(), {1, 1, 3, 3}});
  }

  std::vector<Way> ways;
  std::vector<std::int32_t> pairs;
  if (has("weights.bin")) {
    const Size& size = sizes.at(n_atoms);
    pairs = read<std::int32_t>(folder + "/pairs.bin");
    const Network network = network_of(read<float>(folder + "/weights.bin"), size);
    ways.push_back({"fused", [&, size, network] {
                      size.step(positions.data(), pairs.data(), network, value.data(),
                                derivatives.data());
                    }});
  }
  if (has("value.pt")) {
    torch::jit::Module value_only = torch::jit::load(folder + "/value.pt");
    value_only.eval();
    ways.push_back({"autograd", [&, value_only]() mutable {
                      const at::Tensor leaf =
                          at::from_blob(positions.data(), {1, n_atoms, 3}).requires_grad_();
                      const at::Tensor energy = value_only.forward({leaf}).toTensor();
                      const at::Tensor gradient = torch::autograd::grad({energy.sum()}, {leaf})[0];
                      value[0] = energy.item<float>();
                      std::copy_n(gradient.const_data_ptr<float>(), 3 * n_atoms,
                                  derivatives.data());
                    }});
  }
  std::deque<ofcv::Model> models;
  for (const std::string suffix : {"pt", "pt2"}) {
    if (!has("cv." + suffix)) continue;
    const ofcv::Model& model = models.emplace_back(folder + "/cv." + suffix);
    ways.push_back({suffix, [&] { model.evaluate(inputs, outputs); }});
  }
  for (const auto& [name, n_frames] : libraries) {
    if (!has("cv_" + name + ".so")) continue;
    void* function = function_in(folder + "/cv_" + name + ".so");
    if (box.empty()) {
      const auto call = reinterpret_cast<Open>(function);
      ways.push_back({name, [&, call] { call(positions.data(), value.data(), derivatives.data()); },
                      n_frames});
    } else {
      const auto call = reinterpret_cast<InBox>(function);
      ways.push_back({name,
                      [&, call] {
                        call(positions.data(), box.data(), value.data(), derivatives.data(),
                             box_derivatives.data());
                      },
                      n_frames});
    }
  }
  require_agreement(ways, derivatives, 3 * n_atoms);
  measure(ways);
  for (Way& way : ways) {
    std::sort(way.microseconds.begin(), way.microseconds.end());
    std::printf("%s %.4f %.4f %.4f\n", way.name.c_str(), way.microseconds[n_rounds / 10],
                way.microseconds[n_rounds / 2], way.microseconds[n_rounds * 9 / 10]);
  }
}

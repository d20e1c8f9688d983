// ofcv::Library on the artifacts of make_engine_cases.py, without LibTorch. Usage: library_tests
// FOLDER.

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "check.hpp"
#include "ofcv/library.hpp"

namespace {

namespace fs = std::filesystem;

const std::vector<std::int64_t> one_frame = {1, 4, 3};

/// The periodic bias of the cases: arrays in double, as the file has them.
struct Case {
  explicit Case(const fs::path& folder)
      : path((folder / "periodic.so").string()),
        content(nlohmann::json::parse(std::ifstream(folder / "periodic.json"))) {}

  std::vector<double> numbers(const char* name) const {
    return content.at(name).get<std::vector<double>>();
  }

  std::string path;
  nlohmann::json content;
};

template <typename T>
struct Results {
  std::vector<T> values = std::vector<T>(1, T{-1}), derivatives = std::vector<T>(12),
                 by_box = std::vector<T>(9);

  std::vector<ofcv::MutableView> views() {
    return {
        {values.data(), {1, 1}}, {derivatives.data(), {1, 1, 4, 3}}, {by_box.data(), {1, 1, 3, 3}}};
  }
};

template <typename T>
Results<T> evaluated(const ofcv::Library& library, const Case& one) {
  const auto as = [&](const std::vector<double>& numbers) {
    return std::vector<T>(numbers.begin(), numbers.end());
  };
  const std::vector<T> positions = as(one.numbers("positions")), box = as(one.numbers("box"));
  const std::vector<T> centre = {T(0.2)}, force_constant = {T(50)};
  Results<T> results;
  library.evaluate({{positions.data(), one_frame},
                    {box.data(), {3, 3}},
                    {centre.data(), {1}},
                    {force_constant.data(), {1}}},
                   results.views());
  return results;
}

template <typename T>
void check_against(const Results<T>& results, const Case& one, double tolerance) {
  const std::vector<double> derivatives = one.numbers("derivatives");
  double largest = 0, difference = 0;
  for (std::size_t i = 0; i < derivatives.size(); ++i) {
    largest = std::max(largest, std::abs(derivatives[i]));
    difference = std::max(difference,
                          std::abs(static_cast<double>(results.derivatives[i]) - derivatives[i]));
  }
  CHECK(difference <= tolerance * largest);
  CHECK(std::abs(static_cast<double>(results.values[0]) / one.numbers("values")[0] - 1) <
        tolerance);
}

void test_evaluation(const fs::path& folder) {
  const Case one(folder);
  const ofcv::Library library(one.path);
  CHECK(library.metadata().format == "so");
  CHECK(ofcv::Library::read_metadata(one.path).inputs.size() == 4);
  check_against(evaluated<double>(library, one), one, 1e-11);
  // The caller's dtype is converted to the file's and back.
  check_against(evaluated<float>(library, one), one, 1e-4);
}

void test_bad_arguments(const fs::path& folder) {
  const Case one(folder);
  const ofcv::Library library(one.path);
  std::vector<double> positions = one.numbers("positions"), box = one.numbers("box");
  const std::vector<double> number = {1};
  const std::vector<std::int64_t> integers(12);
  Results<double> results;
  std::vector<ofcv::View> inputs = {{positions.data(), one_frame},
                                    {box.data(), {3, 3}},
                                    {number.data(), {1}},
                                    {number.data(), {1}}};
  const auto with = [&](ofcv::View view) {
    std::vector<ofcv::View> others = inputs;
    others[0] = view;
    library.evaluate(others, results.views());
  };
  CHECK_ERROR(library.evaluate({inputs[0]}, results.views()),
              "inputs: expected 4 tensors (positions, box, centre, force_constant), got 1");
  CHECK_ERROR(with({positions.data(), {1, 3, 3}}),
              "positions: expected shape (1, 4, 3), got (1, 3, 3)");
  CHECK_ERROR(with({integers.data(), one_frame}),
              "positions: expected dtype float32 or float64, got int64");
  positions[7] = std::numeric_limits<double>::quiet_NaN();
  CHECK_ERROR(library.evaluate(inputs, results.views()),
              "positions: expected finite values, got nan at index (0, 2, 1)");
  // The library's own check says less.
  CHECK_ERROR(library.evaluate(inputs, results.views(), ofcv::Checks::shapes_only),
              "positions: expected finite numbers, got NaN or infinity");
  CHECK(results.values[0] == -1);
}

void test_bad_files(const fs::path& folder) {
  const Case one(folder);
  const std::string whole = *ofcv::File(one.path).bytes();
  const fs::path bad = folder / "bad.so";
  const auto refused = [&](const std::string& content, const std::string& reason) {
    std::ofstream(bad, std::ios::binary) << content;
    CHECK_ERROR(ofcv::Library(bad), "model: expected an ofcv-export artifact, got '" +
                                        bad.string() + "' (" + reason + ")");
  };
  refused(whole.substr(0, 5000), "no trailer behind the library");
  std::string changed = whole;
  changed[1000] = static_cast<char>(~changed[1000]);
  refused(changed, "its content does not match its digest");
  fs::remove(bad);
  CHECK_ERROR(ofcv::Library(bad), "model: expected an existing file, got '" + bad.string() + "'");
}

void test_threads(const fs::path& folder) {
  const Case one(folder);
  const ofcv::Library library(one.path);
  const std::vector<double> expected = evaluated<double>(library, one).derivatives;
  std::vector<int> wrong(4);
  {
    std::vector<std::jthread> threads;
    for (int& count : wrong) {
      threads.emplace_back([&] {
        for (int i = 0; i < 1000; ++i)
          count += evaluated<double>(library, one).derivatives != expected;
      });
    }
  }
  CHECK(wrong == std::vector<int>(4));
}

}  // namespace

int main(int argc, char** argv) {
  return check::run(argc, argv,
                    {{"evaluation", test_evaluation},
                     {"bad_arguments", test_bad_arguments},
                     {"bad_files", test_bad_files},
                     {"threads", test_threads}});
}

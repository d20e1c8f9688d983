#pragma once

#include <filesystem>
#include <iostream>
#include <map>
#include <stdexcept>
#include <string>

#include "ofcv/error.hpp"

/// Ends a test with what did not hold and where.
#define CHECK(condition) check::require((condition), __FILE__, __LINE__, #condition)

/// `statement` must throw an ofcv::Error of one line with exactly this message.
#define CHECK_ERROR(statement, message) \
  check::require_error([&] { (void)(statement); }, message, __FILE__, __LINE__)

namespace check {

inline void fail(const char* file, int line, const std::string& what) {
  throw std::logic_error(std::string(file) + ":" + std::to_string(line) + ": " + what);
}

inline void require(bool holds, const char* file, int line, const char* condition) {
  if (!holds) fail(file, line, condition);
}

template <typename Statement>
void require_error(Statement statement, const std::string& message, const char* file, int line) {
  try {
    statement();
  } catch (const ofcv::Error& error) {
    if (error.what() != message) {
      fail(file, line, "expected the error\n  " + message + "\ngot\n  " + error.what());
    }
    return;
  }
  fail(file, line, "expected the error\n  " + message + "\ngot none");
}

/// What a test program's main does. Usage: PROGRAM FOLDER [NAME]: all tests on a folder, or one.
inline int run(int argc, char** argv,
               const std::map<std::string, void (*)(const std::filesystem::path&)>& tests) {
  const std::string only = argc == 3 ? argv[2] : "";
  int n_run = 0;
  for (const auto& [name, test] : tests) {
    if (argc < 2 || !(only.empty() || name == only)) continue;
    try {
      test(argv[1]);
      ++n_run;
    } catch (const std::exception& error) {
      std::cerr << name << ": " << error.what() << "\n";
      return 1;
    }
  }
  return n_run > 0 ? 0 : 1;
}

}  // namespace check

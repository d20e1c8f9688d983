#pragma once

/// Programs that tests in Python feed with cases: a file of JSON documents, one a line, to which
/// they answer line by line.

#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "ofcv/error.hpp"

namespace documents {

/// An entry of a document, nothing where it is missing or null.
template <typename T>
std::optional<T> entry(const nlohmann::json& document, const char* name) {
  if (!document.contains(name) || document[name].is_null()) return std::nullopt;
  return document[name].get<T>();
}

/// What `call` returns, or the message of the error that it throws.
template <typename Call>
nlohmann::json answer(const Call& call) {
  try {
    return call();
  } catch (const ofcv::Error& error) {
    return error.what();
  }
}

/// Answers the documents of the file that is the only argument; returns what `main` does.
template <typename Run>
int answer_all(int argc, char** argv, const Run& run) {
  std::ifstream stream(argc == 2 ? argv[1] : "");
  if (!stream) return 1;
  for (std::string line; std::getline(stream, line);) {
    const nlohmann::json document = nlohmann::json::parse(line);
    std::cout << answer([&] { return run(document); }) << "\n";
  }
  return 0;
}

}  // namespace documents

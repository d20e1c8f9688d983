"""The fenced blocks of README and docs, and what has to exist before each of them runs."""

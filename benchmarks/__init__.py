"""Timings, side by side with the peers in the same run."""

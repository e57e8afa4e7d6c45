"""What is fuzzed: `one(data)` raises where something is wrong; `prepare()` comes before the first."""

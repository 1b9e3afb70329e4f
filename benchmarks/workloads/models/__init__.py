"""The networks of the benchmark."""

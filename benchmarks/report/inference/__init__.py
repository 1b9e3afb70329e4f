"""What can be told from scores: summaries, families of comparisons, power, and how many seeds are enough."""

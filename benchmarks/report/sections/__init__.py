"""The parts of a report, each the answer to one question about a study."""

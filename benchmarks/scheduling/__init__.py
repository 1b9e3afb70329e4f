"""Many runs: what is missing, in which order, where, side by side, and for how long."""

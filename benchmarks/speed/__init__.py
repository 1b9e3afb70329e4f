"""How long a step and an epoch take."""

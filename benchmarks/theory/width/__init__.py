"""The learning rate that belongs to p: against the width of a network, and carried from one p to another."""

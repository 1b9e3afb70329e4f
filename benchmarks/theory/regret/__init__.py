"""Theorem 4.2 of the Padam paper and the counter-example of Reddi, Kale and Kumar, by experiment."""

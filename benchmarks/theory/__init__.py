"""The studies that are one run each and train no network of the registry: regret, the counter-example, width."""

TITLES = {
    "regret": "Algorithm 1 on six convex problems: its regret beside the bound of Theorem 4.2 (a minute)",
    "counterexample": "Reddi, Kale and Kumar's counter-examples to Adam, at every p (half a minute)",
    "width": "The learning rate that belongs to p, by width, and carried from Adam's (seven minutes)",
}
"""The studies that are not made of training runs, by name."""
WITH_DATA = ("width",)
"""Those that need the folder of the data sets."""

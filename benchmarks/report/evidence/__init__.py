"""The runs kept with the code, and the tables of the documentation that are made from them."""

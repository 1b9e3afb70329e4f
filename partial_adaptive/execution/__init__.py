"""How the arithmetic is run: planned and checked by one, carried out by several, from the same text."""

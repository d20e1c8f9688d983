"""Small changes to the package, and what notices them."""

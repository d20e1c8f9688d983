"""A property-based search for exports that give other numbers than their modules."""

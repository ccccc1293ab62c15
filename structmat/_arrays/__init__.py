"""Arrays of any library, and the tables of rules for pairs of types."""

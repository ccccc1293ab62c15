"""Arrays of any library of the array API standard: what the standard leaves open, in one place for each question."""

"""Files of operators, fits and matrices."""

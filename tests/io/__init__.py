"""Files of operators, matrices and checkpoints."""

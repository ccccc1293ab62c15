"""Systems, least squares, determinants and samples of any operator, with their derivatives."""

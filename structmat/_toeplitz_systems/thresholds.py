"""What decides how Toeplitz systems are solved, and the measurement that set each number.

The numbers are read as attributes of this module (``thresholds.LARGEST``), so that a test can replace one in one place.
"""

# Sizes, at which one way becomes faster than another

SMALL = 64
"""Up to this size any matrix is eliminated: that takes 33 microseconds of the processor for 17 rows with all checks, 43
for 32, 70 for 64, 93 for 80 and 175 for 128, a recursion with a look at the condition 61, 63, 75, 84 and 118."""

DENSE = 128
"""Up to this size elimination serves many right-hand sides, the inverse and the determinant, which need factors."""

BY_BLOCKS = 1024
"""From this size on a few right-hand sides are solved by the inverse that the recursion by blocks finds, if the main
diagonal is not the largest: two compiled recursions, the second one for a refinement, take 2.2 times as long as one,
the blocks 1.4 (symmetric) and 2.2 with 1,024 rows, and 0.9 and 1.2 with 2,000."""

BANDED = 64
"""Up to this size a band is solved as any other matrix: that takes 46 microseconds for second differences of 64 rows,
and as a band 60; `scipy.linalg.solve_banded` takes 22."""

IN_LIBRARY = 512
"""The largest matrices that torch and JAX eliminate themselves, on the device of their arrays.

Written out, one takes 2 MiB. On the host a recursion would take less time from 256 rows on, but would not be there in a
compiled function, nor on a GPU.
"""

BAND = 32
"""The most diagonals beside the main one that are eliminated as a band: no other way is faster, or more accurate."""

LONG = 2048
"""From this size on iteration is tried first. Where it is given up, that takes 1 ms of the 7 that a compiled recursion
takes with 2,048 rows, and with 1,024 as much of its 1.5."""

LARGEST = 4096
"""The largest matrix that is written out where nothing else is accurate to rounding: 128 MiB, about a second."""

LAST_RESORT = 12_247
"""The largest matrix that is written out where there would be an error in its place.

It takes 1.2 GB in double precision, of which elimination and Cholesky's factor may take one copy and a half more, and
20 to 60 s on one core.
"""

FEW = 2
"""Up to so many right-hand sides are solved one by one; more of them share the inverse."""

# Recursions

STEP = 48
"""Rows in a step of the recursion by blocks. With 1,024 rows of random diagonals 32, 48 and 64 take 2.1, 2.0 and 2.3
ms, symmetric ones 1.4, 1.2 and 1.3; with 16,384 rows 64 and 128 take 293 and 314 ms, and symmetric ones 162 and 155."""

CORRECTED_FROM = 2048
"""The number of rows from which on that recursion corrects its vectors whenever the number has doubled.

With random diagonals and 4,096 rows the residual of the first column is 1e-8 then, and 2e-6 without, for 3 to 6 % of
the time.
"""

LEAST_QUICK, MOST_QUICK = 96, 1536
"""The rows of a matrix of which a few right-hand sides are solved without what further ones would share.

For five matrices of 66 and 80 rows that takes 0.9 to 1.2 of the time of what it passes by, of 100 and 128 it is 1.0 to
2.1 times as fast, of 130 to 512 1.8 to 6.9 times, of 1,024 and 1,300 1.05 to 2.1 times, and of 1,800 and 2,047 rows 0.8
to 1.4 times.
"""

QUICK_REFINEMENTS = 3
"""The most residuals that are computed for a solution by a recursion or its inverse before another way is taken: random
matrices need one refinement, after an inverse with errors of 1e-5 two."""

# Iteration

GMRES_STEPS = 25
"""The most steps of GMRES: a matrix with a smooth symbol needs fewer, and for others a recursion costs no more."""

PATIENCE = 6
"""The steps of GMRES after which it is given up where it does not converge."""

PROMISING = 0.03
"""The largest preconditioned residual after these steps, relative to the first one, with which it goes on.

Of matrices with 1,024, 4,096 and 16,384 rows it is 1e-10 to 0.02 where the residual becomes 1e-8 within 25 steps: for
0.99^k and 0.999^k, Matérn and Gaussian kernels with nuggets of 1e-2 to 1e-8, smooth and rough symbols, and those with a
jump. For random, random symmetric and random positive definite ones it is 0.1 to 0.9.
"""

ITERATED_TO = 1e-10
"""The relative residual at which GMRES ends at first."""

CORRECTED_TO = 1e-5
"""The relative residual of the correction that follows: together they are at the level of rounding.

Without a correction the solution for 0.99^k with 2,048 rows was accepted with an error of 1e-11, and that of a
recursion is 7e-14.
"""

WORTH_REFINING = 1e-8
"""The largest residual of GMRES that is refined, not given up, relative to the right-hand side and to the solution.

GMRES ends by the norm of the preconditioned residual, and the true one may be larger, by the condition of the
preconditioner: beside the right-hand side alone it was too large for Gaussian kernels, of which those of 16,384 rows
with nuggets of 1e-3 to 1e-6 take 190 ms by blocks and 35 to 70 by iteration.
"""

REGULAR_CIRCULANT = 1e-8
"""The least ratio of the moduli of the eigenvalues of a circulant that is a preconditioner: below, it is singular to
half of all digits, and iteration would not reach `WORTH_REFINING`."""

# Block Toeplitz matrices

BLOCK_RECURSION = 2e10
"""The square of the number of rows times that of the rows of a block up to which Whittle's recursion is made.

It took 0.04 s for 512 blocks of 8 x 8, at 1.3e8, and 0.9 s for 4,000 of 3 x 3, at 4.3e8; this is about a minute.
"""

BLOCK_ROWS = 4096
"""The number of rows for each right-hand side from which iteration is tried before the recursion."""

BLOCK_STEPS = 300
"""The most steps of conjugate gradients with T. Chan's block circulant."""

BLOCK_ITERATED_TO = 1e-14
"""The relative residual at which they end: it costs less to go on than to begin again with a refinement."""

BLOCK_PATIENCE = 20
"""The number of steps after which they end if no residual became half as large."""

# The condition of small matrices

FAR = 1000.0
"""How many times the condition may be what the solution for a vector without any pattern shows of it.

Of 2,406 matrices of 2 to 128 rows, those of the tests, it was at most 100 times that, of 99 in 100 at most 42 times.
"""

NEAR = 10.0
"""How many times it may be what one more step of Hager's method shows: at most 9 times that of the same matrices."""

WINDOW = 6.0
"""The square root of the logarithm by which the window on the diagonals falls off at the corners: exp(-36) is eps."""

ZERO_QUOTIENT = 4.0
"""The least Rayleigh quotient of a Hermitian matrix that is zero but for rounding, in units of eps times its norm.

With 129 to 4,000 rows it was at most 2 for singular kernels, and 5 for one of condition 8e14.
"""

# Acceptance of solutions

ROUNDING = 4.0
"""The backward error of a row, in units of ``eps * sqrt(n)``, that is at the level of rounding.

Elimination by LAPACK left at most 0.3 for 150 matrices of 129 to 512 rows, those of ``benchmarks/toeplitz_solves.py``
and of the tests: the margin is for the rounding of transforms, by which residuals are computed.
"""

EXACT = 1.0
"""The same up to which a solution is refined, as long as that helps.

Products with the inverse of a Gaussian kernel of 256 rows with a nugget of 1e-6 left 3 of these units, and were
accepted with errors of 4e-7; those of LAPACK and of a recursion are 8e-10. Recursions leave 0.001 to 0.03 of them for
definite matrices of 64 to 2,000 rows, those of which `PROMISING` speaks, as also for random ones after a refinement,
and 0.02 to 0.8 for smooth and rough symbols, those with a jump and second differences.
"""

UNEVEN = 5e-3
"""The size of a row, relative to the sum of all diagonals, below which transforms hide what the row says.

Transforms leave an error of eps times that sum in each row. Where rows differed by a factor of 200 they left a backward
error of 1.7e-13, and elimination 1e-16.
"""

LONG_SOLUTION = 1e-6
"""The size of a solution, relative to the largest that double precision has for a matrix, above which residuals are
measured by the right-hand side: beside a solution of any size any residual would be small."""

DOUBTFUL_SOLUTION = 1e-10
"""The size of a solution, relative to that same largest one, from which a small residual alone does not suffice: the
correction that follows from it must be small too.

Of 669 solutions of the same matrices by recursion and iteration with a residual at the level of rounding, the 18 that
were longer would have been changed by 7 to 1,600 times their size. Of the shorter ones one was less accurate than a
thousand times the error of LAPACK: of a prolate matrix of condition 1e16, of which LAPACK finds no digit either.
"""

STEADY = 0.01
"""The largest correction, relative to a doubtful solution, with which it is accepted.

Of the shorter solutions all but five, of prolate matrices, would have been changed by less than 0.02: it lies between
what is steady and what is not.
"""

ROUGH = 1e-8
"""The largest relative residual that is left, with a warning, where no way reaches a smaller one.

A Gaussian kernel of 300 points without noise, which is singular to working precision, leaves 1e-5 to 1e-2 where it may
not be eliminated, by the rounding of the machine: that is an error on all of them.
"""

# The inverse

CORRECTIONS = 3
"""The most corrections of the vectors of an inverse by the inverse that they make.

Of 150 matrices 123 need one and 12 need two; 15 make all, and are refined in extended precision then.
"""

TRUSTED = 1e-8
"""The relative correction of the vectors of an inverse up to which the corrected ones are taken."""

REFINEMENTS = 10
"""The most refinements of these vectors with residuals in extended precision.

Of 57 matrices that were refined, 18 end after one or two; 39 make all of them.
"""

LOSSLESS = 1000.0
"""The largest error of products with an inverse, in units of eps, that its formula may have by the norms of the two
vectors, without a look at the products themselves."""

LOSSY = 100.0
"""How many times the error of solutions that of the product with one vector must be for a warning.

The law of these products (``tests/toeplitz_systems/test_toeplitz_solver.py``) allows a thousand times the error of
LAPACK's elimination where there is no warning. Products with 12 random vectors lost up to 5.6 times as much as that
with the one, for 504 matrices of the tests, with 300 vectors up to 8 times: with 300 in place of 100 the law did not
hold for all.
"""

# The determinant

TRUSTED_LOGARITHM = 1e-13
"""The relative correction of the vectors up to which the logarithm of a recursion is taken, which has no correction of
its own; where the matrix is definite it is `TRUSTED`.

Of 36 random indefinite and general matrices of 129 to 513 rows the logarithm was off by 0.1 to 17 times the correction,
up to 4e-8, and that of LAPACK by 1e-15 to 2e-12. Of definite ones recursion and LAPACK were off alike.
"""

NOTICEABLE = 1e-10
"""The relative correction from which a logarithm that nothing more accurate is found for comes with a warning."""

LOGARITHM_PER_CORRECTION = 10
"""The error of the logarithm, in units of that correction, of which such a warning speaks: near the largest of the 36
errors above."""

# Numbers of extreme size

LOGARITHM_PER_DEVIATION = 0.5
"""How far off the logarithm of a determinant may be, over the root of n times the standard deviation by rounding.

Errors of the pivots of a recursion have one sign over many steps: of 160 covariances of 300, 700 and 1,400 points each,
logarithms were off by up to 1.6, 1.5 and 1.7 times the root of n times that deviation, and half of them by less than a
tenth of it. Four times what is returned is the bound.
"""

ORDINARY_EXPONENT = 64
"""The largest exponent of two of numbers that are not scaled: products of a few of them stay far from overflow."""

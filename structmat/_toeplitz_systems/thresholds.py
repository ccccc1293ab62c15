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

# Triangular matrices and Cholesky factors

PRODUCT_BY_SUMS = 32
"""Up to so many coefficients of a product of power series are computed by sums, so that each one is accurate: that
takes 24 microseconds for 8 to 32 of them, and 29 for 128, and transforms 17 to 20."""

SUBSTITUTED = 128
"""Unknowns of a block of substitution, which LAPACK solves: with 64, 128, 256 and 512 of them 4,000 rows take 2.0, 1.6,
1.4 and 1.5 ms."""

BY_NEWTON = 4096
"""From this size on triangular systems are solved by Newton's iteration before substitution is tried: there both
take 2 ms, at 16,384 7 and 27 ms."""

DENSE_CHOLESKY = 500
"""The most rows of a NumPy matrix whose dense Cholesky factor is taken, which is backward stable as well.

With 100 rows it takes 0.05 ms in place of 0.9, with 300 rows 1.3 in place of 3.0; with 1,000 rows it would take 16 ms
in place of 11.
"""

# Direct factors of series: which one is made

TOLERANCES = (1e-13, 1e-11, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6)
"""What is left out of a block of T, relative to the largest entry of T: the first that pays, where none is asked for.

For 100,000 points, a tenth missing, a quasi-periodic covariance pays from 1e-8 on, fractional Gaussian noise, whose
usual formula leaves rounding errors of 1e-8 at large lags, from 1e-7 on. Bases that are refused take 0.02 to 0.1 s.

At the first the rounding errors of elimination are no smaller. With 1e-14 the rounding errors of a covariance itself
count as rank: that of a damped cosine of 60,000 points rises from 9 to 398.
"""

ROUNDED = 8.0
"""The least tolerance in units of eps of the numbers T was given in: less is rounding, which has full rank."""

LITTLE_WORK, WORK_PER_POINT, MOST_WORK = 6e4, 1e5, 4e5
"""The most work for each point, as `work_of` counts it: 7,000 for a squared exponential, which takes 6 microseconds.

1e5 take 50 microseconds, which a factor at the tightest tolerance is worth. Others are tried within less first: of
fractional Gaussian noise of 100,000 points rounding errors count as rank, so that at 1e-8 it takes 4.3 s with an error
of 2e-3, and at 1e-7 0.6 s with 3e-4. Within the last bound a factor of 2,500 points takes as long as a dense one. It is
for what has no factor before, or none that is `ACCURATE`, as of a quasi-periodic covariance with noise of 1e-8.
"""

MOST_WORK_ROWS = 15_000
"""Rows up to which `MOST_WORK` is tried where there is a factor: 200 microseconds for each are three seconds. Of
100,352 points of fractional noise with H = 0.95 it took 20 s, and the factor remained that with an error of 0.025.
"""

LEAST_TREE = 4000.0
"""The work for each point that a tree takes at least, where its nodes are not equal: a band of less is taken at once.

A tree takes 4 to 9 microseconds for each point of covariances of rank 2 to 38, a band of 200 diagonals 3.7.
"""

BAND_NUMBERS, BAND_NUMBERS_OF_DERIVATIVES = 1 << 27, 1 << 26
"""The most numbers of a band, 1 GiB, and of each of the six arrays of that size that its derivatives take at once."""

ACCURATE = 0.01
"""A measured error of a log-determinant that is small enough: a likelihood ratio that is off by one percent."""

MORE_OF_LOOSER = 4.0
"""A factor that is looser than the tightest takes so much longer than its work says: some are refused before, and
conjugate gradients take it for each step."""

OVERLOOKED = 100.0
"""The largest product with what was left out of T, in units of the tolerance, with a vector of norm one.

For six kernels, 3,001 and 60,000 points, and two sizes of noise it was at most 4.
"""

# Direct factors of series: how it is made

LEAF = 64
"""Rows of a leaf of the tree; more where one point in time would be parted else.

A factor of 100,000 points takes 0.57 s with 64, 0.59 s with 48, 0.72 s with 96.
"""

NEAR_COLUMNS, COLUMNS_PER_OCTAVE = 64, 24
"""How many block columns of T outside of a node are looked at: all nearer ones, and so many in each octave beyond."""

NEAR_COLUMNS_IN_FULL = 1024
"""The same where these have not shown all, as of a covariance with a kink at a lag of 100.

Of a quasi-periodic covariance of 2,400 points with noise of 1e-8 the error of the log-determinant was measured as 4e-2
with 512, and as 6e-4 with 1,024; with 2,048 the rank is too high.

With several channels there are so many columns in all. Of four channels of 25,000 points, a quasi-periodic series and
another one, the factor takes 3.7 s with an error of 3e-5, with 1,024 block columns 9.7 s with 5e-6.
"""

ROUND_RANK = 16
"""Where each shape is compiled, ranks are multiples of this, so that others like it find what was compiled."""

CHUNK = 1 << 20
"""Numbers that one step holds at once where it may be parted, so that it needs little memory.

Factors of 30,000 points take 67 to 108 ms with ``1 << 16``, 80 to 120 with this and 86 to 125 with ``1 << 24``; of
100,000 points none from ``1 << 15`` to this is 10 % faster.
"""

COMPILED_CHUNK = 1 << 24
"""The same where each part is compiled anew, or a GPU wants them together."""

TIGHT_FACTOR = 1e-12
"""The largest tolerance of a factor with which one refinement of a solution leaves no more than rounding.

Of three covariances of 3,000 points with noise of 1e-6 it leaves up to 8e-17 then, as LAPACK does, and up to 3e-16 with
1e-10 and 9e-13 with 1e-8.
"""

LOOSE_FACTOR_STEPS = 100
"""The most steps of conjugate gradients with a loose factor: it takes 1 to 5 where its tolerance is below the noise."""

INVERTED_AT_ONCE = 16
"""Up to so many rows triangular matrices are inverted at once, larger ones by their halves: 200 of 64 rows take 13 ms
with 8, 15 with 16 and 17 with 32."""

SUMS_BY_PRODUCTS = 256
"""Up to so many rows of a node the sums along diagonals are made by products of matrices, of larger ones by transforms.

For 100,000 points and a rank of 20 nodes of 128, 256 and 512 rows take 15, 25 and 45 ms, and by transforms 23, 26 and
29; for a rank of 4 they take 3, 5 and 9, and 5, 5 and 6.
"""

BAND_BLOCK = 32
"""The least rows of a block of the inverse of a band.

For 20,000 rows of 8 diagonals and blocks of 16, 32, 64 and 128 rows the sums along the diagonals of the inverse take
21, 41, 93 and 242 ms, and posterior variances, which need a step of Python for each block, 110, 94, 102 and 132.
"""

DECAYED = 1e-17
"""The size of what is left out of the inverse of a band between two nodes, relative to its largest entry on the
diagonal: below rounding, by which sums are off in any case."""

"""What decides how systems with any operator are solved and determinants are found, and what set each number.

The numbers are read as attributes of this module, so that a test can replace one in one place. Those by which Toeplitz
systems and direct factors of series are solved are in `structmat._toeplitz_systems.thresholds`.
"""

# What is asked for, where nothing else is

RTOL, RTOL_OF_SINGLE = 1e-10, 1e-5
"""The relative residuals at which solutions are good enough, in double and in single precision."""

# Dense matrices

WRITTEN_OUT = 2000
"""The most rows or columns of a matrix that is written out.

Elimination takes 0.14 s for 2,000 unknowns on one core, where 1,000 products with a Toeplitz matrix take 0.07 s, and
singular vectors 0.6 s for 2,000 x 1,000. A log-determinant by Cholesky's factor takes 0.09 s for 1,600 unknowns and
0.15 s for 2,000, and an estimate, which is off by several units of its last digits, 0.02 to 0.1 s.
"""

ELIMINATED_FIRST = 512
"""The most unknowns of a system that is eliminated before any iteration.

For 384 unknowns of NumPy the dense matrix takes 1.8 ms, for 512 it takes 4.1; ten iterations, after which the easiest
systems are solved, take 2 ms by conjugate gradients and 3 by GMRES. In torch it is 2.2, 5.8, 8 and 10 ms. With 64
right-hand sides it is the faster one up to 1,000 unknowns. Systems that take more iterations took 16 to 24 ms.
"""

SINGULAR_VECTORS_FIRST = 128
"""The most rows and columns of a least-squares problem that is solved by singular vectors before any iteration.

For 128 x 128 they take 2.2 ms and for 256 x 256 13; LSMR takes 4 and 5 for the easiest problems.
"""

WRITTEN_OUT_NUMBERS = 1 << 26
"""The most entries of all matrices of a stack that are written out together: 512 MiB in double precision."""

ROWS_OF_ONE_ITERATION = 5000
"""Elimination of n rows takes as long as ``n^2 / ROWS_OF_ONE_ITERATION`` iterations: 200 for 1,000 rows, 1,800 for
3,000."""

DENSE_POSTERIOR = 512
"""The most rows of a series whose posterior variances are those of the dense matrix, which have derivatives.

With 128, 256, 512 and 1,024 rows it takes 1.3, 6, 24 and 94 ms, and the direct factor 2, 3, 5 and 9.
"""

# Bands

WIDEST_BAND = 64
"""The most diagonals on either side of the main one for which a matrix counts as banded at every size.

With 64 a Hermitian band of 512, 1,000 and 2,000 rows is solved in 0.9, 1.5 and 3 ms and a general one in 1.3, 2 and 4;
elimination and iteration that ends early take 9, 3 to 4 and 5 ms. With 128 a general band takes 5, 4 and 16 ms. For
10,000 rows 64 diagonals take 14 to 38 ms, and easy systems 9 to 14 by iteration. Determinants of 512 and 1,000 rows
take 2 and 3 ms in place of 16 and 40, and above as long as other ways.
"""

BANDS_OF_STACK = 100
"""The least rows of the matrices of a stack that are factored as bands one by one.

Each takes 0.1 ms, whatever its size. For 100 matrices of 8 diagonals on either side and 64 rows a solution takes 7 ms,
as dense ones 4, and a determinant 8 and 12; for 128 rows they take 9 and 22, and 13 and 55.
"""

DOMINANT = 0.01
"""The least dominance of a band, or the inverse of a norm in its place, by which the error of its determinant is
bounded.

To measure it takes four solutions, of tridiagonal matrices of 100,000 rows ten times as long as the factor.
"""

LONG_BAND = 4096
"""The least rows of a band whose products are made diagonal by diagonal, and whose moduli are summed in blocks.

For 10,000 rows of 1, 8 and 32 diagonals on either side they take 14, 99 and 498 us, and BLAS with the copy that it
needs 89, 164 and 836; for 1,000 rows 7, 33 and 116, and 11, 17 and 36. No copy of the band is made.
"""

# Direct factors of series

WITHOUT_FACTOR = 1024
"""Up to so many unknowns no direct factor is made unless it is asked for: other ways take a few milliseconds."""

ALONE, ALONE_COMPILED = 2000, 8192
"""The largest Toeplitz matrix without a diagonal beside it for which Levinson's recursion is faster than a factor; the
same where each shape is compiled.

For 2,048 points it takes 12 to 20 ms, the factor 4 to 9, as all nodes of a level are equal; for 8,000 it takes 100 to
200 ms, the factor 11 to 21.
"""

MANY = 4
"""Right-hand sides from which on the factor of a matrix without gaps pays: for 100,000 points it takes 0.65 s, and
conjugate gradients, which a circulant preconditions well there, 0.25 s each."""

WORK_OF_CG, WORK_OF_GMRES = 120.0, 400.0
"""What iteration for a matrix with gaps takes for each point, in units of a factor's work, by the root of its hardness.

That is the sum of the first column in units of the least noise; what sets the first entry of the column apart from all
others counts as noise. Conjugate gradients took 60 to 250 times the root for 2,500 and 8,000 points and nine
covariances, most where the covariance is short. Of 90 systems with gaps and noise of 1e-6 to 10 the way that is taken
was at most 1.8 times as long as the other one. GMRES, which serves where nobody says that a matrix is positive
definite, takes as long as a tree of small rank near a hardness of 100 for 30,000 points.
"""

WORK_OF_ONE_ITERATION = 60.0
"""What one iteration takes for each point, in the same units: for 1,100 to 8,000 points 20 to 60 by conjugate gradients
and 30 to 120 by GMRES, for 100,000 points 125."""

TURNS = (100, 400, 1600)
"""How many iterations are made before a factor that takes as long is tried in their place.

Nothing that is known before says how many iterations a matrix without gaps takes: beside noise of 1e-6 a Matérn
covariance 3/2 of 2,100 points takes 24, a squared exponential 10,000 and more, of which the factor takes 4 ms. Each
time that some iterations have not sufficed the factor may take as long as they, and the next try takes four times as
many, so that neither is waited for much longer than the faster one takes. The last factor may cost whatever it does.
"""

# Iteration

LEAST_ITERATIONS, MOST_ITERATIONS = 100, 10_000
"""The default number of iterations is ten times the number of unknowns, but at least and at most these; half the number
of unknowns, but at least the former, where elimination follows."""

PASSES = 6
"""How often a method is run at most, each time on the residual that the runs before have left.

Of 200 systems of 600 to 1,300 unknowns, with residuals of 1e-10 and 1e-13, none was run more than three times.
"""

TRIAL = 50
"""The iterations after which those of a system that elimination can solve are judged by their progress.

Of 600 to 2,000 unknowns most sums that converge take 9 to 60 iterations; elimination takes as long as 50 to 300. Others
made no progress in half as many iterations as there are unknowns, which took two to seven times as long as elimination.
It is after so many that GMRES begins anew in any case.
"""

MARGIN = 2.0
"""By which factor iteration may fall short of what its progress would need, as it becomes faster.

Of 300 systems of 513 to 2,600 unknowns none that iteration solves was given up with 2, and three with 4 took longer.
"""

RESTART = 50
"""The default number of vectors of a basis of GMRES, for each right-hand side.

For 30 sums of 1,500 rows 10, 20, 50, 100 and 200 vectors took 3,843, 1,570, 2,019, 915 and 833 iterations; with 10 and
20 three more were not solved.
"""

BASES_NUMBERS = 1 << 22
"""How many numbers the bases of GMRES of all right-hand sides that are treated together may have.

For 64 right-hand sides of 10,000 unknowns it took 0.62 s of the processor with so many numbers, 0.71 with a quarter and
0.79 with four times as many; SciPy's GMRES, one right-hand side after the other, took 0.80 s.
"""

LEAST_EIGENVALUE = 1e-6
"""The least modulus of an eigenvalue of a preconditioner, relative to the largest; smaller ones are raised.

For 120 sums of 1,500 to 2,000 rows, half of them with gaps, the median was 70 iterations with 1e-2, 27 with 1e-4, and
23 from 1e-6 to 1e-10.
"""

# Acceptance of solutions

ROUNDING = 16.0
"""The residual that counts as a rounding error, in units of eps times the norm of A times that of x.

Elimination by LAPACK left at most 2.4 of them for 1,000 matrices of 2 to 30 rows, random, ill-conditioned and those of
smooth kernels, 9 of 64 to 200 rows, and 22 of kernels of 512 rows that are singular but for rounding.
"""

NORM_STEPS = 3
"""Steps of the power method for a norm, which is bounded from below.

Of 400 matrices of 4 to 300 rows the bound was at least 0.52 of the norm with one step, 0.68 with two, 0.78 with three
and 0.82 with six.
"""

# Determinants

EXACT_LOGARITHM = 1e-12
"""The error of an exact logarithm that is near enough, whatever is wanted, in units of unknowns plus its modulus.

No estimate is better: dense Cholesky factors of nine covariances of 600 points were further off from a condition number
of 1e6 on.
"""

LARGE_ERROR = 1e-3
"""The error of a logarithm from which on the next way is asked as well.

Likelihoods are compared by differences of logarithms, for which less is of no account. Of squared exponentials and
quasi-periodic covariances of 1,100 to 2,000 points, noise of 1e-12 is measured as 0.06 to 2.5, and 1e-8 as at most
2e-4, beside which the dense factor takes up to 40 times as long.
"""

FAR_OFF = 1.0
"""The error of a direct factor of a series of more than 2,000 points from which on a dense one is asked.

That takes 1 s for 4,000 points and 10 s for 9,000, where the direct factor takes 0.05 s.
"""

DENSE_SERIES = 4096
"""The most points of a series without a direct factor whose determinant is that of the dense matrix, not an estimate.

That takes about a second, as an estimate of ill-conditioned ones does, which is off by 1 in 500.
"""

GAPS = 1 << 22
"""The most missing rows of a grid times its points with which its determinant is computed by those that are missing.

As many numbers are: for 32,768 points 100 missing ones take 0.09 s.
"""

ALL_COLUMNS = 32
"""The most unknowns of a matrix of which all columns of the inverse are looked at.

A few random vectors may be orthogonal to the eigenvector of the least eigenvalue: of two unknowns, four vectors of
signs were so in one of eight cases.
"""

# Estimates of determinants

PROBES = 32
"""The default number of probes. Of sums of 1,500 rows 8, 32 and 128 take 6, 16 and 64 ms, and the standard error of a
covariance with a kink is 12, 5 and 2."""

STEPS = 1000
"""The default number of Lanczos steps, at most: one matrix of ``WITH_EIGENVECTORS`` unknowns settles before."""

MOST_GROUPS = 100
"""The most groups of probes for a wanted error: together they have a tenth of the standard error of one."""

STEPS_OF_TRACE = 50
"""The default number of Lanczos steps in a trace of JAX, where all of them are made."""

STEPS_APART = 5
"""The fewest Lanczos steps between two looks at the quadrature."""

RATIO_OF_LOOKS = 1.25
"""The least ratio of the numbers of steps of two looks.

Once Lanczos vectors are no longer orthogonal, values change little over a few steps and much over many. With looks 5
steps apart four of 40 matrices with gaps were 8 to 64 standard errors off, all of condition numbers above 1e9; with
these, none of 400.
"""

BIAS = 0.1
"""The largest error that the quadrature may have, in units of the standard error."""

WITH_EIGENVECTORS = 1024
"""The most unknowns of a matrix whose eigenvectors are computed where an estimate of it has not settled.

They take 32 ms for 512 unknowns, 0.2 s for 1,024 and 1.5 s for 2,048.
"""

ROUNDING_OF_LOGARITHM = 64.0
"""The largest difference of two logarithms that counts as a rounding error, in units of eps times unknowns plus
modulus.

Cholesky's factors of 45 matrices and of the same ones in reverse order differed by up to 32 of them.
"""

SYSTEMS_OF_GRADIENTS = {8: 1e-6, 4: 1e-4}
"""The relative residual of the systems that the gradient of an estimate takes, by the bytes of a number: far below what
probes miss."""

"""Direct factors of a Hermitian positive definite Toeplitz matrix plus a diagonal, with any rows missing, in O(n r^2).

The matrix is ``K = M T M + D + (1 - M)``: T a Toeplitz matrix, M the mask of the rows that are there, D the noise in
these. Its inverse and its determinant come from a hierarchically semiseparable (HSS) form of T [1]_, [2]_, [3]_.

**The tree.** The n points are cut into leaves of m points, and neighbours are joined two by two, level by level. Where
n is no multiple of the size of a level, its last node, the *tail*, is shorter: no point is made up, so that T needs no
continuation.

**One basis a level.** A node of s points sees all others through its rows of T, of which r are independent up to the
tolerance: with an interpolation matrix P and r skeleton points p, ``T[i, j] = sum_a P[i, a] T[p_a, j]`` for each j
outside. As T is invariant under translations, all nodes of a level but the tail share P and p. QR factorisation with
pivoting finds both [4]_: at the leaves from all m points, above from the skeleton points of the two children, so that
bases are nested. It is given columns of T outside: all that are near, and of those that are far some in each octave of
the distance, as a covariance varies less there. What such a choice may overlook is found in the end, as a solution is
compared with the product by the matrix itself.

**Elimination.** A node has variables x, a matrix K, and a basis U, so that its equations are ``K x + U f = b`` with f
from outside. With the complete QR factorisation ``U = Q_1 R``, ``Q = (Q_1, Q_2)``, only ``Q_1^H x`` takes part outside;
the others are eliminated. With the Cholesky factor of ``Q^H K Q``, ordered so that Q_2 comes first, with blocks
``L_22``, ``X`` below, and ``L_11``,

    N = L_22^-1 Q_2^H,          V = Q_1 - N^H X^H,
    K^-1 = N^H N + V (L_11 L_11^H)^-1 V^H,

and ``log det K`` is that of the pivots of L_22 and of ``L_11 L_11^H``, which is what is left of the node. Two children
are joined to ``K = [[K_1, R_1 S R_2^H], [R_2 S^H R_1^H, K_2]]``, K_1 and K_2 being what is left of them and S the
entries of T between their skeleton points, and to ``U = (R_1 P_1, R_2 P_2)``. All nodes of a level are one batch. Gaps
and noise enter at the leaves only: in the rows of U that are missing there are zeros. Without gaps, and with even
noise, all nodes of a level but the tail are equal, and one is computed: O(r^3 log n) in place of O(n r^2). Only
orthogonal matrices and Cholesky factors of positive definite matrices are used, so that errors are those of elimination
[3]_; a form that carries ``U^H K^-1 U`` upward in place of what is left was tried, and lost as many digits again as the
matrix is ill-conditioned.

**Channels.** T may have blocks of p x p, whose rows are those of p channels at one point in time. As no point is parted
between two nodes, T is invariant under the translations of nodes, and all of the above holds as it stands: `entries` of
`batches` is where blocks are read.

**Bands.** Where T is zero beyond some lag, or as small as what a tree leaves out, K is factored as a band by LAPACK
instead if that takes less work: blocks of covariances of compact support have a rank of up to twice the support.

**Derivatives.** ``d log det K = tr(K^-1 dK)`` takes the sums along the diagonals of the inverse, which are exact for
any change of T, smooth or not; they have no derivatives in turn. From the root down ``Z = N^H N + V Z_above V^H`` is
the inverse in the variables of a node, Z_above being its block for what was left of it; between two children it is
``Phi_1 Z_12 Phi_2^H`` with products Phi of the V below. Its sums are products of matrices for small nodes and
correlations by FFTs for large ones, over all nodes of a level together. Solutions have the implicit rule,
``dx = K^-1 (db - dK x)``.

**Where.** `tree`, `matrix` (K by its products), `bases`, `ways` (what is left in the nodes, and the ways up and down
through them), `factorisation`, `factor`, `inverse_sums`; `band` and `band_inverse` the same for bands; `diagonal_sums`
is what both take for derivatives. `conditional` has posterior variances by either, `posterior` for their users.
`derivatives` has the rules, for either kind; `solver` chooses between them and is
what others use, `on_host` the same where values are not known yet; `batches` has what all share.

References
----------
.. [1] Chandrasekaran, S., Gu, M., Sun, X., Xia, J., Zhu, J., A superfast algorithm for Toeplitz systems of linear
   equations, SIAM J. Matrix Anal. Appl. 29, 2007.
.. [2] Martinsson, P.-G., Rokhlin, V., A fast direct solver for boundary integral equations in two dimensions, J.
   Comput. Phys. 205, 2005.
.. [3] Xia, J., Chandrasekaran, S., Gu, M., Li, X. S., Fast algorithms for hierarchically semiseparable matrices, Numer.
   Linear Algebra Appl. 17, 2010.
.. [4] Cheng, H., Gimbutas, Z., Martinsson, P.-G., Rokhlin, V., On the compression of low rank matrices, SIAM J. Sci.
   Comput. 26, 2005.
"""

from structmat._toeplitz_systems.superfast.bases import RankError
from structmat._toeplitz_systems.superfast.derivatives import SeriesFactor
from structmat._toeplitz_systems.superfast.matrix import NoisyToeplitz
from structmat._toeplitz_systems.superfast.on_host import FactorOnHost, LogDeterminantOnHost
from structmat._toeplitz_systems.superfast.posterior import series_variances
from structmat._toeplitz_systems.superfast.solver import SuperfastFactor

__all__ = [
    "FactorOnHost",
    "LogDeterminantOnHost",
    "NoisyToeplitz",
    "RankError",
    "SeriesFactor",
    "SuperfastFactor",
    "series_variances",
]

"""`CDDEmbedding`: a frozen embedding with a change of its table."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from structmat._errors import ArgumentTypeError, ArgumentValueError
from structmat.torch._adapters.adapter import CDDAdapter
from structmat.torch._changes.dense import wide_dtype
from structmat.torch._layers.adapted_layer import AdaptedLayer

__all__ = ["CDDEmbedding"]


class CDDEmbedding(AdaptedLayer):
    """A frozen embedding and a trainable change ``alpha D C D`` of its table, of which rows are gathered.

    Parameters
    ----------
    base : torch.nn.Embedding
        Without ``max_norm``; or one of transformers that multiplies rows of its table by ``embed_scale``, as those of
        Gemma and BART do. It is frozen and shared, not copied.
    **options
        Arguments of `CDDAdapter`; three factors only, with which a row of the change is a gather and two products.

    Raises
    ------
    TypeError
        If the base is another module.
    ValueError
        If the base has a ``max_norm``, `n_factors` is not 3, or an option is wrong.

    See Also
    --------
    CDDLinear : The same for linear layers.

    Notes
    -----
    The first diagonal has one entry for each token. That of the base's ``padding_idx`` starts at zero and gets no
    gradient, like that row of the table. Dropout sets the changes of whole tokens to zero.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import CDDEmbedding
    >>> layer = CDDEmbedding(torch.nn.Embedding(10, 4))
    >>> layer(torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 3, 4])
    """

    _plural = "embeddings"
    _row_axes = 0
    _shown = frozenset({"num_embeddings", "embedding_dim", "padding_idx", "embed_scale", "scalar_embed_scale"})

    def __init__(self, base: nn.Embedding, **options: Any) -> None:
        super().__init__(base, *self._features(base), **options)

    @classmethod
    def _recognises(cls, module: nn.Module) -> bool:
        return type(module) is nn.Embedding or _has_scaled_rows(module)

    @classmethod
    def _features(cls, base: Any) -> tuple[int, int]:
        if not cls._recognises(base):
            text = (
                f"must be a torch.nn.Embedding, or one of transformers with an embed_scale, got {type(base).__name__}"
            )
            raise ArgumentTypeError("CDDEmbedding", "base", text)
        if base.max_norm is not None:
            raise ArgumentValueError("CDDEmbedding", "base", "has a max_norm, so that it rewrites its frozen table")
        return base.embedding_dim, base.num_embeddings

    @classmethod
    def _prepare(cls, base: Any, adapter: CDDAdapter) -> None:
        if adapter.n_factors != 3:
            raise ArgumentValueError("CDDEmbedding", "n_factors", f"must be 3, got {adapter.n_factors}")
        if base.padding_idx is not None:
            with torch.no_grad():
                adapter.vectors[0][base.padding_idx] = 0

    @classmethod
    def _add(cls, base: Any, adapter: CDDAdapter, y: Tensor, x: Tensor) -> Tensor:
        # Row t of D C D is left[t] times a row of the circulants, which a gather finds, times the right diagonal.
        left, grid, right = adapter.vectors.forward()
        side = grid.shape[2]
        lags = (x[..., None] - torch.arange(side, device=x.device)) % side
        blocks = grid[x // side]  # (..., q, b)
        rows = blocks.gather(-1, lags[..., None, :].expand(blocks.shape)).flatten(-2)[..., : len(right)]
        dtype = wide_dtype(y, left, grid, right)
        scale = adapter.gain * nn.functional.embedding(x, left[:, None], base.padding_idx).to(dtype)
        if adapter.drops:
            scale = adapter.dropped(torch.ones_like(scale)) * scale
        if _has_scaled_rows(base):
            # Where it is a tensor, some classes round it to the dtype of the table.
            scale = scale * (base.embed_scale.to(y.dtype) if isinstance(base.embed_scale, Tensor) else base.embed_scale)
        return (y + scale * (rows * right.to(dtype))).to(y.dtype)

    @classmethod
    def _multiplies_by_weight(cls, base: Any, features: tuple[int, int]) -> bool:
        # No other classes are recognised, and these return rows of their weight, or multiples of them by one number.
        return True

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the embeddings of tokens.

        Parameters
        ----------
        tokens : Tensor of integers, shape (...)
            Rows of the table.

        Returns
        -------
        Tensor, shape (..., embedding_dim)
            Rows of the table with its changes.
        """
        out: Tensor = self._with_changes(self.base, [(self.adapter, None)], self.base, tokens)
        return out


def _has_scaled_rows(base: Any) -> bool:
    """Return whether an embedding multiplies rows of its table by one number, as those of Gemma and BART do.

    The classes of transformers are known by the end of their names.
    """
    scaled = type(base).__name__.endswith("ScaledWordEmbedding") and hasattr(base, "embed_scale")
    return isinstance(base, nn.Embedding) and scaled

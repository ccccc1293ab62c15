"""`CDDEmbedding`: an embedding whose table has a CDD change; rows of the change are gathered, never all made."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from structmat._array_tools import ArgumentTypeError, ArgumentValueError
from structmat.torch._adapter.cdd_adapter import CDDAdapter
from structmat.torch._layers.adapted_layer import AdaptedLayer

__all__ = ["CDDEmbedding"]


class CDDEmbedding(AdaptedLayer):
    """A frozen embedding and a trainable change ``alpha D C D`` of its table.

    Parameters
    ----------
    base : torch.nn.Embedding
        Without ``max_norm``. It is frozen and shared, not copied.
    name : str, default "default"
        Of the adapter.
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
    The first diagonal has one entry for each token, so the count of parameters is at least the number of embeddings.
    The entry of the base's ``padding_idx`` starts at zero and gets no gradient, like that row of the table. Dropout
    sets the changes of whole tokens to zero, since the input of the change is the unit vector of a token.

    Examples
    --------
    >>> import torch
    >>> from structmat.torch import CDDEmbedding
    >>> layer = CDDEmbedding(torch.nn.Embedding(10, 4))
    >>> layer(torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 3, 4])
    """

    def __init__(self, base: nn.Embedding, *, name: str = "default", **options: Any) -> None:
        if type(base) is not nn.Embedding:
            raise ArgumentTypeError("CDDEmbedding", "base", f"must be a torch.nn.Embedding, got {type(base).__name__}")
        if base.max_norm is not None:
            raise ArgumentValueError("CDDEmbedding", "base", "has a max_norm, so that it rewrites its frozen table")
        super().__init__(base, base.embedding_dim, base.num_embeddings, name=name, **options)

    def add_adapter(self, name: str = "default", **options: Any) -> CDDAdapter:
        """Add a change of three factors; see `AdaptedLayer.add_adapter`.

        Parameters
        ----------
        name : str, default "default"
            Without a dot; not yet in use here.
        **options
            Arguments of `CDDAdapter`.

        Returns
        -------
        CDDAdapter
            The new one.

        Raises
        ------
        ValueError
            If `n_factors` is not 3, the name is taken, or an option is wrong.
        """
        if options.get("n_factors", 3) != 3:
            raise ArgumentValueError("CDDEmbedding", "n_factors", f"must be 3, got {options['n_factors']}")
        adapter = super().add_adapter(name, **options)
        if self.base.padding_idx is not None:
            with torch.no_grad():
                adapter.factors[0][self.base.padding_idx] = 0
        return adapter

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
        y = self.base(tokens)
        if self._selects:
            return self._selected(y, tokens)
        for adapter in self._added():
            y = self._add(adapter, y, tokens)
        return y

    def _add(self, adapter: CDDAdapter, y: Tensor, x: Tensor) -> Tensor:
        left, grid, right = adapter.factors.forward()
        side = grid.shape[2]
        lags = (x[..., None] - torch.arange(side, device=x.device)) % side
        blocks = grid[x // side]  # (..., q, b)
        rows = blocks.gather(-1, lags[..., None, :].expand(blocks.shape)).flatten(-2)[..., : len(right)]
        scale = nn.functional.embedding(x, adapter.alpha * left[:, None], self.base.padding_idx)
        if adapter.is_dropping:
            scale = nn.functional.dropout(torch.ones_like(scale), adapter.dropout) * scale
        return (y + scale * rows * right).to(y.dtype)

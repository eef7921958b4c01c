"""Object saliency without a model: what is unlike the image's border, by ranking on a graph and by likelihood.

Yang et al., "Saliency Detection via Graph-Based Manifold Ranking", CVPR 2013; Xie, Lu and Yang, "Bayesian
Saliency via Low and Mid Level Cues", IEEE TIP 22(5), 2013.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sgdmix_albu.colour import rgb_to_lab
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.saliency.base import SaliencyBackend, normalize_maps, resize_maps

__all__ = ["ManifoldRanking", "manifold_ranking"]

_GRID = 20  # nodes on a side of the graph
_FINE = 2  # map pixels on a side of a node
_SAMPLES = 8  # image samples on a side of a node, for its mean and its texture
_RADIUS = 2  # nodes are linked to their neighbours' neighbours, as in Yang et al.
_ALPHA = 0.99  # Yang et al., section 3.1
_FALL_OFF = 10.0  # their 1 / sigma^2 = 10 on colours in [0, 1], in units of CIE Lab
_TEXTURE = 12.0  # units of CIE Lab for a texture e times as strong
_COLOUR_SPREAD = 5.0  # of one surface, in units of CIE Lab
_SPACE_SPREAD = 0.4  # how far colours vouch for each other, in image sides
_CENTRE_SPREAD = 0.3  # of the photographer's aim, in image sides
_RARE = 1e-3  # the density below which a colour counts as never seen


class ManifoldRanking(SaliencyBackend):
    """Training-free object saliency: see :func:`manifold_ranking`, which does the work.

    Args:
        microbatch: The most images worked on at once, about 8 MB each; None for all. On a GPU take more.

    Example:
        >>> import torch
        >>> images = torch.rand(2, 3, 90, 120, generator=torch.Generator().manual_seed(0))
        >>> ManifoldRanking()(images).shape, ManifoldRanking().coarse(images).shape
        (torch.Size([2, 90, 120]), torch.Size([2, 40, 40]))
    """

    def __init__(self, *, microbatch: int | None = 8) -> None:
        super().__init__(microbatch=microbatch)

    @property
    def uses_labels(self) -> bool:
        """Never."""
        return False

    def _raw(self, images: Tensor, labels: Tensor | None) -> Tensor:
        return manifold_ranking(images)


def manifold_ranking(images: Tensor) -> Tensor:
    r"""Where the object is, for photographs of one thing before a background that reaches the border.

    The image is squashed to a grid of 20 x 20 nodes, each with a feature ``f``: its mean CIE Lab colour, and the
    mean strength of lightness steps in four directions in and around it.

    1. Ranking (Yang et al., equations 3 to 5). On the graph with weights ``W = exp(-|f_i - f_j| / 10)`` every
       node is ranked by ``(D - 0.99 W)^-1 q`` against each side of the border; what ranks low against all
       four sides is ranked once more, as the query.
    2. Novelty: ``-log`` of the density of the border's features at a node. It finds what ranking, which
       follows paths over the image, blurs. The prior is the mean of both.
    3. Likelihood (Xie et al., section V): densities of features and positions inside and outside of the
       prior give ``p(in) / (p(in) + p(out))``; once more with the result (times a centre prior) in place of
       the prior, now for each of 40 x 40 pixels. Both densities are normalised, which is what lets a small
       object win inside a prior that is mostly background.

    The map is the second likelihood times the prior.

    Departures: a regular grid in place of SLIC superpixels; the query's own node is ranked as well;
    kernel densities in place of histograms; texture beside colour. The measure is chosen for images in
    which the object is smaller than the background; an object that fills the border is taken for background.

    Args:
        images: (B, 3, H, W) floating-point RGB in [0, 1], any size.

    Returns:
        (B, 40, 40) float32 in [0, 1]; zeros where the image is constant.

    Raises:
        InvalidInputError: Not a (B, 3, H, W) floating-point tensor.

    Example:
        >>> import torch
        >>> image = torch.full((1, 3, 40, 40), 0.2)
        >>> image[:, 0, 12:28, 12:28] = 0.9
        >>> saliency = manifold_ranking(image)[0]
        >>> bool(saliency[20, 20] > 0.9), bool(saliency[2, 2] < 0.1)
        (True, True)
    """
    if images.ndim != 4 or images.shape[1] != 3 or not images.dtype.is_floating_point or 0 in images.shape[2:]:
        raise InvalidInputError(
            f"expected (B, 3, H, W) floating-point images, got {images.dtype} {tuple(images.shape)}"
        )
    fine = _GRID * _FINE
    if not len(images):
        return images.new_zeros(0, fine, fine, dtype=torch.float32)
    nodes, pixels = _features(images)
    gaps = torch.cdist(nodes, nodes)
    ranked = _as_map(_ranking(gaps))
    prior = normalize_maps(ranked + _as_map(_novelty(gaps)))
    first = _likelihood(_kernel(nodes, nodes), prior)
    aimed = normalize_maps(first * _centre(_GRID, images.device))
    second = _likelihood(_kernel(pixels, nodes), aimed)
    flat = gaps.amax((1, 2)) < 1e-3
    return normalize_maps(second * resize_maps(prior, (fine, fine))).masked_fill(flat[:, None, None], 0)


def _features(images: Tensor) -> tuple[Tensor, Tensor]:
    """Colour and texture of the nodes, (B, 400, 7), and of the map's pixels, (B, 1600, 7)."""
    side = _GRID * _SAMPLES
    samples = F.interpolate(images.float(), (side, side), mode="bilinear", antialias=True, align_corners=False)
    colour = rgb_to_lab(samples)
    edges = F.avg_pool2d(_edges(colour[:, :1]), _SAMPLES)
    texture = _TEXTURE * F.avg_pool2d(edges, 3, stride=1, padding=1, count_include_pad=False).log1p()
    # Texture has no finer resolution than the windows it is taken over; colour has.
    fine_texture = F.interpolate(texture, scale_factor=_FINE, mode="bilinear", align_corners=False)
    nodes = torch.cat([F.avg_pool2d(colour, _SAMPLES), texture], 1)
    pixels = torch.cat([F.avg_pool2d(colour, _SAMPLES // _FINE), fine_texture], 1)
    return nodes.flatten(2).mT, pixels.flatten(2).mT


def _edges(lightness: Tensor) -> Tensor:
    """(B, 1, h, w) to (B, 4, h, w): absolute steps across, down and along both diagonals."""
    padded = F.pad(lightness, (1, 1, 0, 1), mode="replicate")
    here, below = padded[:, :, :-1], padded[:, :, 1:]
    steps = [here[..., 2:], below[..., 1:-1], below[..., 2:], below[..., :-2]]
    return (torch.cat(steps, 1) - lightness).abs()


def _ranking(gaps: Tensor) -> Tensor:
    """Yang et al.: (B, N, N) feature distances to (B, N) ranks in [0, 1]."""
    linked, sides = _links(gaps.device), _sides(gaps.device)
    # No link is weaker than this, which keeps the matrix well conditioned and changes no rank.
    weights = (gaps / -_FALL_OFF).exp_().clamp_min_(1e-5).mul_(linked)
    scale = weights.sum(2).rsqrt()
    matrix = weights.mul_(scale[:, :, None] * -_ALPHA).mul_(scale[:, None])
    matrix.diagonal(dim1=1, dim2=2).fill_(1)
    factor = torch.linalg.cholesky(matrix)

    def rank(queries: Tensor) -> Tensor:
        return scale[:, :, None] * torch.cholesky_solve(scale[:, :, None] * queries, factor)

    like_border = rank(sides.expand(len(gaps), -1, -1))
    unlike_border = _stretched((1 - like_border / like_border.amax(1, keepdim=True)).prod(2))
    query = (unlike_border > unlike_border.mean(1, keepdim=True)).float()
    return _stretched(rank(query[:, :, None])[:, :, 0])


def _novelty(gaps: Tensor) -> Tensor:
    """(B, N): how rare a node's features are on the four sides, each side weighing the same."""
    share = _sides(gaps.device).mean(1) / _GRID
    border = share.nonzero()[:, 0]
    alike = (gaps[:, :, border] / _COLOUR_SPREAD).square().div_(-2).exp_()
    return _stretched(-(alike @ share[border] + _RARE).log())


def _kernel(at: Tensor, nodes: Tensor) -> Tensor:
    """(B, M, N) Gaussian in features and position between (B, M, F) pixels and (B, N, F) nodes."""
    a, b = _in_spreads(at), _in_spreads(nodes)
    # -|a - b|^2 / 2 as one product, since passes over a (B, M, N) tensor are what costs.
    ones = torch.ones_like
    left = torch.cat([a, a.square().sum(2, keepdim=True) / -2, ones(a[..., :1])], 2)
    right = torch.cat([b, ones(b[..., :1]), b.square().sum(2, keepdim=True) / -2], 2)
    # Bounded, since denormal numbers slow the products that follow.
    return (left @ right.mT).clamp_min_(-40).exp_()


def _in_spreads(features: Tensor) -> Tensor:
    """(B, N, F) features and their positions, (B, N, F + 2), in standard deviations of the kernel."""
    positions = _positions(features.shape[1], features.device).expand(len(features), -1, -1)
    return torch.cat([features / _COLOUR_SPREAD, positions / _SPACE_SPREAD], 2)


def _likelihood(kernel: Tensor, inside: Tensor) -> Tensor:
    """p(in) / (p(in) + p(out)) for the kernel's rows; ``inside`` (B, g, g) in [0, 1] weighs its columns."""
    weights = torch.stack([inside, 1 - inside], -1).flatten(1, 2)
    weights = weights / weights.sum(1, keepdim=True).clamp_min(1e-6)
    density = kernel @ weights + _RARE / weights.shape[1]
    return _as_map(density[:, :, 0] / density.sum(2))


def _links(device: torch.device) -> Tensor:
    """(N, N): 1 between nodes two steps apart or fewer, and between any two of the border (Yang et al., 3.2)."""
    index = torch.arange(_GRID, device=device)
    near = ((index[:, None] - index).abs() <= _RADIUS).float()
    border = _sides(device).amax(1)
    return torch.maximum(torch.kron(near, near), border[:, None] * border).fill_diagonal_(0)


def _sides(device: torch.device) -> Tensor:
    """(N, 4): 1 on the top, bottom, left and right side."""
    sides = torch.zeros(4, _GRID, _GRID, device=device)
    sides[0, 0] = sides[1, -1] = sides[2, :, 0] = sides[3, :, -1] = 1
    return sides.flatten(1).T


def _positions(count: int, device: torch.device) -> Tensor:
    """(count, 2) centres of a square grid's cells, in image sides."""
    side = round(count**0.5)
    at = (torch.arange(side, device=device) + 0.5) / side
    return torch.cartesian_prod(at, at)


def _centre(side: int, device: torch.device) -> Tensor:
    """(side, side) Gaussian around the middle."""
    away = (_positions(side * side, device) - 0.5).square().sum(1)
    return (away / (-2 * _CENTRE_SPREAD**2)).exp().view(side, side)


def _as_map(values: Tensor) -> Tensor:
    """(B, side * side) to (B, side, side)."""
    side = round(values.shape[1] ** 0.5)
    return values.view(-1, side, side)


def _stretched(values: Tensor) -> Tensor:
    """(B, N) to [0, 1]."""
    return normalize_maps(values[:, None])[:, 0]

"""Object saliency without a model: what is unlike the image's border, by ranking on a graph and by likelihood.

Yang et al., "Saliency Detection via Graph-Based Manifold Ranking", CVPR 2013; Xie, Lu and Yang, "Bayesian
Saliency via Low and Mid Level Cues", IEEE TIP 22(5), 2013.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.refusals import read_together, refuse_if
from sgdmix_albu.saliency.base import SaliencyBackend, normalize_maps
from sgdmix_albu.saliency.lab import rgb_to_lab
from sgdmix_albu.tensors import FLOATS, check_tensor

_GRID = 24  # nodes on a side of the graph
_SAMPLES = 6  # image samples on a side of a node, for its mean and its texture
_RADIUS = 2  # nodes are linked to their neighbours' neighbours, as in Yang et al.
_ALPHA = 0.99  # Yang et al., section 3.1
_FALL_OFF = 10.0  # their 1 / sigma^2 = 10 on colours in [0, 1], in units of CIE Lab
_TEXTURE = 12.0  # units of CIE Lab for a texture e times as strong
_COLOUR_SPREAD = 5.0  # of one surface, in units of CIE Lab
_SPACE_SPREAD = 0.4  # how far colours vouch for each other, in image sides
_CENTRE_SPREAD = 0.3  # of the photographer's aim, in image sides
_ROUNDING = 1e-6  # by which interpolation may step over the ends of [0, 1]
_RARE = 1e-3  # the density below which a colour counts as never seen


class ManifoldRanking(SaliencyBackend):
    """Training-free object saliency: see :func:`manifold_ranking`, which does the work.

    Args:
        microbatch: The most images worked on at once, about 8 MB each; None for 8 on a CPU and 192 on a GPU.

    Example:
        >>> import torch
        >>> images = torch.rand(2, 3, 90, 120, generator=torch.Generator().manual_seed(0))
        >>> ManifoldRanking()(images).shape, ManifoldRanking().coarse(images).shape
        (torch.Size([2, 90, 120]), torch.Size([2, 24, 24]))
    """

    uses_labels = False
    at_once = (8, 192)

    def _raw(self, images: Tensor, labels: Tensor | None) -> Tensor:
        return manifold_ranking(images)


@read_together()
def manifold_ranking(images: Tensor) -> Tensor:
    r"""Where the object is, for photographs of one thing before a background that reaches the border.

    The image is squashed to a grid of 24 x 24 nodes, each with a feature ``f``: its mean CIE Lab colour, and the
    mean strength of lightness steps in four directions in and around it.

    1. Ranking (Yang et al., equations 3 to 5). On the graph with weights ``W = exp(-|f_i - f_j| / 10)`` every
       node is ranked by ``(D - 0.99 W)^-1 q`` against each side of the border; what ranks low against all
       four sides is ranked once more, as the query.
    2. Novelty: ``-log`` of the density of the border's features at a node. It finds what ranking, which
       follows paths over the image, blurs. The prior is the mean of both.
    3. Likelihood (Xie et al., section V): densities of features and positions inside and outside of the
       prior give ``p(in) / (p(in) + p(out))``; once more with the result (times a centre prior) in place of
       the prior. Both densities are normalised, which is what lets a small
       object win inside a prior that is mostly background.

    The map is the second likelihood times the prior.

    Departures: a regular grid in place of SLIC superpixels; the query's own node is ranked as well;
    kernel densities in place of histograms; texture beside colour; computed in float64, so that the map does not
    depend on the processor, the threads or the batch. The measure is chosen for images in
    which the object is smaller than the background; an object that fills the border is taken for background.

    Args:
        images: (B, 3, H, W) floating-point RGB in [0, 1], any size.

    Returns:
        (B, 24, 24) float32 in [0, 1]; zeros where the image is constant.

    Raises:
        InvalidInputError: Not a (B, 3, H, W) floating-point tensor, or values outside [0, 1].

    Example:
        >>> import torch
        >>> image = torch.full((1, 3, 40, 40), 0.2)
        >>> image[:, 0, 12:28, 12:28] = 0.9
        >>> saliency = manifold_ranking(image)[0]
        >>> bool(saliency[12, 12] > 0.9), bool(saliency[2, 2] < 0.1)
        (True, True)
    """
    check_tensor(images, "(B, 3, H, W) floating-point images", (-1, 3, None, None), FLOATS)
    if not len(images):
        return images.new_zeros(0, _GRID, _GRID, dtype=torch.float32)
    nodes = _features(images)
    gaps = _distances(nodes)
    ranked = _as_map(_ranking(gaps))
    prior = normalize_maps(ranked + _as_map(_novelty(gaps)))
    kernel = _kernel(nodes)
    first = _likelihood(kernel, prior)
    second = _likelihood(kernel, normalize_maps(first * _centre(images.device)))
    flat = gaps.amax((1, 2)) < 1e-3
    return normalize_maps(second * prior).masked_fill(flat[:, None, None], 0).float()


def _features(images: Tensor) -> Tensor:
    """Colour and texture of the nodes, (B, N, 7)."""
    side = _GRID * _SAMPLES
    # A photograph may have 90 million pixels: one channel of them at a time in float64.
    channels = (images[:, place : place + 1].double() for place in range(3))
    shrunk = [
        F.interpolate(one, (side, side), mode="bilinear", antialias=True, align_corners=False) for one in channels
    ]
    samples = torch.cat(shrunk, 1)
    low, high = torch.aminmax(samples)
    refuse_if(
        ~((low >= -_ROUNDING) & (high <= 1 + _ROUNDING)),
        lambda: InvalidInputError(f"expected RGB in [0, 1], got values from {float(low):g} to {float(high):g}"),
    )
    colour = rgb_to_lab(samples)
    edges = F.avg_pool2d(_edges(colour[:, :1]), _SAMPLES)
    texture = F.avg_pool2d(edges, 3, stride=1, padding=1, count_include_pad=False).log1p()
    return torch.cat([F.avg_pool2d(colour, _SAMPLES), _TEXTURE * texture], 1).flatten(2).mT


def _distances(points: Tensor) -> Tensor:
    """(B, N, F) to (B, N, N), by differences: by products, equal points would lie apart by their rounding."""
    return torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")


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
    # Unlike cholesky, this reads nothing from a GPU; the matrix is positive definite.
    factor = torch.linalg.cholesky_ex(matrix).L

    def rank(queries: Tensor) -> Tensor:
        return scale[:, :, None] * torch.cholesky_solve(scale[:, :, None] * queries, factor)

    like_border = rank(sides.expand(len(gaps), -1, -1))
    unlike_border = _stretched((1 - like_border / like_border.amax(1, keepdim=True)).prod(2))
    query = (unlike_border > unlike_border.mean(1, keepdim=True) + 1e-9).double()
    return _stretched(rank(query[:, :, None])[:, :, 0])


def _novelty(gaps: Tensor) -> Tensor:
    """(B, N): how rare a node's features are on the four sides, each side weighing the same."""
    share = _sides(gaps.device).mean(1) / _GRID
    border = _border(gaps.device)
    alike = (gaps[:, :, border] / _COLOUR_SPREAD).square().div_(-2).exp_()
    return _stretched(-(alike @ share[border] + _RARE).log())


def _kernel(nodes: Tensor) -> Tensor:
    """(B, N, N) Gaussian in features and position between (B, N, F) nodes."""
    positions = _positions(nodes.device).expand(len(nodes), -1, -1)
    points = torch.cat([nodes / _COLOUR_SPREAD, positions / _SPACE_SPREAD], 2)
    length = points.square().sum(2)
    # By products, which are faster, and here no root makes much of their rounding.
    squares = torch.baddbmm(length[:, :, None] + length[:, None], points, points.mT, alpha=-2)
    # Clamped, since processors are slow with the subnormal numbers that lie beyond.
    return squares.div_(-2).clamp_(-60, 0).exp_()


def _likelihood(kernel: Tensor, inside: Tensor) -> Tensor:
    """p(in) / (p(in) + p(out)) for the kernel's rows; ``inside`` (B, g, g) in [0, 1] weighs its columns."""
    weights = torch.stack([inside, 1 - inside], -1).flatten(1, 2)
    weights = weights / weights.sum(1, keepdim=True).clamp_min(1e-6)
    density = kernel @ weights + _RARE / weights.shape[1]
    return _as_map(density[:, :, 0] / density.sum(2))


def _links(device: torch.device) -> Tensor:
    """(N, N): 1 between nodes two steps apart or fewer, and between any two of the border (Yang et al., 3.2)."""
    index = torch.arange(_GRID, device=device)
    near = ((index[:, None] - index).abs() <= _RADIUS).double()
    border = _sides(device).amax(1)
    return torch.maximum(torch.kron(near, near), border[:, None] * border).fill_diagonal_(0)


def _sides(device: torch.device) -> Tensor:
    """(N, 4): 1 on the top, bottom, left and right side."""
    sides = torch.zeros(4, _GRID, _GRID, dtype=torch.float64, device=device)
    sides[0, 0] = sides[1, -1] = sides[2, :, 0] = sides[3, :, -1] = 1
    return sides.flatten(1).T


def _border(device: torch.device) -> Tensor:
    """The nodes on a side, in order."""
    nodes = torch.arange(_GRID**2, device=device).view(_GRID, _GRID)
    return torch.cat([nodes[0], nodes[1:-1, :: _GRID - 1].flatten(), nodes[-1]])


def _positions(device: torch.device) -> Tensor:
    """(N, 2) centres of the nodes, in image sides."""
    at = (torch.arange(_GRID, dtype=torch.float64, device=device) + 0.5) / _GRID
    return torch.cartesian_prod(at, at)


def _centre(device: torch.device) -> Tensor:
    """(24, 24) Gaussian around the middle."""
    away = (_positions(device) - 0.5).square().sum(1)
    return (away / (-2 * _CENTRE_SPREAD**2)).exp().view(_GRID, _GRID)


def _as_map(values: Tensor) -> Tensor:
    """(B, N) to (B, 24, 24)."""
    return values.view(-1, _GRID, _GRID)


def _stretched(values: Tensor) -> Tensor:
    """(B, N) to [0, 1]."""
    return normalize_maps(values[:, None])[:, 0]

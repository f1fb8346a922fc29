"""The weights of a version as files of the store."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence

from mobile_sdk import safetensors
from mobile_sdk.layout import Arrays, Layout, Subset, Vector
from mobile_sdk.payload.grid import METADATA, Grid
from mobile_sdk.protocol.messages import ArtifactRef, Sha256

from ..merge.optimisers import State
from ..merge.step_sizes import Ranges
from ..store.interface import ArtifactStore

__all__ = ["MASTER", "OPTIMISER", "RANGES", "PutWeights", "put_trained", "put_weights", "trained_part"]

# The name of the optimiser's state among what the coordinator alone needs of a version.
OPTIMISER = "optimiser"


# The name of the ranges that the steps of updates follow from, by tier.
RANGES = "ranges"


# The name of the exact weights among a version's private files.
MASTER = "master"


@dataclasses.dataclass(frozen=True)
class PutWeights:
    """The files of a version: what devices get, and what they do not."""

    weights: tuple[ArtifactRef, ...]
    private: Mapping[str, ArtifactRef]


def put_weights(
    artifacts: ArtifactStore,
    layout: Layout,
    subsets: Iterable[Subset],
    vector: Vector,
    grid: Grid | None,
    inside: Collection[str] = (),
    frozen_grid: Grid | None = None,
) -> PutWeights:
    """
    Write a weight vector as the files of a version; what did not change is there already.

    What is ``inside`` all programs is a file of its own, which no device needs. So are frozen weights that lie on
    ``frozen_grid``: devices can be sent their integers.

    Args:
        artifacts: where the files go.
        layout: names and shapes of the parameters.
        subsets: of the tiers.
        vector: float32, shape ``(layout.size,)``.
        grid: of what is trained; :obj:`None` publishes exact weights.
        inside: names of parameters that all programs have inside.
        frozen_grid: of frozen weights that were rounded.

    """
    views = layout.views(vector)
    trained = trained_part(subsets, views)
    frozen = {name: view for name, view in views.items() if name not in trained}
    held = {name: view for name, view in frozen.items() if name in inside}
    sent = {name: view for name, view in frozen.items() if name not in inside}
    coarse = {name for name, _ in frozen_grid.shapes} if frozen_grid is not None else set()
    exact = {name: view for name, view in sent.items() if name not in coarse}
    contents = [safetensors.dumps(part) for part in (held, exact) if part]
    if frozen_grid is not None:
        parts = {name: sent[name] for name, _ in frozen_grid.shapes}
        contents.append(safetensors.dumps(parts, {METADATA: frozen_grid.to_text()}))
    refs = _put(artifacts, *contents)
    return put_trained(artifacts, refs, trained, grid, {})


def put_trained(
    artifacts: ArtifactStore,
    frozen: Sequence[ArtifactRef],
    trained: Arrays,
    grid: Grid | None,
    state: State,
    ranges: Mapping[str, Ranges] | None = None,
) -> PutWeights:
    """
    Write what is trained, beside the files of what is ``frozen``, and what the coordinator needs; all with one sync.

    Args:
        artifacts: where the files go.
        frozen: files that stay.
        trained: name -> float32 array of the parameter's shape.
        grid: what is published lies on it; :obj:`None` publishes exact weights.
        state: of the optimiser.
        ranges: of the updates that start from it, by tier.

    """
    parts = {"": safetensors.dumps(trained)}
    if grid is not None:
        published = {name: grid.snap(name, view) for name, view in trained.items()}
        parts = {"": safetensors.dumps(published, {METADATA: grid.to_text()}), MASTER: parts[""]}
    if state:
        parts[OPTIMISER] = safetensors.dumps(dict(state))
    if ranges:
        parts[RANGES] = safetensors.dumps(dict(sorted(ranges.items())))
    refs = dict(zip(parts, _put(artifacts, *parts.values()), strict=True))
    return PutWeights((*frozen, refs.pop("")), refs)


def trained_part(subsets: Iterable[Subset], views: Arrays) -> dict[str, Vector]:
    """
    The parameters that some tier trains, in layout order.

    Args:
        subsets: of the tiers.
        views: name -> float32 array of the parameter's shape.

    """
    names = {name for subset in subsets for name in subset}
    return {name: view for name, view in views.items() if name in names}


def _put(artifacts: ArtifactStore, *contents: bytes) -> list[ArtifactRef]:
    return [ArtifactRef(Sha256(entry.sha256), entry.size) for entry in artifacts.put(*contents)]

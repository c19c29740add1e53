"""Many training examples in one forward pass: a tree of token runs that share what they begin with.

Examples of one candidate list repeat 90 % of their tokens, and those of all lists repeat the
instructions. A `Tree` holds each run once; a run attends to its ancestors and to itself, and its
positions continue its parent's, so the logits are those of the examples one by one (a test shows
it) at a fraction of the work. Logits are computed only where there is something to learn: the
vocabulary is a quarter of a small model.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

TREE_ATTENTION = "shared_prefix_tree"
"""The name by which a model is loaded with it: `attn_implementation=TREE_ATTENTION`."""
SHUNS = "boundary"
"""The kind of targets that teach what not to say, instead of what to say."""


@dataclass(frozen=True, slots=True)
class Target:
    """A token to learn: its position in its run, which has a parent or more before it.

    kind: what is learnt with it; losses weigh kinds, metrics name them. teacher: the row of the
    teacher's distributions to be learnt in the token's place; None: the token itself.
    """

    position: int
    kind: str = "text"
    teacher: int | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """A run of tokens that follows another. parent: the index of an earlier run of the tree."""

    tokens: tuple[int, ...]
    parent: int | None = None
    targets: tuple[Target, ...] = ()


@dataclass(slots=True)
class Tree:
    """Runs, each after its parent. `span(i)` is where run i stands in the flat sequence."""

    runs: list[Run] = field(default_factory=list)
    _starts: list[int] = field(default_factory=list)
    _depths: list[int] = field(default_factory=list)
    _size: int = 0

    def add(self, run: Run) -> int:
        """Append `run`; return its index. Raises ValueError for what cannot follow or be learnt."""
        if not run.tokens:
            raise ValueError("A run needs at least one token")
        if run.parent is not None and not 0 <= run.parent < len(self.runs):
            raise ValueError(f"Run {len(self.runs)} cannot follow run {run.parent}")
        if run.parent is None and any(target.position == 0 for target in run.targets):
            raise ValueError("Nothing stands before the first token of a root: it has no logits")
        self._starts.append(self._size)
        self._depths.append(0 if run.parent is None else self._end_depth(run.parent))
        self.runs.append(run)
        self._size += len(run.tokens)
        return len(self.runs) - 1

    def __len__(self) -> int:
        """Tokens of all runs."""
        return self._size

    def span(self, index: int) -> slice:
        start = self._starts[index]
        return slice(start, start + len(self.runs[index].tokens))

    def lineage(self, index: int) -> list[int]:
        """The indexes of a run's ancestors, the root first."""
        parent = self.runs[index].parent
        return [] if parent is None else [*self.lineage(parent), parent]

    def tokens(self) -> Tensor:
        """[1, tokens] of int64."""
        return torch.tensor([[token for run in self.runs for token in run.tokens]])

    def positions(self) -> Tensor:
        """[1, tokens]: how far each token stands from the start of its root."""
        return torch.cat(
            [
                torch.arange(depth, depth + len(run.tokens))
                for run, depth in zip(self.runs, self._depths, strict=True)
            ]
        ).unsqueeze(0)

    def mask(self, device: torch.device | str) -> Tensor:
        """[tokens, tokens] of bool: which tokens each attends to."""
        is_seen = torch.eye(len(self.runs), dtype=torch.bool)
        for index in range(len(self.runs)):
            is_seen[index, self.lineage(index)] = True
        lengths = torch.tensor([len(run.tokens) for run in self.runs])
        owners = torch.arange(len(self.runs)).repeat_interleave(lengths).to(device)
        # Runs stand after their ancestors, so what is seen is never to the right.
        return is_seen.to(device)[owners][:, owners].tril()

    def _end_depth(self, index: int) -> int:
        return self._depths[index] + len(self.runs[index].tokens)

    def predictor(self, index: int, position: int) -> int:
        """Where in the flat sequence the token is whose logits predict this one."""
        if position:
            return self._starts[index] + position - 1
        parent = self.runs[index].parent
        if parent is None:
            raise ValueError("The first token of a root is not predicted")
        return self._starts[parent] + len(self.runs[parent].tokens) - 1


def tree_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    tree: Tree | None = None,
    tree_mask: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention over `tree`, in the signature that transformers calls.

    tree_mask: `tree.mask()`, to compute all runs at once, the work on what is masked included: a
    GPU takes longer for a hundred small products than for a large one.

    query: [1, heads, tokens, width]; key, value: [1, key heads, tokens, width]. Returns
    [1, tokens, heads, width]. Without a tree: plain causal attention.
    """
    if tree_mask is not None:
        return _attend_masked(query, key, value, tree_mask, scaling), None
    if tree is None:
        tree = Tree()
        tree.add(Run(tuple(range(query.shape[2]))))
    # Split once: the backward pass of a slice fills a whole tensor with zeros.
    lengths = [len(run.tokens) for run in tree.runs]
    queries, keys, values = (part[0].split(lengths, dim=1) for part in (query, key, value))
    outputs = []
    for index in range(len(tree.runs)):
        line = [*tree.lineage(index), index]
        seen = torch.cat([keys[run] for run in line], dim=1)
        said = torch.cat([values[run] for run in line], dim=1)
        outputs.append(_attend(queries[index], seen, said, scaling))
    return torch.cat(outputs, dim=1).transpose(0, 1).unsqueeze(0).contiguous(), None


def _attend_masked(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float | None
) -> Tensor:
    """Attention of all runs at once; shapes are those of `tree_attention`."""
    shared = query.shape[1] // key.shape[1]
    attended = F.scaled_dot_product_attention(
        query,
        key.repeat_interleave(shared, dim=1),
        value.repeat_interleave(shared, dim=1),
        attn_mask=mask,
        scale=scaling,
    )
    return attended.transpose(1, 2).contiguous()


def _attend(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
    """Attention of the last tokens of a sequence to all of it. [heads, tokens, width] each.

    Written out: on a CPU the backward pass of PyTorch's fused kernel takes twice as long. Query
    heads that share a key head are laid side by side, so nothing is repeated.
    """
    heads, length, width = query.shape
    key_heads, seen, _ = key.shape
    scaled = query * (scaling if scaling is not None else width**-0.5)
    rows = scaled.reshape(key_heads, -1, width)
    later = torch.full((length, seen), float("-inf"), dtype=query.dtype, device=query.device)
    mask = later.triu(seen - length + 1).repeat(heads // key_heads, 1)
    scores = torch.baddbmm(mask.expand(key_heads, -1, -1), rows, key.transpose(1, 2))
    return torch.bmm(scores.softmax(-1), value).view(heads, length, width)


AttentionInterface.register(TREE_ATTENTION, tree_attention)


def target_distributions(model: Any, tree: Tree) -> Tensor:
    """Return [targets, vocabulary]: the log-probabilities at each target, run by run in order.

    model: a causal language model of transformers, loaded with TREE_ATTENTION (PEFT's wrapper of
    one too).
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    device = inner.lm_head.weight.device
    hidden = inner.model(
        input_ids=tree.tokens().to(device),
        position_ids=tree.positions().to(device),
        use_cache=False,
        tree=tree,
        tree_mask=tree.mask(device) if device.type == "cuda" else None,
    ).last_hidden_state[0]
    predictors = [
        tree.predictor(index, target.position)
        for index, run in enumerate(tree.runs)
        for target in run.targets
    ]
    logits: Tensor = inner.lm_head(hidden[torch.tensor(predictors, device=device)])
    return logits.float().log_softmax(-1)


def target_log_probs(model: Any, tree: Tree) -> Tensor:
    """Return [targets]: the log-probability of each target token, in the same order."""
    return _of_tokens(target_distributions(model, tree), tree)


def target_scores(
    model: Any, tree: Tree, shunned: Sequence[int] = (), taught: Tensor | None = None
) -> Tensor:
    """Return [targets]: how well each is learnt, in nats, 0 at best; its negative is the loss.

    It is the token's log-probability; of a target of the kind SHUNS that of any token but
    `shunned`, unless its own token is one of them; of one with a teacher the negative
    Kullback-Leibler divergence from the row of `taught`, [rows, vocabulary], log-probabilities.
    """
    log_probs = target_distributions(model, tree)
    scores = _of_tokens(log_probs, tree)
    targets = [(run, target) for run in tree.runs for target in run.targets]
    shuns = [
        target.kind == SHUNS and run.tokens[target.position] not in shunned
        for run, target in targets
    ]
    if shunned and any(shuns):
        mass = log_probs[:, list(shunned)].exp().sum(1).clamp(max=1 - 1e-6)
        scores = torch.where(torch.tensor(shuns, device=mass.device), (-mass).log1p(), scores)
    pupils = [row for row, (_, target) in enumerate(targets) if target.teacher is not None]
    if taught is not None and pupils:
        rows = torch.tensor(pupils, device=scores.device)
        wanted = taught[[target.teacher for _, target in targets if target.teacher is not None]]
        divergence = (wanted.exp() * (wanted - log_probs[rows])).sum(1)
        scores = scores.index_put((rows,), -divergence)
    return scores


def _of_tokens(log_probs: Tensor, tree: Tree) -> Tensor:
    tokens = [run.tokens[target.position] for run in tree.runs for target in run.targets]
    index = torch.tensor(tokens, device=log_probs.device).unsqueeze(1)
    return log_probs.gather(1, index).squeeze(1)


def target_kinds(tree: Tree) -> list[str]:
    """The kind of every target, in the order of `target_distributions`."""
    return [target.kind for run in tree.runs for target in run.targets]

"""A pack of examples teaches what the examples teach one by one."""

from typing import Any

import pytest
import torch

from models.alignment.packing import (
    SHUNS,
    Run,
    Target,
    Tree,
    target_distributions,
    target_kinds,
    target_log_probs,
    target_scores,
    tree_attention,
)

INSTRUCTIONS = (5, 17, 23, 42, 8)
LISTS = ((61, 62, 63), (71, 72, 73, 74, 75, 76))
QUESTIONS = ((81, 9, 11), (82,), (83, 12, 99, 7))


def packed() -> Tree:
    """Two lists behind shared instructions, three questions with answers behind each."""
    tree = Tree()
    root = tree.add(Run(INSTRUCTIONS))
    for listed in LISTS:
        stem = tree.add(Run(listed, root))
        for question in QUESTIONS:
            tree.add(Run(question, stem, tuple(Target(i) for i in range(len(question)))))
    return tree


def plain_log_probs(model: Any) -> torch.Tensor:
    """The same targets, each sequence by itself, by the model's own loss-free forward pass."""
    found = []
    for listed in LISTS:
        for question in QUESTIONS:
            tokens = torch.tensor([[*INSTRUCTIONS, *listed, *question]])
            log_probs = model(input_ids=tokens).logits[0].log_softmax(-1)
            start = len(INSTRUCTIONS) + len(listed)
            found += [log_probs[start + i - 1, token] for i, token in enumerate(question)]
    return torch.stack(found)


class TestTreeAttention:
    def test_is_the_same_run_by_run_and_all_at_once(self) -> None:
        tree, generator = packed(), torch.Generator().manual_seed(3)
        query = torch.randn(1, 6, len(tree), 8, generator=generator)
        key, value = (torch.randn(1, 2, len(tree), 8, generator=generator) for _ in range(2))

        run_by_run, _ = tree_attention(None, query, key, value, None, 0.3, tree)
        at_once, _ = tree_attention(None, query, key, value, None, 0.3, tree, tree.mask("cpu"))

        torch.testing.assert_close(at_once, run_by_run)


class TestPackedTargets:
    def test_have_the_log_probabilities_of_unpacked_examples(self, tiny_model: Any) -> None:
        tiny_model.set_attn_implementation("sdpa")
        with torch.no_grad():
            expected = plain_log_probs(tiny_model)
        tiny_model.set_attn_implementation("shared_prefix_tree")
        with torch.no_grad():
            found = target_log_probs(tiny_model, packed())

        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)

    def test_have_the_gradients_of_unpacked_examples(self, tiny_model: Any) -> None:
        def gradients(loss: torch.Tensor) -> list[torch.Tensor]:
            tiny_model.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            return [weight.grad.clone() for weight in tiny_model.parameters()]

        tiny_model.set_attn_implementation("sdpa")
        expected = gradients(plain_log_probs(tiny_model).mean())
        tiny_model.set_attn_implementation("shared_prefix_tree")
        found = gradients(target_log_probs(tiny_model, packed()).mean())

        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)

    def test_do_not_see_their_siblings(self, tiny_model: Any) -> None:
        alone = Tree()
        root = alone.add(Run(INSTRUCTIONS))
        alone.add(Run(QUESTIONS[0], root, (Target(2, "last"),)))
        beside = Tree()
        root = beside.add(Run(INSTRUCTIONS))
        beside.add(Run(QUESTIONS[2], root))
        beside.add(Run(QUESTIONS[0], root, (Target(2, "last"),)))

        tiny_model.set_attn_implementation("shared_prefix_tree")
        with torch.no_grad():
            torch.testing.assert_close(
                target_log_probs(tiny_model, alone), target_log_probs(tiny_model, beside)
            )
        assert target_kinds(beside) == ["last"]


class TestShunned:
    def test_any_other_token_will_do(self, tiny_model: Any) -> None:
        tiny_model.set_attn_implementation("shared_prefix_tree")
        tree = Tree()
        root = tree.add(Run(INSTRUCTIONS))
        tree.add(Run((7, 9), root, (Target(0, SHUNS), Target(1, "text"))))
        with torch.no_grad():
            plain = target_log_probs(tiny_model, tree)
            found = target_scores(tiny_model, tree, shunned=(3, 4))
            logits = tiny_model.model(torch.tensor([INSTRUCTIONS])).last_hidden_state[0, -1]
            shunned = tiny_model.lm_head(logits).softmax(-1)[[3, 4]].sum()

        torch.testing.assert_close(found[0].exp(), 1 - shunned, atol=1e-5, rtol=1e-5)
        assert found[1] == plain[1]

    def test_a_shunned_token_that_is_the_target_is_learnt(self, tiny_model: Any) -> None:
        tiny_model.set_attn_implementation("shared_prefix_tree")
        tree = Tree()
        root = tree.add(Run(INSTRUCTIONS))
        tree.add(Run((7,), root, (Target(0, SHUNS),)))
        with torch.no_grad():
            plain, found = (target_scores(tiny_model, tree, one) for one in ((), (7, 8)))

        torch.testing.assert_close(plain, found)


class TestTaught:
    def test_who_says_what_the_teacher_says_has_nothing_to_learn(self, tiny_model: Any) -> None:
        tiny_model.set_attn_implementation("shared_prefix_tree")
        tree = Tree()
        root = tree.add(Run(INSTRUCTIONS))
        tree.add(Run((7, 9), root, (Target(0, teacher=1), Target(1, teacher=0))))
        with torch.no_grad():
            own = target_distributions(tiny_model, tree)
            same, other = (
                target_scores(tiny_model, tree, taught=rows) for rows in (own.flip(0), own)
            )

        torch.testing.assert_close(same, torch.zeros(2), atol=1e-5, rtol=0)
        assert (other < -1e-6).all()


class TestTree:
    def test_counts_every_run_once(self) -> None:
        assert len(packed()) == 5 + 3 + 6 + 2 * (3 + 1 + 4)

    def test_positions_go_on_from_the_parent(self) -> None:
        tree = packed()
        positions = tree.positions()[0].tolist()
        # the root, the first list, and the three questions behind it
        assert positions[:8] == [0, 1, 2, 3, 4, 5, 6, 7]
        assert positions[8:16] == [8, 9, 10, 8, 8, 9, 10, 11]
        # the second list follows the root again
        assert positions[16:22] == [5, 6, 7, 8, 9, 10]

    @pytest.mark.parametrize(
        ("run", "complaint"),
        [
            (Run(()), "at least one token"),
            (Run((1,), parent=0), "cannot follow run 0"),
            (Run((1,), None, (Target(0),)), "no logits"),
        ],
    )
    def test_refuses_what_cannot_stand_in_it(self, run: Run, complaint: str) -> None:
        with pytest.raises(ValueError, match=complaint):
            Tree().add(run)

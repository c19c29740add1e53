"""Any text and ads: the reader agrees with the definition, with every chunking, with the grammar.

The definition is written here a second time, as one regular expression over the whole text.
"""

import re
import time
from collections.abc import Iterable, Sequence
from itertools import pairwise, product
from random import Random
from statistics import median

import pytest
import xgrammar
from hypothesis import example, given, settings
from hypothesis import strategies as st
from xgrammar.testing import _get_matcher_from_grammar, _is_grammar_accept_string

from models.contract.grammar import forbids_repeats, grammar
from models.contract.markers import (
    Fault,
    FaultKind,
    MarkedAd,
    MarkerReader,
    Reading,
    Segment,
    SegmentKind,
    ambiguous_titles,
    check_title,
    read,
)
from models.provision import ServableModel

NARROW = "ab@[]1 "  # where titles, ids and texts collide
RICH = "aZ9.@[]()<|>\"'\\/ {}%+-_:é日本👩\u200d👧ـ\u00a0#^$*?~`&="
IDS = ["1", "a", "b", "Ad-1", "a.b:c_D-9", "ab"]


def is_title(text: str) -> bool:
    try:
        return check_title(text) == text
    except ValueError:
        return False


titles = (
    st.one_of(st.text(NARROW, min_size=1, max_size=6), st.text(RICH, min_size=1, max_size=20))
    .map(str.strip)
    .filter(is_title)
)


@st.composite
def ad_lists(draw: st.DrawFn) -> list[MarkedAd]:
    ids = draw(st.lists(st.sampled_from(IDS), unique=True, max_size=5))
    ads = [MarkedAd(ad_id, draw(titles)) for ad_id in ids]
    ambiguous = ambiguous_titles(ads)
    return [ad for ad in ads if ad.ad_id not in ambiguous]


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[MarkedAd], str]:
    """Return ads, and a text made of plain text, addresses, and markers whole and broken."""
    ads = draw(ad_lists())
    parts = [st.text(NARROW + "\n", max_size=4), st.text(RICH, max_size=4), st.just("x@y")]
    if ads:
        marker = st.sampled_from([ad.marker for ad in ads])
        parts += [marker] * 4
        parts.append(st.builds(lambda m, n: m[:n], marker, st.integers(1, 30)))
        parts.append(st.builds(lambda m, n: m[n:], marker, st.integers(1, 30)))
        parts.append(
            st.builds(
                lambda a, b: f"@{a.title}@[{b.ad_id}]", st.sampled_from(ads), st.sampled_from(ads)
            )
        )
    return ads, "".join(draw(st.lists(st.one_of(parts), max_size=8)))


def define(text: str, ads: list[MarkedAd], max_ads: int) -> Reading:
    """Read `text` by the definition: no streaming, no search tree."""
    marker = "|".join(re.escape(ad.marker) for ad in ads) or "(?!)"
    has_ads = bool(ads) and max_ads > 0
    plain = r"(?<=[A-Za-z0-9._%+-])@(?=[A-Za-z0-9])" if has_ads else r"@(?!\[)"
    tail = r"@\[(?P<id>[A-Za-z0-9._:-]{0,64})(?P<end>\]?)"
    token = re.compile(f"(?P<marker>{marker})|(?P<plain>{plain})|(?P<tail>{tail})|(?P<head>@)")
    starts = {m.start(): m.lastgroup for m in token.finditer(text)}
    inside = {i for m in token.finditer(text) if m["marker"] for i in range(*m.span())}
    cut = len(text)
    for at in (m.start() for m in re.finditer("@", text)):
        is_begun = text[at:] == "@" or any(ad.marker.startswith(text[at:]) for ad in ads)
        is_plain = all(
            starts.get(i, "plain" if re.compile(plain).match(text, i) else "") == "plain"
            for i in range(at, len(text))
            if text[i] == "@"
        )
        if at not in inside and is_begun and not is_plain:
            cut = at
            break
    tokens = [m for m in token.finditer(text[:cut]) if not m["plain"]]
    verdicts = judge([m[0] for m in tokens if m["marker"]], max_ads)
    faults = [
        Fault(kind, m.start(), m.end(), _ad_id(m[0]))
        for m, kind in zip([m for m in tokens if m["marker"]], verdicts, strict=True)
        if kind
    ]
    faults += intended(tokens, text, {ad.ad_id: ad.title for ad in ads})
    faults += [Fault(FaultKind.TRUNCATED, cut, len(text))] * (cut < len(text))
    segments = divide([m for m in tokens if m["marker"]], verdicts, text[:cut])
    return Reading(text[:cut], segments, tuple(sorted(faults, key=lambda fault: fault.start)))


def judge(markers: list[str], max_ads: int) -> list[FaultKind | None]:
    """Return for each valid marker what is wrong with it, if anything is."""
    inserted = list(dict.fromkeys(markers))[:max_ads]
    return [
        FaultKind.DUPLICATE
        if marker in inserted and marker in markers[:place]
        else None
        if marker in inserted
        else FaultKind.OVER_LIMIT
        for place, marker in enumerate(markers)
    ]


def intended(tokens: list[re.Match[str]], text: str, titles: dict[str, str]) -> list[Fault]:
    """Return the faults of heads and tails; a tail and the head right before it are one."""
    faults = []
    for before, m, after in zip([None, *tokens], tokens, [*tokens[1:], None], strict=False):
        if m["head"] and not (after and after["tail"] and is_near(m, after, text)):
            faults.append(Fault(FaultKind.BROKEN_MARKER, *m.span()))
        if m["tail"]:
            has_head = before is not None and before["head"] and is_near(before, m, text)
            start = before.start() if before and has_head else m.start()
            title = text[start + 1 : m.start()] if has_head else None
            ad_id = m["id"] if m["id"] and m["end"] else None
            if ad_id is None:
                kind = FaultKind.BROKEN_MARKER
            elif ad_id not in titles:
                kind = FaultKind.UNKNOWN_ID
            else:
                is_of_another = title in titles.values()
                kind = FaultKind.MISMATCH if is_of_another else FaultKind.ALTERED_TITLE
            faults.append(Fault(kind, start, m.end(), ad_id))
    return faults


def is_near(head: re.Match[str], tail: re.Match[str], text: str) -> bool:
    between = text[head.start() : tail.start()]
    return len(between) <= 200 and "\n" not in between


def divide(
    markers: list[re.Match[str]], verdicts: list[FaultKind | None], answer: str
) -> tuple[Segment, ...]:
    """Return the ads without fault and the texts between them, with titles for faulty ones."""
    ads = [m for m, kind in zip(markers, verdicts, strict=True) if not kind]
    segments = []
    for start, ad in zip([0, *(m.end() for m in ads)], [*ads, None], strict=True):
        end = ad.start() if ad else len(answer)
        shown, last = "", start
        for m in markers:
            if start <= m.start() < end:
                shown += answer[last : m.start()] + _title(m[0])
                last = m.end()
        if start < end:
            segments.append(Segment(SegmentKind.TEXT, shown + answer[last:end], start, end))
        if ad:
            segments.append(Segment(SegmentKind.AD, _title(ad[0]), *ad.span(), _ad_id(ad[0])))
    return tuple(segments)


def _title(marker: str) -> str:
    return marker[1:].rpartition("@[")[0]


def _ad_id(marker: str) -> str:
    return marker.rpartition("@[")[2].removesuffix("]")


@settings(max_examples=700, deadline=None)
@given(cases(), st.integers(0, 3))
@example(([MarkedAd("1", "b"), MarkedAd("2", "[1x] c")], "a@b@[1x] c@[2]"), 2)
@example(([MarkedAd("1", "b")], "@b @@b@[1] @b"), 0)
def test_the_reader_does_what_the_definition_says(
    case: tuple[list[MarkedAd], str], max_ads: int
) -> None:
    ads, text = case
    assert read(text, ads, max_ads) == define(text, ads, max_ads)


@settings(max_examples=700, deadline=None)
@given(cases(), st.integers(0, 3), st.data())
def test_chunks_change_nothing(
    case: tuple[list[MarkedAd], str], max_ads: int, data: st.DataObject
) -> None:
    ads, text = case
    cuts = data.draw(st.sets(st.integers(0, len(text))) | st.just(set(range(len(text)))))
    reader = MarkerReader(ads, max_ads)
    segments = [
        segment
        for start, end in pairwise([0, *sorted(cuts), len(text)])
        for segment in reader.feed(text[start:end])
    ] + reader.close()
    whole = read(text, ads, max_ads)
    assert reader.faults == list(whole.faults)
    assert [s for s in segments if s.kind is SegmentKind.AD] == list(whole.insertions)
    assert "".join(s.text for s in segments) == "".join(s.text for s in whole.segments)
    # Shown in order, without gap or overlap: so no part of an ad was shown as text before it.
    ends = [0, *(s.end for s in segments)]
    assert [s.start for s in segments] == ends[:-1]
    assert ends[-1] == len(whole.answer)
    replaced = {fault.start for fault in whole.faults if fault.kind in _SHOWN_AS_TITLE}
    for s in segments:
        is_raw = s.kind is SegmentKind.TEXT and s.start not in replaced
        assert not is_raw or s.text == text[s.start : s.end]


_SHOWN_AS_TITLE = {FaultKind.DUPLICATE, FaultKind.OVER_LIMIT}


@settings(max_examples=500, deadline=None)
@given(cases(), st.integers(0, 3))
@example(([MarkedAd("1", "a")], "a@b@c @a@[1]x@y@z."), 1)
@example(([MarkedAd("1", "a")], "@a@[1]@b"), 1)
@example(([MarkedAd("1", 'q"\\')], '@q"\\@[1]'), 1)
@example(([], "@dataclass\n3 @ 5, @@"), 2)
@example(([MarkedAd("1", "a")], "@a@"), 0)
@example(([], "@[1]"), 2)
@example(([MarkedAd("1", "a")], "@a@[1] @a@[1]"), 2)
@example(([MarkedAd("1", "a"), MarkedAd("b", "a")], "@a@[1]@a@[b] @a@[1]"), 3)
def test_the_grammar_accepts_what_reads_without_fault(
    case: tuple[list[MarkedAd], str], max_ads: int
) -> None:
    ads, text = case
    accepted = _is_grammar_accept_string(grammar(ads, max_ads), text)
    assert accepted == (not read(text, ads, max_ads).faults)


def plain_list(count: int) -> list[MarkedAd]:
    return [MarkedAd(f"Ad-{n}", f"Title {n} of {count}") for n in range(count)]


def written(ads: Iterable[MarkedAd]) -> str:
    return "Try " + " or, a@b.org says, ".join(ad.marker for ad in ads) + "."


LARGEST = [(200, 2), (200, 3), (49, 4), (12, 5), (11, 6), (10, 10)]


@pytest.mark.parametrize(("count", "max_ads"), [(2, 2), (10, 3), (20, 3), (100, 3), *LARGEST])
def test_the_same_ad_cannot_be_written_twice(count: int, max_ads: int) -> None:
    ads, random = plain_list(count), Random(count)
    matcher = _get_matcher_from_grammar(grammar(ads, max_ads))

    def accepts(chosen: Sequence[MarkedAd]) -> bool:
        matcher.reset()
        return matcher.accept_string(written(chosen)) and matcher.is_completed()

    for _ in range(300):
        chosen = random.sample(ads, random.randint(1, max_ads))
        assert accepts(chosen)
        once_more = random.choice(chosen)
        if len(chosen) < max_ads:
            assert not accepts([*chosen, once_more])
            assert not accepts([once_more, *chosen])
        else:
            others = [ad for ad in ads if ad not in chosen]
            assert not any(accepts([*chosen, other]) for other in others[:3])
    assert forbids_repeats(count, max_ads)


def test_any_two_or_three_of_ten_ads_may_stand_in_any_order() -> None:
    ads = plain_list(10)
    matcher = _get_matcher_from_grammar(grammar(ads, 3))
    for chosen in (chosen for count in (2, 3) for chosen in product(ads, repeat=count)):
        matcher.reset()
        accepted = matcher.accept_string(written(chosen)) and matcher.is_completed()
        assert accepted == (len(set(chosen)) == len(chosen))


def test_lists_too_large_for_it_may_repeat_an_ad_within_the_limit() -> None:
    ads, max_ads = plain_list(100), 5
    rules = grammar(ads, max_ads)

    assert not forbids_repeats(len(ads), max_ads)
    assert _is_grammar_accept_string(rules, written(ads[:5]))
    assert _is_grammar_accept_string(rules, written([ads[0]] * 5))
    assert not _is_grammar_accept_string(rules, written(ads[:6]))


def test_no_list_that_the_service_takes_makes_a_huge_grammar() -> None:
    sizes = {
        (count, max_ads): len(grammar(plain_list(count), max_ads))
        for count in (*range(1, 21), 49, 50, 100, 200)
        for max_ads in range(1, 11)
    }

    assert max(sizes.values()) < 250_000  # characters
    assert sizes[10, 3] < 10_000


@given(ad_lists(), st.integers(1, 3))
def test_the_order_of_candidates_changes_no_grammar(ads: list[MarkedAd], max_ads: int) -> None:
    shuffled = sorted(ads, key=lambda ad: ad.title, reverse=True)
    assert grammar(shuffled, max_ads) == grammar(ads, max_ads)


def test_the_grammar_costs_microseconds_a_token(servable_model: ServableModel) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(servable_model.path)
    vocabulary = xgrammar.TokenizerInfo.from_huggingface(tokenizer)
    ads = [MarkedAd(f"Ad-{n}", f"Title {n} of 100") for n in range(100)]
    compiler = xgrammar.GrammarCompiler(vocabulary, max_threads=1)
    matcher = xgrammar.GrammarMatcher(compiler.compile_grammar(grammar(ads, 3)))
    mask = xgrammar.allocate_token_bitmask(1, vocabulary.vocab_size)
    text = "Plain words, and mail a@b.org. " * 10 + ads[7].marker + "\nand so on" * 20
    seconds = []
    for token in tokenizer(text, add_special_tokens=False).input_ids:
        start = time.perf_counter()
        matcher.fill_next_token_bitmask(mask)
        seconds.append(time.perf_counter() - start)
        assert matcher.accept_token(token)
    assert median(seconds) < 0.001


def test_the_grammar_takes_long_answers() -> None:
    assert _is_grammar_accept_string(grammar([], 0), "a@b.c 日本\n" * 20_000)

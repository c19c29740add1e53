"""Warm-start examples: auctions, the answers to teach for them, and packs of them to train on."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import takewhile
from typing import Any

from models.alignment.answers import complete
from models.alignment.catalogue import InventedMarket
from models.alignment.packing import Run, Target, Tree
from models.alignment.weave import OPENING, Woven, sentence_ends, weave
from models.contract.prompt import Layout, Profile, Prompt, build_prompt
from models.engine.tokens import PromptTokenizer
from models.simulation.auctions import fitting, listed
from models.simulation.nouns import Ad, Auction, Query, Split, User
from models.simulation.randomness import generator, uniform


@dataclass(frozen=True, slots=True)
class ExampleOptions:
    """What examples are like.

    candidates: fewest and most ads of a list. slates: lists in a pack, alike but for their bids.
    questions: of each list. least_bid: from which an ad is worth showing; less than what makes good
    the objective's ad penalty, since a model that is unsure shows too few. early_share: of
    examples, ended where all is decided, with nothing but decisions to learn. text_stride: of the
    words of the other answers every how manyth is learnt, as the base model itself would go on
    there without ads. bare_share: of lists, those without a candidate; a model that never met one
    makes ads up. has_own_end: whether an answer's end, too, is learnt as it stands, after its last
    whole sentence; otherwise as likely as the base model finds it, which may go on and repeat
    itself. The other shares are explained by their names.
    """

    layout: Layout = Layout.INLINE
    seed: int = 1
    candidates: tuple[int, int] = (4, 11)
    slates: int = 1
    lists: int = 2
    questions: int = 10
    fitting_share: float = 0.48
    unserved_share: float = 0.34
    pair_share: float = 0.75
    profile_share: float = 0.7
    renamed_share: float = 0.2
    invented_share: float = 0.3
    contrast_share: float = 0.6
    least_bid: int = 8
    early_share: float = 0.6
    text_stride: int = 2
    bare_share: float = 0.15
    has_own_end: bool = False


class TokenKind(StrEnum):
    """What a token of an answer teaches."""

    TEXT = "text"
    """The base model's own words: whatever it would say there, asked without ads."""
    BOUNDARY = "boundary"
    """The first token after a sentence that no ad follows: any but one that opens such a one."""
    OPENING = "opening"
    """The first token of the sentence that holds the ad."""
    LEAD = "lead"
    CHOICE = "choice"
    """The first tokens of the title, in which the winner is decided."""
    MARKER = "marker"
    OFFER = "offer"
    END = "end"


CHOICE_TOKENS = 3
TAUGHT = (TokenKind.TEXT, TokenKind.END)
"""What the base model teaches, by what it would say there itself."""


@dataclass(frozen=True, slots=True)
class Example:
    """An auction, and the answer to teach for it; `winner`: the ad in it."""

    auction: Auction
    answer: Woven
    winner: Ad | None


@dataclass(frozen=True)
class Market:
    """What examples are drawn from. questions: (category, text) that have an ad-free answer."""

    users: Sequence[User]
    ads: Sequence[Ad]
    invented: InventedMarket
    questions: Sequence[Query]
    invented_questions: Sequence[Query]
    answers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Slate:
    """A candidate list at one set of bids, what is asked against it, and by whom."""

    user: User
    ads: tuple[Ad, ...]
    bids: tuple[int, ...]
    queries: tuple[Query, ...]
    seed: int

    def auctions(self) -> list[Auction]:
        return [
            Auction(f"{query.query_id}", self.user, query, self.ads, self.bids, self.seed)
            for query in self.queries
        ]


def draw_slates(market: Market, options: ExampleOptions, number: int) -> list[Slate]:
    """The lists of pack `number`: the same ads and questions at fresh bids."""
    chance = generator("slate", options.seed, number)
    if uniform("bare", options.seed, number) < options.bare_share:
        return [_bare_slate(market, options, chance)]
    kind = chance.random()
    if kind < options.invented_share:
        ads, questions = market.invented.ads(chance), market.invented_questions
    elif kind < options.invented_share + options.renamed_share:
        ads, questions = market.invented.renamed(market.ads, chance), market.questions
    else:
        ads, questions = list(market.ads), market.questions
    listed = _listed(ads, options, chance)
    adless = [query for query in market.questions if query.category is None]
    queries = _asked(listed, questions, adless, options, chance)
    user = _user(market, options, chance)
    slates = []
    for _ in range(options.slates):
        bids = _bids(listed, options.contrast_share, chance)
        slates.append(Slate(user, tuple(listed), bids, queries, chance.getrandbits(32)))
    return slates


def _bare_slate(market: Market, options: ExampleOptions, chance: random.Random) -> Slate:
    """Questions that no ad may answer, most of them such as an ad might."""
    asked = [chance.choice(market.questions) for _ in range(options.questions)]
    queries = {query.query_id: query for query in asked}
    user = _user(market, options, chance)
    return Slate(user, (), (), tuple(queries.values()), chance.getrandbits(32))


def _user(market: Market, options: ExampleOptions, chance: random.Random) -> User:
    user = chance.choice(market.users)
    if chance.random() >= options.profile_share:
        user = User(user.user_id, Profile(), Split.TRAIN)
    return user


def teach(auction: Auction, answer: str, options: ExampleOptions, chance: random.Random) -> Example:
    """Weave the winner of `auction` into `answer`, or none."""
    ad, text = winner(auction, options), complete(answer)
    return Example(auction, Woven(text) if ad is None else weave(text, ad, chance), ad)


def winner(auction: Auction, options: ExampleOptions) -> Ad | None:
    """The ad to show, of those that fit and bid enough: the first one listed, as bids have drawn
    the order; where bids leave the order alone, the one of the highest bid.

    Nothing in the prompt tells of two ads that fit which one is clicked more, so click
    probabilities have no say here: callers who know them have them in the order.
    """
    served = {ad.ad_id: ad for ad in fitting(auction)}
    worth = [
        candidate
        for candidate in listed(auction, options.layout)
        if candidate.ad_id in served and candidate.bid >= options.least_bid
    ]
    if options.layout is Layout.SPLIT:
        worth.sort(key=lambda candidate: -candidate.bid)
    return served[worth[0].ad_id] if worth else None


def auction_prompt(layout: Layout, auction: Auction) -> Prompt:
    """The prompt that the service would send for `auction`."""
    return build_prompt(
        layout, listed(auction, layout), auction.query.text, profile=auction.user.profile
    )


@dataclass(frozen=True, slots=True)
class Pack:
    """Examples of one step. plain: their answers without the ads, each to its bare question; its
    targets are the rows that the teacher is to fill for those of `tree`."""

    tree: Tree
    plain: Tree


class Packer:
    """Examples to packs. tokenizer: a `transformers` fast one."""

    def __init__(self, tokenizer: Any, options: ExampleOptions) -> None:
        self._prompts = PromptTokenizer(tokenizer)
        self._tokenizer = tokenizer
        self._options = options
        own = (TokenKind.END,) if options.has_own_end else ()
        self._taught = [kind for kind in TAUGHT if kind not in own]

    def pack(self, groups: Sequence[Sequence[Example]]) -> Pack:
        """One pack; examples of a group share candidates, bids and profile."""
        prompts = [
            [self._prompts.encode(auction_prompt(self._options.layout, e.auction)) for e in group]
            for group in groups
        ]
        shared = shared_length([prompt for group in prompts for prompt in group])
        tree, plain = Tree(), _Plain()
        root = tree.add(Run(tuple(prompts[0][0][:shared])))
        for group, encoded in zip(groups, prompts, strict=True):
            stem_end = shared_length(encoded)
            stem = root
            if stem_end > shared:
                stem = tree.add(Run(tuple(encoded[0][shared:stem_end]), root))
            for example, prompt in zip(group, encoded, strict=True):
                tree.add(self._branch(example, prompt[stem_end:], stem, plain))
        return Pack(tree, plain.tree)

    def openings(self) -> list[int]:
        """The tokens that begin a sentence that holds an ad."""
        return [self._tokenizer(f" {OPENING}", add_special_tokens=False)["input_ids"][0]]

    def _branch(self, example: Example, question: Sequence[int], stem: int, plain: "_Plain") -> Run:
        tokens, kinds = self.answer_tokens(example.answer)
        if uniform("early", self._options.seed, example.answer.text) < self._options.early_share:
            decided = decided_length(kinds)
            tokens, kinds = tokens[:decided], kinds[:decided]
            taught: dict[int, int] = {}
        else:
            said = self._plain_answer(example.answer, kinds)
            taught = plain.add(self._bare_prompt(example), *said)
        targets = tuple(
            Target(len(question) + place, kind, taught.get(place))
            for place, kind in enumerate(kinds)
            if kind not in self._taught or place in taught
        )
        return Run((*question, *tokens), stem, targets)

    def _bare_prompt(self, example: Example) -> list[int]:
        auction = example.auction
        bare = build_prompt(
            self._options.layout, (), auction.query.text, profile=auction.user.profile
        )
        return self._prompts.encode(bare)

    def _plain_answer(
        self, answer: Woven, kinds: Sequence[TokenKind]
    ) -> tuple[list[int], dict[int, int]]:
        """The tokens of the answer without its ad, and where those to learn from stand: places in
        the woven answer's tokens to places in these."""
        tokens, starts = self._encode(answer.plain)
        woven, woven_starts = self._encode(answer.text)
        at, stop = answer.sentence or (len(answer.text), len(answer.text))
        by_start = {start: place for place, start in enumerate(starts)}
        matched = {}
        for place, start in enumerate(woven_starts):
            other = by_start.get(start if start < at else start - (stop - at))
            is_word = kinds[place] is TokenKind.TEXT and place % self._options.text_stride == 0
            if is_word and other is not None and tokens[other] == woven[place]:
                matched[place] = other
        if TokenKind.END in self._taught:
            matched[len(woven)] = len(tokens)
        return [*tokens, self._tokenizer.eos_token_id], matched

    def answer_tokens(self, answer: Woven) -> tuple[list[int], list[TokenKind]]:
        """The answer's tokens with its end, and their kinds."""
        tokens, starts = self._encode(answer.text)
        return [*tokens, self._tokenizer.eos_token_id], [
            *token_kinds(answer, starts),
            TokenKind.END,
        ]

    def _encode(self, text: str) -> tuple[list[int], list[int]]:
        """Tokens, and the character that each starts at."""
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return encoded["input_ids"], [start for start, _ in encoded["offset_mapping"]]


class _Plain:
    """Plain answers as a tree: a prompt's run, then the answer's; rows are its targets' numbers."""

    def __init__(self) -> None:
        self.tree = Tree()
        self._rows = 0

    def add(
        self, prompt: Sequence[int], tokens: Sequence[int], matched: Mapping[int, int]
    ) -> dict[int, int]:
        """Add an answer; return the rows of the matched places."""
        root = self.tree.add(Run(tuple(prompt)))
        targets = tuple(Target(place) for place in matched.values())
        self.tree.add(Run(tuple(tokens), root, targets))
        first, self._rows = self._rows, self._rows + len(targets)
        return {place: first + number for number, place in enumerate(matched)}


def token_kinds(answer: Woven, starts: Sequence[int]) -> list[TokenKind]:
    """The kind of each token, by the character that it starts at."""
    boundaries = {_first_from(starts, end) for end in sentence_ends(answer.text)}
    kinds = [
        TokenKind.BOUNDARY if index in boundaries else TokenKind.TEXT
        for index in range(len(starts))
    ]
    if answer.sentence is None or answer.marker is None:
        return kinds
    (begin, stop), (at, after) = answer.sentence, answer.marker
    for index, start in enumerate(starts):
        if begin <= start < at:
            kinds[index] = TokenKind.LEAD
        elif at <= start < after:
            kinds[index] = TokenKind.MARKER
        elif after <= start < stop:
            kinds[index] = TokenKind.OFFER
    kinds[_first_from(starts, begin)] = TokenKind.OPENING
    choice = _first_from(starts, at + 1)
    kinds[choice : choice + CHOICE_TOKENS] = [TokenKind.CHOICE] * CHOICE_TOKENS
    return kinds


def decided_length(kinds: Sequence[TokenKind]) -> int:
    """How many tokens it takes until nothing is left to decide: up to the start of the sentence
    after the one with the ad, or to that of the third sentence where none is woven in."""
    if TokenKind.OFFER in kinds:
        after = len(kinds) - list(reversed(kinds)).index(TokenKind.OFFER)
        return min(after + 1, len(kinds))
    boundaries = [place for place, kind in enumerate(kinds) if kind is TokenKind.BOUNDARY]
    return boundaries[1] + 1 if len(boundaries) > 1 else len(kinds)


def shared_length(sequences: Sequence[Sequence[int]]) -> int:
    """How many first tokens all `sequences` share, leaving each at least one of its own."""
    most = min(map(len, sequences)) - 1
    columns = zip(*(sequence[:most] for sequence in sequences), strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def _first_from(starts: Sequence[int], place: int) -> int:
    return next((i for i, start in enumerate(starts) if start >= place), len(starts))


def _bids(listed: Sequence[Ad], contrast_share: float, chance: random.Random) -> tuple[int, ...]:
    """Uniform, 1 to 100; at times those of two ads of a category far apart, to tell them by."""
    bids = {ad.ad_id: chance.randint(1, 100) for ad in listed}
    for category in sorted({ad.category for ad in listed}):
        rivals = [ad for ad in listed if ad.category == category]
        if len(rivals) == 2 and chance.random() < contrast_share:
            apart = [chance.randint(1, 40), chance.randint(60, 100)]
            chance.shuffle(apart)
            bids.update(zip([ad.ad_id for ad in rivals], apart, strict=True))
    return tuple(bids[ad.ad_id] for ad in listed)


def _listed(ads: Sequence[Ad], options: ExampleOptions, chance: random.Random) -> list[Ad]:
    count = chance.randint(*options.candidates)
    categories = sorted({ad.category for ad in ads})
    chance.shuffle(categories)
    listed: list[Ad] = []
    for category in categories:
        of_it = [ad for ad in ads if ad.category == category]
        chance.shuffle(of_it)
        listed += of_it[: 2 if chance.random() < options.pair_share else 1]
        if len(listed) >= count:
            break
    listed = listed[:count]
    chance.shuffle(listed)
    return listed


def _asked(
    listed: Sequence[Ad],
    questions: Sequence[Query],
    adless: Sequence[Query],
    options: ExampleOptions,
    chance: random.Random,
) -> tuple[Query, ...]:
    """Questions that a listed ad serves, that an ad elsewhere would serve, and that none does."""
    categories = {ad.category for ad in listed}
    served = [query for query in questions if query.category in categories]
    unserved = [q for q in questions if q.category is not None and q.category not in categories]
    asked: dict[str, Query] = {}
    for _ in range(options.questions):
        kind = chance.random()
        if kind < options.fitting_share and served:
            wanted = chance.choice(sorted({query.category or "" for query in served}))
            query = chance.choice([query for query in served if query.category == wanted])
        elif kind < options.fitting_share + options.unserved_share and unserved:
            query = chance.choice(unserved)
        else:
            query = chance.choice(adless)
        asked[query.query_id] = query
    return tuple(asked.values())

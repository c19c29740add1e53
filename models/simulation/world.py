"""A world: users with profiles and questions, and ads. Everything in it follows from a seed.

Who is held out follows from the seed and the number of users, so a user who is held out in one
world may be in the training split of another.

Knows no files (`saved_world`) and no language model (`user_llm`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from models.contract.markers import ambiguous_titles
from models.contract.prompt import Profile
from models.simulation.nouns import Ad, Query, Split, User
from models.simulation.people import Person, people
from models.simulation.questions import QuestionWriter, subjects
from models.simulation.randomness import generator
from models.simulation.wordings import load_material


@dataclass(frozen=True, slots=True)
class WorldOptions:
    """What to build.

    users, queries_per_user: at least 1. test_share: of users held out from training in this world,
    0 to 1. adless_share: of queries that no ad serves, 0 to 1.
    """

    seed: int = 1
    users: int = 3000
    queries_per_user: int = 5
    test_share: float = 0.2
    adless_share: float = 0.3

    def __post_init__(self) -> None:
        if self.users < 1 or self.queries_per_user < 1:
            raise ValueError("A world has at least 1 user and 1 query each")
        for name in ("test_share", "adless_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share, 0 to 1; it is {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class World:
    """Users, their queries (each of a known user), and ads; all ids are unique.

    near: for queries of which nobody knows what serves them, the ids of the ads that a search
    finds, best first (`retrieval`). Raises ValueError where something refers to what is not there,
    or where the markers of two ads could be confused.
    """

    users: tuple[User, ...]
    queries: tuple[Query, ...]
    ads: tuple[Ad, ...]
    near: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, ids in (
            ("user", [user.user_id for user in self.users]),
            ("query", [query.query_id for query in self.queries]),
            ("ad", [ad.ad_id for ad in self.ads]),
        ):
            if len(set(ids)) < len(ids):
                raise ValueError(f"Two {name}s of the world have the same id")
        unknown = {query.user_id for query in self.queries} - {user.user_id for user in self.users}
        if unknown:
            raise ValueError(f"Queries of users that the world lacks: {sorted(unknown)[:3]}")
        missing = {ad for ads in self.near.values() for ad in ads} - {ad.ad_id for ad in self.ads}
        if missing:
            raise ValueError(f"Ads near to queries that the world lacks: {sorted(missing)[:3]}")
        if unclear := ambiguous_titles([ad.marked for ad in self.ads]):
            raise ValueError(f"Markers of these ads could be misread: {sorted(unclear)[:3]}")

    @property
    def is_fit_known(self) -> bool:
        """Whether it is known which ads serve which query."""
        categories = {ad.category for ad in self.ads}
        return not self.near and all(
            query.category is None or query.category in categories for query in self.queries
        )

    def queries_of(self, split: Split) -> list[Query]:
        """The queries of the users of `split`."""
        users = {user.user_id for user in self.users if user.split is split}
        return [query for query in self.queries if query.user_id in users]


@dataclass(frozen=True, slots=True)
class Asker:
    """A user before the questions are written. subjects: what each is about, a category of ads or
    None where no ad is to serve it."""

    user: User
    person: Person
    subjects: tuple[str | None, ...]

    def queries(self, texts: Sequence[str]) -> tuple[Query, ...]:
        """The user's queries, once there is a text for each subject."""
        return tuple(
            Query(f"{self.user.user_id}-q{number}", self.user.user_id, text, subject)
            for number, (text, subject) in enumerate(
                zip(texts, self.subjects, strict=True), start=1
            )
        )


def plan(ads: Sequence[Ad], options: WorldOptions) -> list[Asker]:
    """Who asks in the world, and about what; the same users for any catalogue."""
    categories = sorted({ad.category for ad in ads if ad.category})
    held_out = _held_out(options.users, options.test_share, options.seed)
    askers = []
    for number, person in enumerate(people(options.users, options.seed)):
        user_id = f"u{number + 1:05d}"
        split = Split.TEST if number in held_out else Split.TRAIN
        chance = generator("subjects", options.seed, user_id)
        chosen = subjects(
            person, categories, options.queries_per_user, options.adless_share, chance
        )
        askers.append(Asker(User(user_id, person.profile, split), person, chosen))
    return askers


def build_world(
    ads: Sequence[Ad],
    options: WorldOptions | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> World:
    """Compose users and write their questions; `progress` is told how many users are done.

    Raises ValueError where `ads` are not fit for auctions, or the world is too big for the
    wordings that there are.
    """
    options = options or WorldOptions()
    writer = QuestionWriter(load_material(), ads)
    askers = plan(ads, options)
    queries: list[Query] = []
    for done, asker in enumerate(askers, start=1):
        chance = generator("questions", options.seed, asker.user.user_id)
        is_held_out = asker.user.split is Split.TEST
        queries += asker.queries(
            [writer.write(asker.person, about, is_held_out, chance) for about in asker.subjects]
        )
        progress(done)
    return World(tuple(asker.user for asker in askers), tuple(queries), tuple(ads))


def outside_world(
    ads: Sequence[Ad],
    queries: Sequence[Query],
    near: Mapping[str, tuple[str, ...]],
    test_share: float = 1.0,
    seed: int = 1,
) -> World:
    """A world of queries from outside, whose users nothing is known of; held out, unless told."""
    user_ids = list(dict.fromkeys(query.user_id for query in queries))
    held_out = _held_out(len(user_ids), test_share, seed)
    users = tuple(
        User(user_id, Profile(), Split.TEST if number in held_out else Split.TRAIN)
        for number, user_id in enumerate(user_ids)
    )
    return World(users, tuple(queries), tuple(ads), near)


def _held_out(users: int, share: float, seed: int) -> set[int]:
    """The numbers of the users of the test split: others for another number of users."""
    numbers = list(range(users))
    generator("split", seed).shuffle(numbers)
    return set(numbers[: round(users * share)])

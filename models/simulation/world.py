"""A world: users with profiles and questions, and ads; and the auctions drawn from it.

Everything follows from seeds. Knows no files (`saved_world`) and no language model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from models.contract.markers import ambiguous_titles
from models.simulation.nouns import Ad, Query, Split, User
from models.simulation.people import people
from models.simulation.questions import QuestionWriter
from models.simulation.randomness import generator
from models.simulation.wordings import load_material


@dataclass(frozen=True, slots=True)
class WorldOptions:
    """What to build.

    users, queries_per_user: at least 1. test_share: of users held out, 0 to 1. adless_share: of
    queries that no ad serves, 0 to 1.
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
    """Users, their queries (each of a known user), and ads; all ids are unique."""

    users: tuple[User, ...]
    queries: tuple[Query, ...]
    ads: tuple[Ad, ...]

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
        if unclear := ambiguous_titles(ad.marked for ad in self.ads):
            raise ValueError(f"Markers of these ads could be misread: {sorted(unclear)[:3]}")

    def queries_of(self, split: Split) -> list[Query]:
        """The queries of the users of `split`."""
        users = {user.user_id for user in self.users if user.split is split}
        return [query for query in self.queries if query.user_id in users]


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
    writer = QuestionWriter(load_material(), ads, options.adless_share)
    held_out = _held_out(options)
    users: list[User] = []
    queries: list[Query] = []
    for number, person in enumerate(people(options.users, options.seed)):
        user_id = f"u{number + 1:05d}"
        split = Split.TEST if number in held_out else Split.TRAIN
        users.append(User(user_id, person.profile, split))
        chance = generator("questions", options.seed, user_id)
        categories = writer.categories(person, options.queries_per_user, chance)
        for index, category in enumerate(categories, start=1):
            text = writer.write(person, category, split is Split.TEST, chance)
            queries.append(Query(f"{user_id}-q{index}", user_id, text, category))
        progress(number + 1)
    return World(tuple(users), tuple(queries), tuple(ads))


def _held_out(options: WorldOptions) -> set[int]:
    """The numbers of the users of the test split."""
    numbers = list(range(options.users))
    generator("split", options.seed).shuffle(numbers)
    return set(numbers[: round(options.users * options.test_share)])

from models.simulation.embeddings import MiniLmEncoder
from models.simulation.nouns import Ad, Query
from models.simulation.retrieval import nearest_ads


def test_what_serves_a_query_is_found_without_knowing_its_category(
    ads: tuple[Ad, ...], encoder: MiniLmEncoder
) -> None:
    queries = [
        Query("q1", "u1", "My terrier leaves his bowl full. What could I feed instead?", None),
        Query("q2", "u2", "Our gas boiler is 25 years old. What do we replace it with?", None),
    ]

    found = nearest_ads(queries, ads, encoder, count=3)

    by_id = {ad.ad_id: ad.category for ad in ads}
    assert by_id[found["q1"][0]] == "pet food"
    assert by_id[found["q2"][0]] == "heat pumps"
    assert [len(near) for near in found.values()] == [3, 3]


def test_nothing_is_found_where_nothing_is(ads: tuple[Ad, ...], encoder: MiniLmEncoder) -> None:
    query = Query("q1", "u1", "Why is snow white?", None)

    assert nearest_ads([], ads, encoder) == {}
    assert nearest_ads([query], [], encoder) == {}
    assert len(nearest_ads([query], ads[:2], encoder)["q1"]) == 2

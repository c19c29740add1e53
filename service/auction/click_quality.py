"""Which requests for a click's address are no click: nobody has looked at the page for them.

Pure. Browsers say so when they fetch ahead, and chat and mail programs name themselves when they
fetch a page for its preview. What lies is charged: at most once per ad and answer all the same.
"""

import re
from collections.abc import Mapping
from enum import StrEnum

_FETCHING_AHEAD = (
    ("sec-purpose", ("prefetch", "prerender")),
    ("purpose", ("prefetch", "preview")),
    ("x-purpose", ("prefetch", "preview")),
    ("x-moz", ("prefetch",)),
)
"""Headers by which browsers mark what the user has not asked for: the first by the Fetch standard,
the others of older Chrome, Safari and Firefox."""

_PREVIEWERS = re.compile(
    "|".join(
        (
            "applebot",
            "bingpreview",
            "bitlybot",
            "bot;",
            "bot/",
            "bufferbot",
            "crawler",
            "discordbot",
            "embedly",
            "facebookcatalog",
            "facebookexternalhit",
            "flipboardproxy",
            "google-pagerenderer",
            "google-safety",
            "googleimageproxy",
            "iframely",
            "linkedinbot",
            "meta-externalfetcher",
            "microsoftpreview",
            "pinterestbot",
            "redditbot",
            "skypeuripreview",
            "slack-imgproxy",
            "slackbot",
            "snap url preview",
            "spider",
            "telegrambot",
            "twitterbot",
            "vkshare",
            "whatsapp",
            "yahoo link preview",
            "zoombot",
        )
    )
)


class NoClick(StrEnum):
    """Why a request is no click. Doubles as a metric label."""

    HEAD = "head"
    PREFETCH = "prefetch"
    PREVIEW = "preview"


def no_click(method: str, headers: Mapping[str, str]) -> NoClick | None:
    """Why this request is no click, or None where it is one. headers: by lower-case name."""
    if method == "HEAD":
        return NoClick.HEAD
    for name, words in _FETCHING_AHEAD:
        said = headers.get(name, "").lower()
        if any(word in said for word in words):
            return NoClick.PREFETCH
    if _PREVIEWERS.search(headers.get("user-agent", "").lower()):
        return NoClick.PREVIEW
    return None

"""docs/live-page.md tells other programs which events there are."""

import re

from tests.support.metric_catalogue import ROOT

FEED = ROOT / "cloud_recognizer" / "live_page" / "feed.py"
PAGE = ROOT / "docs" / "live-page.md"


def test_the_page_has_every_event_that_a_browser_is_sent_and_no_other() -> None:
    table = PAGE.read_text(encoding="utf-8").partition("\n## Events\n")[2]
    told = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    sent = re.findall(r"\bevent\(\"(\w+)\"", FEED.read_text(encoding="utf-8"))
    assert sorted(told) == sorted(set(sent))
    assert len(told) >= 6

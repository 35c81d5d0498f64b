"""T28, T42: names are labels, never paths; what people write locally steers no terminal."""

from __future__ import annotations

import pytest

from hanse.core.errors import Rejected
from hanse.core.events import check_text
from hanse.core.ids import Digest, Origin, segment, version
from hanse.core.limits import TEXT_BYTES_MAX

NAMES = [
    "..", ".", "a..b", "../a", "a/../b", "/a", "a/b", "a\\b", "\\\\host\\share", "C:a", "~",
    "~root", "a\0", "a\0.onnx", "%2e%2e", "%2e%2e%2fa", "..%2f", "a%00", "#", "a#b", "#/../../a",
    "?a", "a?b", "\u2024\u2024", "\uff0e\uff0e", "\u2215", "a\u2215b", "\uff0f", "a\u202eb",
    "a\u2066b", "\u0430dmin", "a ", " a", "a\n", "a\tb", "a\r", "", "-a", "_a", ".a", "a" * 65,
    "A", "\u00e9", "caf\u00e9", "http:a", "file:a", "a;b", "a'b", 'a"b', "a`b", "$a", "a|b",
    "a&b", "a*b", "<a>", "con\x1b[2J", "\ud800", "a\ud800", "\u0660", "\u00b2",
]  # fmt: skip
TEXTS = [
    "\0", "\x1b[2J", "a\nb", "a\rb", "a\x7f", "a\x9b1m", "\u061c", "\u200e", "\u200f", "\u2028",
    "\u2029", *map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A)), "a\ud800",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_no_name_is_a_path_an_escape_or_a_look_alike(name: str) -> None:
    with pytest.raises(Rejected):
        segment(name)
    origin = f"harbour/{name}/{'0' * 32}/i1"
    with pytest.raises(Rejected):
        Origin.parse(origin)
    with pytest.raises(Rejected):
        Digest.parse(f"sha256:{name}")
    if name != "A":
        with pytest.raises(Rejected):
            version(name)


@pytest.mark.parametrize("name", ["a", "0", "a.b", "a-b_c.d", "a" * 64, "3.0.0-rc.1", "a."])
def test_plain_names_are_names(name: str) -> None:
    assert segment(name) == version(name) == name


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_a_text_that_steers_a_terminal_is_not_written_here(text: str) -> None:
    with pytest.raises(Rejected, match="control characters"):
        check_text(f"because {text} of that", "reason")


def test_plain_text_of_every_script_may_be_written_up_to_its_bound() -> None:
    for text in (
        "weil 5 % der Kisten \u201efalsch\u201c sind",
        "\u56e0\u4e3a",
        "\u0644\u0623\u0646",
        "\u05db\u05d9",
    ):
        assert check_text(text, "reason") == text
    assert check_text("x" * TEXT_BYTES_MAX, "reason")
    with pytest.raises(Rejected, match="longer"):
        check_text("x" * (TEXT_BYTES_MAX + 1), "reason")
    with pytest.raises(Rejected, match="longer"):
        check_text("\u00e9" * (TEXT_BYTES_MAX // 2 + 1), "reason")

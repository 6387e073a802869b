"""The built pages: nothing from another host, pictures described, links that lead somewhere, no page too heavy."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

SOURCES = ("script", "img", "iframe", "source", "video", "audio", "embed", "input")
LOADS = {(tag, "src") for tag in SOURCES} | {("object", "data"), ("link", "href"), ("image", "href"), ("use", "href")}
OUTSIDE = re.compile(r"^(https?:)?//", re.IGNORECASE)
IN_STYLE = re.compile(r"(?:url\(\s*['\"]?|@import\s+['\"])((?:https?:)?//[^'\")\s]+)", re.IGNORECASE)
IN_SCRIPT = re.compile(r"""["']((?:https?:)?//[^"'\s]+\.(?:m?js|css|json|woff2?|ttf|png|svg))["']""")
HASH_ALT = re.compile(r"^(?:\.\./)*(?:_images/)?[0-9a-f]{16,}(?:\.\w+)?$")


class Page(HTMLParser):
    """What a page loads, shows and points to."""

    def __init__(self, path: Path):
        super().__init__()
        self.path, self.loads, self.links, self.images, self.ids = path, [], [], [], set()
        self.inside = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.inside = tag
        self.ids |= {attributes[key] for key in ("id", "name") if attributes.get(key)}
        self.loads += [
            value for key, value in attrs if (tag, key) in LOADS and value and not self._only_names(attributes)
        ]
        self.loads += IN_STYLE.findall(attributes.get("style") or "")
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        if tag == "img":
            self.images.append(attributes)

    def handle_data(self, data):
        if self.inside == "style":
            self.loads += IN_STYLE.findall(data)
        if self.inside == "script":
            self.loads += IN_SCRIPT.findall(data)

    @staticmethod
    def _only_names(attributes) -> bool:
        """A link that names a related page; the browser does not fetch it."""
        return attributes.get("rel") in {"next", "prev", "search", "index", "author", "canonical", "license"}


@pytest.fixture(scope="module")
def pages(book) -> list[Page]:
    return [Page(path) for path in sorted(book.rglob("*.html")) if "_static" not in path.parts]


def test_pages_exist(pages, book):
    names = {str(page.path.relative_to(book)) for page in pages}
    assert {"index.html", "chapters/theory.html", "chapters/stripe.html", "notation.html"} <= names


def test_pages_load_nothing_from_another_host(pages):
    assert {(p.path.name, load) for p in pages for load in p.loads if OUTSIDE.match(load)} == set()


def test_styles_load_nothing_from_another_host(book):
    found = {(path.name, url) for path in book.rglob("*.css") for url in IN_STYLE.findall(path.read_text("utf-8"))}
    assert found == set()


def test_what_pages_load_is_there(pages):
    for page in pages:
        for load in page.loads:
            target = urlsplit(load)
            if not target.scheme and target.path and not OUTSIDE.match(load):
                assert (page.path.parent / unquote(target.path)).exists(), (
                    f"{page.path.name} loads {load}: no such file"
                )


def test_every_image_is_described(pages):
    for page in pages:
        for image in page.images:
            alt = (image.get("alt") or "").strip()
            assert len(alt) > 3, f"{page.path.name}: expected an alt text, got {alt!r} for {image.get('src', '')[:80]}"
            assert not HASH_ALT.match(alt), f"{page.path.name}: expected a description, got the file name {alt!r}"


def test_internal_links_resolve(pages):
    ids = {page.path.resolve(): page.ids for page in pages}
    for page in pages:
        for link in page.links:
            target = urlsplit(link)
            if target.scheme or target.netloc:
                continue
            path = (page.path.parent / unquote(target.path)).resolve() if target.path else page.path.resolve()
            assert path.exists(), f"{page.path.name} links to {link}: no such page"
            if target.fragment and path in ids:
                assert unquote(target.fragment) in ids[path], f"{page.path.name} links to {link}: no such place"


def test_pages_are_light(pages):
    for page in pages:
        pictures = [page.path.parent / unquote(load) for load in page.loads if "_images/" in load]
        size = page.path.stat().st_size + sum(path.stat().st_size for path in pictures)
        assert size <= 3_000_000, f"{page.path.name}: expected at most 3 MB with its pictures, got {size}"


@pytest.mark.parametrize(
    ("html", "load"),
    [
        ('<script src="https://cdn.example/x.js"></script>', "https://cdn.example/x.js"),
        ('<link rel="stylesheet" href="//cdn.example/x.css">', "//cdn.example/x.css"),
        ('<style>@import "https://cdn.example/x.css";</style>', "https://cdn.example/x.css"),
        ('<p style="background: url(https://cdn.example/x.png)">', "https://cdn.example/x.png"),
        ('<script>require(["https://cdn.example/x.js"])</script>', "https://cdn.example/x.js"),
    ],
)
def test_the_parser_notices_an_outside_load(tmp_path, html, load):
    (tmp_path / "x.html").write_text(html)
    assert [found for found in Page(tmp_path / "x.html").loads if OUTSIDE.match(found)] == [load]

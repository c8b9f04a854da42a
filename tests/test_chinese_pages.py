"""The Chinese pages: code as on the English ones, links between the languages, paragraphs."""

import re

import pytest

from tests.docs_blocks import ROOT, commands, fenced, without_fences


def shown_code(page: str) -> list[str]:
    """Return the code of a page and its commands, without comments."""
    shown = [*fenced("python"), *commands()]
    return [re.sub(r" *#.*", "", block.text) for block in shown if block.page == page]


def test_the_chinese_readme_and_tutorial_show_the_same_code() -> None:
    assert shown_code("docs/zh/README.md") == shown_code("README.md")
    assert shown_code("docs/zh/tutorial.md") == shown_code("docs/tutorial.md")


@pytest.mark.parametrize(
    ("page", "original"),
    [("shell", "howto/shell"), ("workers", "workers"), ("errors", "reference/errors")],
)
def test_all_code_of_a_chinese_page_is_on_the_english_one(page: str, original: str) -> None:
    known = shown_code(f"docs/{original}.md") + shown_code("README.md")
    assert [code for code in shown_code(f"docs/zh/{page}.md") if code not in known] == []


def test_each_chinese_page_and_its_english_one_lead_to_each_other() -> None:
    for page in (ROOT / "docs" / "zh").glob("*.md"):
        (link,) = re.findall(r"^\[English\]\((.*)\)$", page.read_text(), re.MULTILINE)
        original = (page.parent / link).resolve()
        (back,) = re.findall(r"^\[中文(?:说明)?\]\((.*)\)$", original.read_text(), re.MULTILINE)
        assert (original.parent / back).resolve() == page


def test_a_chinese_paragraph_is_one_line() -> None:
    """The site turns a line break between two Chinese characters into a blank."""
    for page in (ROOT / "docs" / "zh").glob("*.md"):
        text = without_fences(f"docs/zh/{page.name}")
        assert not re.search(r"[\u4e00-\u9fff，。：；、]\n[^\n|#\-\[<*`\s]", text), page

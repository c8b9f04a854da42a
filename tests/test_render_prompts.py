"""Files of prompts: three formats, the keys of rows, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from luma_async.cli.rendering.prompts import read_prompts

JSON_ROW = '{"user_prompt": "a cat", "aspect_ratio": "9:16", "loop": true, "duration": "5s"}\n'


def fields(path: Path) -> list[dict[str, Any]]:
    return [row.submission.fields for row in read_prompts(path)]


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_text_has_a_prompt_in_each_line(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", "\ufeffa cat\r\n\n  一只狗 \n")
    assert fields(path) == [{"user_prompt": "a cat"}, {"user_prompt": "一只狗"}]
    assert [row.line for row in read_prompts(path)] == [1, 3]


def test_the_columns_of_a_table_are_the_fields_and_empty_cells_are_not_sent(tmp_path: Path) -> None:
    table = (
        "\ufeffuser_prompt, aspect_ratio,loop,model_name\n"
        '"a cat, and\na dog",9:16,TRUE,\n'
        "\n ,,,\n"
        "a fish,,no,ray-v2\n"
        "short\n"
    )
    path = write(tmp_path, "a.CSV", table)
    assert fields(path) == [
        {"user_prompt": "a cat, and\na dog", "aspect_ratio": "9:16", "loop": True},
        {"user_prompt": "a fish", "loop": False, "model_name": "ray-v2"},
        {"user_prompt": "short"},
    ]
    assert [row.line for row in read_prompts(path)] == [2, 6, 7]


def test_an_object_in_a_line_is_a_row(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", f"{JSON_ROW}\n{JSON_ROW}")
    one = {"user_prompt": "a cat", "aspect_ratio": "9:16", "loop": True, "duration": "5s"}
    assert fields(path) == [one, one]


def test_a_field_that_is_null_is_not_sent(tmp_path: Path) -> None:
    with_null = '{"user_prompt": "a cat", "loop": null, "task_id": null, "more": null}\n'
    path = write(tmp_path, "a.jsonl", f'{with_null}{{"user_prompt": "a cat"}}\n')
    assert fields(path) == [{"user_prompt": "a cat"}] * 2
    first, second = (row.key for row in read_prompts(path))
    assert first.removesuffix("-1") == second.removesuffix("-2")


def test_a_large_image_fits_into_a_cell(tmp_path: Path) -> None:
    image = f"data:image/png;base64,{'A' * 300_000}"
    path = write(tmp_path, "a.csv", f'user_prompt,image_url\na cat,"{image}"\n')
    assert fields(path)[0]["image_url"] == image


def test_the_key_of_a_row_is_its_content_and_its_number_among_equal_rows(tmp_path: Path) -> None:
    def keys(text: str) -> list[str]:
        return [row.key for row in read_prompts(write(tmp_path, "a.txt", text))]

    cat, dog, again = keys("cat\ndog\ncat\n")
    assert len({cat, dog, again}) == 3
    assert keys("new\ndog\ncat\ncat\ncat\n")[1:4] == [dog, cat, again]
    table = write(tmp_path, "a.csv", "loop,user_prompt\n,cat\ntrue,cat\n")
    same, other = (row.key for row in read_prompts(table))
    assert same == cat, "the format and the order of the columns do not matter"
    assert other not in (cat, dog, again)


def test_the_key_of_a_row_is_the_same_in_all_versions(tmp_path: Path) -> None:
    """Else each prompt of a journal that another version wrote would be paid for again."""
    text = write(tmp_path, "a.txt", "cat\n一只狗\ncat\n")
    assert [row.key for row in read_prompts(text)] == [
        "85937caac26af1e54b13ef24866939e4-1",
        "bde6d35de2e7ddcb814ff84b2a5014b5-1",
        "85937caac26af1e54b13ef24866939e4-2",
    ]
    lines = write(tmp_path, "a.jsonl", JSON_ROW)
    assert [row.key for row in read_prompts(lines)] == ["ba310c79351f4ed4a31b4fb48ca48ed4-1"]


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("a.txt", "", "has no prompts"),
        ("a.txt", "\n \n", "has no prompts"),
        ("a.xlsx", "x", r"give a \.csv"),
        ("a.csv", "prompt\ncat\n", "line 1: there is no column user_prompt"),
        ("a.csv", "", "line 1: there is no column user_prompt"),
        ("a.csv", "user_prompt,\ncat,\n", "line 1: a column has no name"),
        ("a.csv", "user_prompt,loop,loop\ncat\n", "line 1: a column has no name, or that of"),
        ("a.csv", "user_prompt\ncat, dog\n", "line 2: it has more cells"),
        ("a.csv", "user_prompt,loop\ncat,maybe\n", "line 2: loop is 'maybe'; give true or false"),
        ("a.csv", "user_prompt,aspect_ratio\ncat,wide\n", "line 2: aspect_ratio="),
        ("a.csv", "user_prompt,loop\n,true\n", "line 2: there is no user_prompt"),
        ("a.csv", 'user_prompt\n"cat\n', "line 2: it is no CSV"),
        ("a.csv", "user_prompt,image_url\ncat,./a.png\n", "line 2: image_url is no link"),
        ("a.csv", 'user_prompt,"loop\n', "line 1: it is no CSV"),
        ("a.jsonl", '{"user_prompt": null}', "line 1: there is no user_prompt; give one"),
        ("a.jsonl", f"{JSON_ROW}[]\n", "line 2: it is no JSON object"),
        ("a.jsonl", "{\n", "line 1: it is no JSON object"),
        ("a.jsonl", "[" * 100_000, "line 1: it is no JSON object"),
        ("a.jsonl", '{"prompt": "a cat"}', "line 1: there is no user_prompt; give one"),
        ("a.csv", "user_prompt,task_id\ncat,a\n", "line 2: task_id is of a task that exists"),
        ("a.jsonl", '{"user_prompt": "a", "extends": "b"}', "line 1: extends is of a task"),
        ("a.jsonl", '{"user_prompt": 5}', "line 1: user_prompt is of type int"),
        ("a.jsonl", '{"user_prompt": "a", "prompt": "b"}', "line 1: relays have no field"),
    ],
)
def test_an_invalid_file_is_refused_with_its_line(
    tmp_path: Path, name: str, text: str, error: str
) -> None:
    with pytest.raises(ValueError, match=error):
        read_prompts(write(tmp_path, name, text))


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="save it as UTF-8"):
        read_prompts(tmp_path / "a.txt")


def test_only_a_line_feed_ends_a_prompt(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", "a cat\u2028on a\x0bmat\r\na dog\n")
    assert fields(path) == [
        {"user_prompt": "a cat\u2028on a\x0bmat"},
        {"user_prompt": "a dog"},
    ]


def test_the_key_of_a_row_does_not_change_with_the_order_of_nested_names(tmp_path: Path) -> None:
    first = write(
        tmp_path, "a.jsonl", '{"user_prompt": "a", "more": {"x": 1, "y": {"b": 1, "a": 2}}}'
    )
    second = write(
        tmp_path, "b.jsonl", '{"more": {"y": {"a": 2, "b": 1}, "x": 1}, "user_prompt": "a"}'
    )
    assert read_prompts(first)[0].key == read_prompts(second)[0].key


def test_a_text_in_utf_16_without_a_mark_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("a cat\n".encode("utf-16-le"))
    with pytest.raises(ValueError, match="save it as UTF-8"):
        read_prompts(tmp_path / "a.txt")

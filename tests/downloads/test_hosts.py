"""Each host of the benchmark: the right bytes, or the right error and nothing kept."""

from tests.bench.hosts import PAGE, rows


def test_what_becomes_of_a_file_at_each_host_is_as_on_the_page() -> None:
    page = PAGE.read_text()
    table = page[page.index("<!-- hosts -->") : page.index("<!-- end of hosts -->")]
    assert "\n".join(rows()).splitlines() == table.splitlines()[1:]
    assert "**" not in table

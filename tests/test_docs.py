"""The site is built without a warning, and every block of code on its pages runs and prints what the page says.

A page's Python blocks run in order in one namespace, its shell blocks by bash, all in one new folder with photo.jpg and
what the repository has under weights/ and tests/recorded/. A text block right after a block of code is what that
prints, `...` standing for anything. An HTML comment that begins with `setup` is Python that runs first, unseen.
"""

import contextlib
import doctest
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from browsing import problems
from PIL import Image

pytest.importorskip("sphinx", reason="the site needs Sphinx: pip install '.[docs]'")
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
NEED_TENSORFLOW = {"verify.md"}
LANGUAGES = ("python", "sh", "text")
FOLDERS = ("benchmarks", "docs", "kernels", "resnet_ref", "tests", "weights")
SOURCES = [path.relative_to(ROOT).as_posix() for folder in FOLDERS for path in (ROOT / folder).rglob("*.*")]
LENIENT = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Block(NamedTuple):
    """Of a page. language: one of LANGUAGES. printed: what the text block right after it holds."""

    line: int
    language: str
    code: str
    printed: str | None = None


def blocks(page: Path) -> list[Block]:
    """In order; AssertionError for one of another language."""
    found: list[Block] = []
    tokens = MarkdownIt().parse(page.read_text("utf-8"))
    before = None
    for token in tokens:
        if token.type == "fence" and not token.info.startswith("{"):
            line = token.map[0] + 1 if token.map else 0
            assert token.info in LANGUAGES, f"{page.name}, line {line}: a block must be one of {LANGUAGES}"
            if token.info == "text" and before == "code":
                found[-1] = found[-1]._replace(printed=token.content)
            elif token.info != "text":
                found.append(Block(line, token.info, token.content))
            before = "text" if token.info == "text" else "code"
        else:
            before = None
        if token.type == "html_block" and (setup := re.match(r"<!-- setup\n(.*)-->", token.content, re.DOTALL)):
            found.append(Block(0, "python", setup[1]))
    return found


PAGES_WITH_CODE = [
    pytest.param(
        page, id=page.relative_to(DOCS).as_posix(), marks=pytest.mark.oracle if page.name in NEED_TENSORFLOW else ()
    )
    for page in PAGES
    if blocks(page)
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "-n",
        "-q",
        "--keep-going",
        "-d",
        folder / "doctrees",
        DOCS,
        folder,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return folder


def test_the_site_is_built_without_a_warning_and_has_every_page(site: Path) -> None:
    for page in PAGES:
        assert site.joinpath(page.relative_to(DOCS)).with_suffix(".html").is_file()


def test_nothing_on_the_site_is_fetched_from_elsewhere(site: Path) -> None:
    """Scripts, styles, fonts and pictures lie beside the pages."""
    for page in site.rglob("*.html"):
        for found in re.findall(
            r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=\"([^\"]+)\"", page.read_text("utf-8")
        ):
            assert not found.startswith(("http:", "https:", "//")), (page.name, found)


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", ["index", "tour", "kernels/conv2d", "ladder/cpu", "accuracy", "why_not_equal"])
def test_a_page_keeps_nobody_out(browser: Any, site: Path, page: str, scheme: str) -> None:
    """The theme's two side bars are landmarks of the same name, which is not ours to mend."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(site.joinpath(f"{page}.html").as_uri())
    assert [one for one in problems(browser) if not one.startswith("landmark-unique")] == []
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth - innerWidth") <= 0


def test_a_broken_link_and_a_claim_without_its_test_are_errors(tmp_path: Path) -> None:
    for name in ("conf.py", "_ext", "_static"):
        (tmp_path / name).symlink_to(DOCS / name)
    for text, said in (
        ("[there](nowhere.md)", "cross-reference target not found: 'nowhere.md'"),
        ("[there](#nowhere)", "'nowhere'"),
        ("{test}`test_nothing`", "undefined label: 'test_nothing'"),
        ("```{literalinclude} gone.py\n```", "gone.py"),
        ("```{kernel-picture} nothing\n```", "nothing"),
    ):
        (tmp_path / "index.md").write_text(f"# Page\n\n{text}\n")
        command = [sys.executable, "-m", "sphinx", "-W", "-n", "-q", "-E", tmp_path, tmp_path / "built"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode != 0, text
        assert said in done.stderr


@pytest.mark.parametrize("page", PAGES_WITH_CODE)
def test_every_block_of_code_runs_and_prints_what_the_page_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pixels = np.arange(90 * 70 * 3, dtype=np.uint8).reshape(90, 70, 3)
    Image.fromarray(pixels).save("photo.jpg")
    for place in ("weights", "tests/recorded"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).symlink_to(ROOT / place)
    namespace: dict[str, Any] = {"ROOT": ROOT, "FOLDER": tmp_path}
    for block in blocks(page):
        printed = by_python(block.code, namespace) if block.language == "python" else by_bash(block.code)
        where = f"{page.relative_to(ROOT)}, line {block.line}"
        if block.printed is not None:
            same = doctest.OutputChecker().check_output(block.printed, printed, LENIENT)
            assert same, f"{where} prints\n{printed}\nand not\n{block.printed}"


def by_python(code: str, namespace: dict[str, Any]) -> str:
    """What it prints."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(code, "<page>", "exec"), namespace)
    return out.getvalue()


def by_bash(code: str) -> str:
    """What it prints; resnet-ref is the one of this Python."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{code}\nends with status {done.returncode}: {done.stderr}"
    return done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_every_source_file_that_a_page_names_is_there(page: Path) -> None:
    named = re.findall(r"`([\w./-]+\.(?:py|cu|cuh))`", page.read_text("utf-8"))
    missing = [name for name in named if not any(name == path or path.endswith(f"/{name}") for path in SOURCES)]
    assert missing == []


def test_what_a_page_prints_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nprint(1 + 1)\n```\n\n```text\n2\n```\n\ntext\n\n```text\nfree\n```\n```sh\necho a b\n```\n"
    )
    first, second = blocks(page)
    assert (first.printed, second.printed, second.language) == ("2\n", None, "sh")
    assert by_python(first.code, {}) == "2\n"
    assert by_bash(second.code) == "a b\n"
    with pytest.raises(AssertionError, match="status 3"):
        by_bash("exit 3")
    page.write_text("```c\nint i;\n```\n")
    with pytest.raises(AssertionError, match=r"line 1: a block must be one of"):
        blocks(page)

"""The pages: their code runs as it stands, their formulas convert, their numbers are those that docstrings cite."""

from __future__ import annotations

import doctest
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(p for p in DOCS.rglob("*.md") if "generated" not in p.parts)
BLOCK = re.compile(r"(<!-- not run: .+? -->\n+)?^```(python|pycon)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
WITH_CODE = [page for page in PAGES if re.search(r"^```(python|pycon)$", page.read_text(), re.MULTILINE)]


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: str(page.relative_to(DOCS)))
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python blocks are executed and pycon blocks compared, in order, in one namespace a page and an empty folder.

    A block below the comment ``<!-- not run: reason -->`` is left out.
    """
    text = page.read_text()
    monkeypatch.chdir(tmp_path)
    if "from trl import" in text:
        pytest.importorskip("trl")
    names: dict[str, Any] = {"__name__": "__main__"}
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    blocks = list(BLOCK.finditer(text))
    assert len(blocks) == len(re.findall(r"^```(?:python|pycon)$", text, re.MULTILINE))
    for number, (skipped, kind, code) in enumerate(b.groups() for b in blocks):
        line = text[: blocks[number].start(3)].count("\n")
        if skipped:
            continue
        if kind == "python":
            exec(compile("\n" * line + "from __future__ import annotations\n" + code, str(page), "exec"), names)
        else:
            test = doctest.DocTestParser().get_doctest(code, names, page.name, str(page), line)
            assert test.examples
            runner.run(test, clear_globs=False)
            names.update(test.globs)
    assert runner.failures == 0, "see the captured output"


def test_every_room_has_its_page() -> None:
    told = "\n".join(page.read_text() for page in (DOCS / "api").glob("*.md"))
    for init in sorted((ROOT / "kvar").glob("*/__init__.py")):
        if init.parent.name != "assets":
            assert re.search(rf"(automodule::|^)\s+kvar\.{init.parent.name}$", told, re.MULTILINE), init.parent.name
            assert f"api/{init.parent.name}\n" in (DOCS / "index.md").read_text()


def test_equations_have_one_number_each_and_docstrings_cite_none_other() -> None:
    tags = [tag for page in PAGES for tag in re.findall(r"\\tag\{([^}]*)\}", page.read_text())]
    assert len(tags) == len(set(tags))
    assert {*map(str, range(1, 18)), "4'", "11'"} <= set(tags)
    cited = re.compile(r"theory\.md,?(?: eqs?\.)? \((\d+'?)\)")
    found = {
        (path.name, number) for path in (ROOT / "kvar").rglob("*.py") for number in cited.findall(path.read_text())
    }
    assert len(found) > 20
    assert not [(name, number) for name, number in found if number not in tags]


def test_formulas_convert_to_mathml() -> None:
    pytest.importorskip("sphinx", reason="make docs installs what builds the pages")
    spec = importlib.util.spec_from_file_location("mathml", DOCS / "mathml.py")
    assert spec is not None and spec.loader is not None
    mathml = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mathml)
    from docutils import nodes

    formulas = 0
    for page in PAGES:
        text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        blocks = re.findall(r"\$\$(.*?)\$\$", text, re.DOTALL)
        inline = re.findall(r"(?<![\\`$])\$([^$`]+)\$", re.sub(r"\$\$.*?\$\$", "", text, flags=re.DOTALL))
        for formula, block in [*((f, True) for f in blocks), *((f, False) for f in inline)]:
            made, _ = mathml.convert(nodes.math_block(formula, formula), block=block)
            assert made.startswith("<math")
            formulas += 1
    assert formulas > 50
    made, tag = mathml.convert(nodes.math_block("", r"a_1 \tag{4'}"), block=True)
    assert tag == "4'" and "tag" not in made
    with pytest.raises(Exception, match=r"unheardof.* in the formula"):
        mathml.convert(nodes.math_block("", r"\unheardof x"), block=True)


@pytest.mark.slow
def test_the_pages_build_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("furo", reason="make docs installs what builds the pages")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", str(tmp_path / "trees")]
    found = subprocess.run([*command, str(DOCS), str(tmp_path / "html")], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    page = (tmp_path / "html" / "theory.html").read_text()
    assert "id=\"eq-11'" in page or 'id="eq-11&#x27;' in page
    assert "<math" in page
    assert not re.search(r"<(?:script|link|img)[^>]*(?:src|href)=.https?:", page)  # readable without a network

"""The documentation says nothing that is not so: its commands parse, its Python names exist, its notebooks run."""

import ast
import inspect
import re
import shlex
import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
from fgdiag_cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NOTEBOOKS = sorted((ROOT / "docs").rglob("*.ipynb"))
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`fgdiag ([^`]*)`")
WRONG_USAGE = typer.BadParameter.__mro__[1]
"""Of which a bad parameter is one kind; typer may bring a click of its own."""
PLACEHOLDER = re.compile(r"[A-Z_]+|\.\.\.")


def fences(text: str, *kinds: str) -> Iterator[str]:
    return (body for kind, body in FENCE.findall(text) if kind in kinds)


def typed(text: str) -> Iterator[str]:
    """Each command line of `fgdiag` in the fences of a page, what goes on behind a backslash included."""
    for block in fences(text, "", "bash", "sh", "console"):
        for line in block.replace("\\\n", " ").splitlines():
            command = shlex.split(line, comments=True)
            if command[:1] == ["fgdiag"]:
                yield shlex.join(command[1:])


def mentioned(text: str) -> Iterator[str]:
    """Each command line of `fgdiag` in the running text."""
    return (" ".join(words.split()) for words in INLINE.findall(FENCE.sub("", text)))


def commands() -> tuple[Any, Any]:
    """The command line, and a context of its own."""
    group: Any = typer.main.get_command(app)
    context = group.make_context("fgdiag", [], resilient_parsing=True)
    context.resilient_parsing = False
    return group, context


def parse(command: str) -> None:
    """Let click parse a command line as if it were typed, without running it."""
    group, outer = commands()
    name, found, rest = group.resolve_command(outer, shlex.split(command))
    found.make_context(name, rest, parent=outer)


def check_mention(command: str) -> None:
    """Check the name of a command and of its options; the rest may be left out or be a placeholder."""
    name, *words = shlex.split(command)
    if name.startswith("-") or PLACEHOLDER.fullmatch(name):
        return
    group, outer = commands()
    found = group.get_command(outer, name)
    assert found is not None, f"there is no command {name!r}"
    known = {option for parameter in found.params for option in parameter.opts} | {"--help"}
    assert {word for word in words if re.match(r"--?[a-z]", word)} <= known, command


def check_names(source: str) -> None:
    """Compile Python, import what it imports, and look its names and keyword arguments up."""
    tree = ast.parse(source)
    known: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                module = import_module(name.name)
                known[name.asname or name.name.partition(".")[0]] = (
                    module if name.asname else import_module(name.name.partition(".")[0])
                )
        elif isinstance(node, ast.ImportFrom):
            module = import_module(str(node.module))
            for name in node.names:
                known[name.asname or name.name] = getattr(module, name.name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner = known.get(node.value.id)
            if isinstance(owner, ModuleType):
                getattr(owner, node.attr)
        elif isinstance(node, ast.Call):
            check_call(node, known)


def check_call(call: ast.Call, known: dict[str, Any]) -> None:
    """Check the arguments of a call of something that was imported, or that a module has."""
    name = call.func
    if isinstance(name, ast.Attribute) and isinstance(name.value, ast.Name):
        called = getattr(known.get(name.value.id), name.attr, None)
    else:
        called = known.get(name.id) if isinstance(name, ast.Name) else None
    own = str(getattr(called, "__module__", "")).startswith("fgdiag")
    if own and not any(isinstance(argument, ast.Starred) for argument in call.args):
        given = {word.arg: None for word in call.keywords if word.arg}
        inspect.signature(called).bind(*[None] * len(call.args), **given)  # pyright: ignore


ALL_TYPED = [
    pytest.param(line, id=f"{page.stem}: {line[:60]}") for page in PAGES for line in typed(page.read_text())
]


@pytest.mark.parametrize("line", ALL_TYPED)
def test_every_command_shown_can_be_typed(line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    parse(line)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_mentioned_exists(page: Path):
    for line in mentioned(page.read_text()):
        check_mention(line)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_shown_uses_names_that_exist(page: Path):
    for source in fences(page.read_text(), "python"):
        check_names(source)


def test_commands_were_found():
    assert len(ALL_TYPED) > 60
    found = {str(line.values[0]).split()[0] for line in ALL_TYPED}
    assert {"demo", "diagnose", "compare", "answer", "calibrate", "assemble", "train"} <= found


@pytest.mark.parametrize(
    "page",
    [
        "```\nfgdiag diagnos MODEL IMAGES -o RUN\n```",
        "```\nfgdiag diagnose MODEL IMAGES -o RUN --limt 3\n```",
        "```\nfgdiag diagnose MODEL -o RUN\n```",
        "```\nfgdiag diagnose MODEL IMAGES -o RUN --limit many\n```",
        "```\nfgdiag answer RUN \\\n    --distractors hard\n```",
        "```bash\nfgdiag extract MODEL IMAGES -o RUN --readouts everything  # a comment\n```",
    ],
)
def test_a_wrong_command_fails(page: str):
    (line,) = typed(page)
    with pytest.raises(WRONG_USAGE):
        parse(line)


@pytest.mark.parametrize("text", ["see `fgdiag probes RUN`", "see `fgdiag probe RUN --layers 3`"])
def test_a_wrong_mention_fails(text: str):
    (line,) = mentioned(text)
    with pytest.raises(AssertionError):
        check_mention(line)


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import fgdiag\nfgdiag.open_vml('x')", AttributeError),
        ("from fgdiag_probes import probe_layer", AttributeError),
        ("import fgdiagg", ModuleNotFoundError),
        ("import fgdiag\nfgdiag.open_vlm('x', dtypes='bfloat16')", TypeError),
        ("print('x'", SyntaxError),
    ],
)
def test_wrong_python_fails(source: str, error: type[Exception]):
    with pytest.raises(error):
        check_names(source)


def test_every_page_is_linked_from_the_site():
    listed = (ROOT / "mkdocs.yml").read_text()
    pages = [page.relative_to(ROOT / "docs").as_posix() for page in PAGES[1:]]
    assert [page for page in pages if page not in listed] == []


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_is_kept_without_output(path: Path, bench: Path, tmp_path: Path):
    nbformat, nbclient = import_module("nbformat"), import_module("nbclient")
    notebook = nbformat.read(path, as_version=4)
    assert all(not cell.get("outputs") and not cell.get("execution_count") for cell in notebook.cells)
    shutil.copytree(bench / "runs" / "birds", tmp_path / "runs" / "demo")
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3", resources=where).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("application/vnd.plotly.v1+json" in output.get("data", {}) for output in shown)

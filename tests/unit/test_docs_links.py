"""The documentation names only what exists: links, headings, files, functions, decisions."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")], key=lambda page: page.relative_to(ROOT)
)
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
# What is written like a path of this checkout, in backticks.
PATH = re.compile(r"`((?:sync|sql|migrations|tests|docs|bench|\.ci)/[\w./-]*)`")
# A file by its name alone, beside others of its folder.
FILE = re.compile(r"`([\w-]+\.(?:py|sql|toml|yml|md))`")
KEPT = ("*", "sync/**/*", "sql/**/*", "migrations/**/*", "tests/**/*", "docs/**/*")
SETTINGS = {"standpipe.toml"}  # the user's own
MODULES = {"backports.zstd": "zstd", "dnspython": "dns", "httpx-aiohttp": "httpx_aiohttp"}
FUNCTION = re.compile(r"\b(sync(?:_priv)?)\.(\w+)\(")

each_page = pytest.mark.parametrize("page", PAGES, ids=NAMES)


def prose(page: Path) -> str:
    """Return a page without its code blocks."""
    return re.sub(
        r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )


def anchors(page: Path) -> set[str]:
    """Return the anchors that the headings of a page make."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def local_links(page: Path) -> Iterator[tuple[str, Path, str]]:
    """Yield each relative link with the file and the anchor it leads to."""
    for link in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        yield link, (page.parent / name).resolve() if name else page, anchor


def defined(schema: str) -> set[str]:
    """Return the functions that SQL files and migrations define."""
    files = [*ROOT.glob("sql/**/*.sql"), *ROOT.glob("migrations/*.sql")]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    pattern = rf"create (?:or replace )?function\s+{schema}\.(\w+)"
    return set(re.findall(pattern, text))


@each_page
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    broken = [link for link, file, _ in local_links(page) if not file.exists()]
    assert broken == []


@each_page
def test_every_anchor_is_a_heading(page: Path) -> None:
    broken = [
        link
        for link, file, anchor in local_links(page)
        if anchor and file.suffix == ".md" and anchor not in anchors(file)
    ]
    assert broken == []


@each_page
def test_every_path_that_is_named_exists(page: Path) -> None:
    named = [path for path in PATH.findall(prose(page)) if "NNNN" not in path]
    missing = [path for path in named if not (ROOT / path).exists()]
    assert missing == []


@each_page
def test_every_file_that_is_named_exists(page: Path) -> None:
    files = {path.name for folder in KEPT for path in ROOT.glob(folder)}
    made_by_the_page = set(re.findall(r"^cat > (\S+)", page.read_text("utf-8"), re.MULTILINE))
    named = {name for name in FILE.findall(prose(page)) if "NNNN" not in name}
    assert sorted(named - files - made_by_the_page - SETTINGS) == []


@each_page
def test_every_function_that_is_named_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    unknown = [
        f"{schema}.{name}()"
        for schema, name in FUNCTION.findall(text)
        if name not in defined(schema)
    ]
    assert unknown == []


def test_every_page_is_on_the_map() -> None:
    reached = {file for _, file, _ in local_links(ROOT / "docs" / "README.md")}
    pages = {page.resolve() for page in ROOT.glob("docs/*/*.md")}
    assert sorted(page.name for page in pages - reached) == []


def test_the_architecture_names_every_folder_of_sql() -> None:
    page = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    folders = {file.parent.name for file in ROOT.glob("sql/*/*.sql")}
    assert sorted(folder for folder in folders if f"`{folder}`" not in page) == []


@pytest.mark.parametrize("folder", ["sync", "sync/atproto"])
def test_the_architecture_names_every_module_of(folder: str) -> None:
    page = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(?:\w+/)*(\w+)(?:\.py)?`", page))
    modules = {path.stem for path in (ROOT / folder).glob("*.py") if path.stem[0] != "_"}
    assert sorted(modules - named) == []


def test_the_readme_names_every_package_it_depends_on() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = re.search(r"^dependencies = \[(.*?)^\]", project, re.MULTILINE | re.DOTALL)
    assert block is not None
    packages = re.findall(r'^  "([\w.-]+)', block[1], re.MULTILINE)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [package for package in packages if f"`{package}`" not in readme] == []


def package_rows() -> Iterator[tuple[str, str]]:
    """Yield each package of the README's table with the files where it is said to work."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for packages, files in re.findall(r"^\| (`.*) \| .* \| (`sync/.*) \|$", readme, re.MULTILINE):
        if "/" not in packages:
            yield from ((package, files) for package in re.findall(r"`([\w.-]+)`", packages))


@pytest.mark.parametrize(("package", "files"), list(package_rows()))
def test_a_package_works_where_the_readme_says(package: str, files: str) -> None:
    module = MODULES.get(package, package.replace("-", "_"))
    folder = ROOT
    found = False
    for name in re.findall(r"`([^`]+)`", files):
        path = ROOT / name if "/" in name else folder / name
        folder = path.parent
        sources = path.rglob("*.py") if path.is_dir() else [path]
        found |= any(re.search(rf"\b{module}\b", one.read_text("utf-8")) for one in sources)
    assert found

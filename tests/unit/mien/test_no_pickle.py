"""Nothing that is read can run as code: no pickle, in what ships and in what makes it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FOLDERS = ("mien", "edge_encoder", "cloud_recognizer", "trainer", "benchmarks", "deploy", "docs")
PICKLES = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
# A call that may unpickle, or run what it reads → the keyword that keeps it from that.
GUARDED = {"np.load": "allow_pickle=False", "torch.load": "weights_only=True"}
REFUSED = {
    *("eval", "exec", "yaml.unsafe_load", "yaml.full_load", "np.save", "np.savez"),
    *("torch.jit.load", "torch.package", "pd.read_pickle"),
}


def findings(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                modules = [name.name for name in names]
            case ast.ImportFrom(module=module, level=0):
                modules = [module or ""]
            case _:
                modules = []
        yield from (f"line {node.lineno}: {m}" for m in modules if m.split(".")[0] in PICKLES)
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        keywords = {f"{word.arg}={ast.unparse(word.value)}" for word in node.keywords}
        guard = GUARDED.get(called)
        if called in REFUSED or (guard and guard not in keywords):
            yield f"line {node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_nothing_unpickles_or_runs_what_it_reads(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    found = {str(path): list(findings(path.read_text(encoding="utf-8"))) for path in files}
    assert not {path: lines for path, lines in found.items() if lines}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "torch.load(path, map_location='cpu')",
        "torch.load(path, weights_only=False)",
        "eval(text)",
    ],
)
def test_what_would_is_noticed(source: str) -> None:
    assert list(findings(source))

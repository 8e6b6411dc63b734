"""`mien-train`: the codec that ships (fit, export, tables, evaluate), the study of the paper's."""

import dataclasses
import json
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import jsonargparse

from mien.errors import MienError
from trainer.config import FitConfig
from trainer.data.errors import DatasetError
from trainer.study.commands import add_commands, run_command

X86_64_ONLY = ("compressai", "pillow_jxl", "webp")
PRESETS = resources.files("trainer") / "presets"


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Returns 0, or 2 with a message for what the user can mend."""
    parser = _parser()
    typed = sys.argv[1:] if arguments is None else arguments
    try:
        options = parser.instantiate(parser.parse_args(_with_preset(typed)))
        command = options.command
        if command in COMMANDS:
            COMMANDS[command](options[command])
        else:
            run_command(command, options[command])
    except (DatasetError, MienError, FileNotFoundError, FileExistsError, ValueError) as error:
        print(f"mien-train: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if error.name not in X86_64_ONLY:
            raise
        print(
            f"mien-train: {error.name} is not installed, which a study needs: "
            "pip install '.[trainer]' brings it on x86-64, elsewhere it has no wheel",
            file=sys.stderr,
        )
        return 2
    return 0


def _parser() -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser("mien-train", description=__doc__)
    commands = parser.add_subcommands(required=True, dest="command")
    fit = jsonargparse.ArgumentParser(description="train, or go on with a run that was stopped")
    fit.add_argument("--config", action="config", help="a YAML file of the options below")
    fit.add_argument("--preset", help=f"a configuration that comes along: {_preset_names('fit')}")
    fit.add_class_arguments(FitConfig, None)
    commands.add_subcommand("fit", fit)
    export = jsonargparse.ArgumentParser(description="make a bundle of a finished run")
    export.add_argument("--run", type=Path, required=True, help="the --out of fit")
    export.add_argument("--data", type=Path, required=True, help="the dataset it was trained on")
    export.add_argument("--bundle", type=Path, required=True, help="folder to write")
    export.add_argument("--name", type=str, help="the bundle's name; the folder's by default")
    commands.add_subcommand("export", export)
    tables = jsonargparse.ArgumentParser(
        description="copy a bundle and its networks, with tables counted and figures measured anew"
    )
    tables.add_argument("--bundle", type=Path, required=True, help="folder of the bundle")
    tables.add_argument("--data", type=Path, required=True, help="the dataset it was trained on")
    tables.add_argument("--out", type=Path, required=True, help="folder to write, a new one")
    commands.add_subcommand("tables", tables)
    evaluate = jsonargparse.ArgumentParser(description="measure a bundle on labelled faces")
    evaluate.add_argument("--bundle", type=Path, required=True, help="folder of the bundle")
    evaluate.add_argument("--data", type=Path, required=True, help="a dataset, or one split of it")
    evaluate.add_argument("--json", type=Path, help="also write the figures here")
    evaluate.add_argument(
        "--split", type=str, choices=["train", "valid", "test"], help="else the held-out one"
    )
    commands.add_subcommand("evaluate", evaluate)
    shipped = jsonargparse.ArgumentParser(
        description="what a bundle saves against the methods of a study"
    )
    shipped.add_argument("--bundle", type=Path, required=True, help="folder of the bundle")
    shipped.add_argument("--results", type=Path, required=True, help="folder of results.json")
    commands.add_subcommand("shipped", shipped)
    add_commands(commands, _preset_names("study"))
    return parser


def _preset_names(kind: str) -> list[str]:
    files = (PRESETS / kind).iterdir()
    return sorted(p.name.removesuffix(".yaml") for p in files if ".yaml" in p.name)


def _with_preset(arguments: list[str]) -> list[str]:
    """`--preset NAME` as the `--config FILE` that it stands for, so that later flags override it.

    Raises ValueError for a name that there is not.
    """
    # --preset=NAME is one word of it.
    arguments = [
        part
        for word in arguments
        for part in (word.split("=", 1) if word.startswith("--preset=") else [word])
    ]
    if "--preset" not in arguments[:-1]:
        return arguments
    at = arguments.index("--preset")
    name, kind = arguments[at + 1], "fit" if arguments[0] == "fit" else "study"
    if name not in _preset_names(kind):
        raise ValueError(f"there is no preset {name!r}; there are {_preset_names(kind)}")
    file = PRESETS / kind / f"{name}.yaml"
    return [*arguments[:at], "--config", str(file), *arguments[at + 2 :]]


def _fit(options: Any) -> None:
    from trainer.fit import fit

    plain = {field.name: options[field.name] for field in dataclasses.fields(FitConfig)}
    figures = fit(FitConfig(**plain))
    print(json.dumps(figures, indent=2))


def _export(options: Any) -> None:
    from trainer.export import export
    from trainer.run_folder import load_trained

    config = read_config(options.run, options.data)
    name = options.name or options.bundle.name
    print(export(load_trained(config), options.data, options.bundle, name))


def _tables(options: Any) -> None:
    from trainer.retable import retable

    print(retable(options.bundle, options.data, options.out))


def _evaluate(options: Any) -> None:
    from trainer.evaluate import evaluate, report, write_json

    figures = evaluate(options.bundle, options.data, options.split)
    print(report(figures))
    if options.json:
        write_json(figures, options.json)


def _shipped(options: Any) -> None:
    from trainer.compare.shipped import report, savings

    print(report(savings(options.bundle, options.results)))


def read_config(run: Path, data: Path) -> FitConfig:
    """The configuration that fit left in a run's folder."""
    plain = json.loads((run / "config.json").read_text())
    parser = jsonargparse.ArgumentParser()
    parser.add_class_arguments(FitConfig, None)
    options = parser.parse_object({**plain, "data": str(data), "out": str(run)})
    return FitConfig(**vars(parser.instantiate(options)))


COMMANDS = {
    "fit": _fit,
    "export": _export,
    "tables": _tables,
    "evaluate": _evaluate,
    "shipped": _shipped,
}

if __name__ == "__main__":
    sys.exit(main())

"""The commands of a study: a stage each, all of them, and their comparison."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jsonargparse

from trainer.study.config import StudyConfig

STAGES = {
    "pretrain": "train the generic codec on photographs",
    "classifier": "train the original classifier on uncompressed faces",
    "latents": "teach an analysis to tell expressions apart, for tuned codecs to start from",
    "finetune": "tune the codec alone against the frozen classifier, once for each seed",
    "joint": "tune codec and classifier together, once for each seed",
    "adapt": "tune the classifier alone on what other codecs make of the faces",
    "edge": "train a classifier of the encoder's cost",
    "grid": "tune the codec briefly with every pair of loss weights",
}


def add_commands(commands: Any, presets: list[str]) -> None:
    """Add a study's commands to mien-train's."""
    for name, does in STAGES.items():
        stage = _with_config(jsonargparse.ArgumentParser(description=does), presets)
        if name == "adapt":
            stage.add_argument("--codecs", type=list[str], help="only these: pretrained, jpeg, …")
        commands.add_subcommand(name, stage)
    for name, does in (
        ("study", "all stages that are not done yet, then compare"),
        ("compare", "measure what has been trained in real coded bytes, and report"),
    ):
        parser = _with_config(jsonargparse.ArgumentParser(description=does), presets)
        parser.add_argument("--results", type=Path, help="folder for the report, plots and JSON")
        parser.add_argument(
            "--pictures", type=Path, help="faces for the sheet instead of drawn ones"
        )
        commands.add_subcommand(name, parser)
    release = jsonargparse.ArgumentParser(
        description="write a study's finished networks in half precision, for others to start from"
    )
    release.add_argument("--out", type=Path, required=True, help="the study's --out")
    release.add_argument("--networks", type=Path, required=True, help="folder to write")
    commands.add_subcommand("release", release)
    report = jsonargparse.ArgumentParser(description="write a report's pages anew from its JSON")
    report.add_argument("--results", type=Path, required=True, help="folder with results.json")
    report.add_argument("--readme", type=Path, help="a page whose marked table is filled in")
    commands.add_subcommand("report", report)


def run_command(command: str, options: Any) -> None:
    """Run one of the commands that add_commands added."""
    if command == "report":
        _report(options.results, options.readme)
        return
    if command == "release":
        _release(options.out, options.networks)
        return
    config = StudyConfig(**{f.name: options[f.name] for f in dataclasses.fields(StudyConfig)})
    config.out.mkdir(parents=True, exist_ok=True)
    if config.threads:
        import torch

        torch.set_num_threads(config.threads)
    if command in STAGES:
        print(json.dumps(_stage(command, config, options), indent=2))
    else:
        _compare(command, config, options)


def _stage(command: str, config: StudyConfig, options: Any) -> Any:
    from trainer.study import pipeline

    if command in pipeline.ONCE:
        return pipeline.once(config, command)
    if command == "adapt":
        return {name: pipeline.adapt(config, name) for name in options.codecs or pipeline.ADAPTED}
    return {seed: pipeline.tune(config, command, seed) for seed in config.seeds}


def _compare(command: str, config: StudyConfig, options: Any) -> None:
    from trainer.study import pipeline

    if command == "study":
        pipeline.train(config)
    pipeline.compare(config, options.results, options.pictures)


def _report(results: Path, readme: Path | None) -> None:
    from trainer.compare.make import render
    from trainer.compare.readme_table import fill_readme

    for path in render(results):
        print(path)
    if readme is not None:
        fill_readme(readme, results)


def _release(out: Path, networks: Path) -> None:
    from trainer.networks import release

    for path in release(out, networks):
        print(path)


def _with_config(parser: jsonargparse.ArgumentParser, presets: list[str]) -> Any:
    parser.add_argument("--config", action="config", help="a YAML file of the options below")
    parser.add_argument("--preset", help=f"a configuration that comes along: {presets}")
    parser.add_class_arguments(StudyConfig, None)
    return parser

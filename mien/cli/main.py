"""`mien`, the command for people: demo, recognize, watch, inspect, bundles, rescore.

This module parses and dispatches, and it turns domain errors into one message and an exit code.
What a subcommand needs is imported when it runs, so that `mien inspect` works with the bare
install. argparse, and not jsonargparse as in the services, for the same reason.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from mien.cli.security import add_security, security_of
from mien.errors import ConfigError, MienError
from mien.exit_codes import ExitCode, exit_code

_EXIT_CODES = """exit codes:
  0 done; 1 failed, the message says how; 2 a wrong flag or setting; 3 the source cannot be read;
  4 the recognizer cannot be reached; 5 the bundle cannot be used; 130 interrupted"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code; argparse itself exits with 2."""
    options = _parser().parse_args(arguments)
    try:
        ended = int(options.run(options))
        # Not left to the interpreter's end: there a reader that has gone would be a traceback.
        sys.stdout.flush()
    except MienError as error:
        print(f"mien {options.command}: {error}", file=sys.stderr)
        return int(exit_code(error))
    except ModuleNotFoundError as error:
        print(_missing(options.command, error), file=sys.stderr)
        return int(ExitCode.FAILURE)
    except KeyboardInterrupt:
        return int(ExitCode.INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output, `head` for instance, has seen enough.
        sys.stdout = None
        return int(ExitCode.OK)
    return ended


def _missing(command: str, error: ModuleNotFoundError) -> str:
    extras = {
        "watch": "cli",
        "inspect": "cli",
        "recognize": "edge,cli",
        "rescore": "cloud,cli,ray" if error.name == "ray" else "cloud,cli,archive",
        "certificates": "encrypt",
        "bundles": "edge",
    }.get(command, "edge,cloud,cli")
    return (
        f"mien {command} needs the package {error.name}, which is not installed: "
        f"in mien's checkout, run pip install '.[{extras}]'"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mien",
        description="Facial expressions over the wire in tens of bytes.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"mien {version('mien')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_demo(commands.add_parser("demo", help="the whole way of a face, on this machine"))
    _add_recognize(commands.add_parser("recognize", help="name the expressions in photographs"))
    _add_watch(commands.add_parser("watch", help="follow what a running recognizer sees"))
    _add_inspect(commands.add_parser("inspect", help="say what is in a payload or a bundle"))
    _add_certificates(commands.add_parser("certificates", help="make certificates to try TLS with"))
    _add_bundles(commands.add_parser("bundles", help="say which bundle of a repository does what"))
    _add_rescore(commands.add_parser("rescore", help="classify an archive's faces anew"))
    return parser


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Start mien-cloud and mien-edge on this machine, stream a source through them, show what "
        "is recognised, and write summary.json, timeline.png and annotated.mp4. The services "
        "take further settings from the environment (MIEN_EDGE_*, MIEN_CLOUD_*)."
    )
    parser.add_argument(
        "--source", required=True, help="video file, folder of images, camera index or URL"
    )
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="folder for the results")
    parser.add_argument(
        "--bundle", type=Path, help="bundle folder; by default the released one of the repository"
    )
    parser.add_argument(
        "--fast", action="store_true", help="read a clip as fast as it goes, not at its own speed"
    )
    parser.add_argument(
        "--seconds", type=float, help="stop after so long; without it a camera runs until Ctrl-C"
    )
    parser.set_defaults(run=_demo)


def _demo(options: argparse.Namespace) -> ExitCode:
    from mien.cli.demo import DemoOptions, demo

    return demo(
        DemoOptions(
            source=options.source,
            out=options.out,
            bundle=options.bundle,
            at_clip_speed=not options.fast,
            seconds=options.seconds,
        )
    )


def _add_recognize(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Find the faces of photographs on this machine, send their coded chunks to a recognizer, "
        "and print one JSON object for each face."
    )
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    parser.add_argument("--server", required=True, metavar="HOST:PORT")
    add_security(parser)
    parser.add_argument(
        "--bundle", type=Path, help="bundle folder; by default the recognizer's own is fetched"
    )
    parser.add_argument(
        "--bundle_keys", type=Path, metavar="FOLDER", help="public keys, one of which must sign it"
    )
    parser.set_defaults(run=_recognize)


def _recognize(options: argparse.Namespace) -> ExitCode:
    from mien.cli.recognize import recognize

    keys, security = options.bundle_keys, security_of(options)
    return recognize(options.images, options.server, options.bundle, keys, security)


def _add_watch(parser: argparse.ArgumentParser) -> None:
    parser.description = "Print each recognition as the recognizer makes it."
    parser.add_argument("--server", required=True, metavar="HOST:PORT")
    add_security(parser)
    parser.add_argument("--device", action="append", default=[], help="only this one; repeatable")
    parser.add_argument("--track", action="append", default=[], type=int, help="only this track")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--limit", type=int, default=0, help="end after so many recognitions")
    parser.add_argument(
        "--give_up_s",
        type=float,
        default=60.0,
        help="seconds without a recognizer, after a break, until it is given up (60)",
    )
    parser.set_defaults(run=_watch)


def _watch(options: argparse.Namespace) -> ExitCode:
    from mien.cli.watch import WatchOptions, watch

    return watch(
        WatchOptions(
            server=options.server,
            devices=options.device,
            tracks=options.track,
            as_json=options.json,
            limit=options.limit,
            give_up_s=options.give_up_s,
            security=security_of(options),
        )
    )


def _add_inspect(parser: argparse.ArgumentParser) -> None:
    parser.description = "Say in words what is in a coded chunk or in a bundle folder."
    parser.add_argument("path", type=Path, metavar="FILE|BUNDLE")
    parser.add_argument(
        "--bundle", type=Path, help="decode a chunk with it; by default a released one that fits"
    )
    parser.set_defaults(run=_inspect)


def _inspect(options: argparse.Namespace) -> ExitCode:
    from mien.cli.inspect import inspect

    print(inspect(options.path, options.bundle))
    return ExitCode.OK


def _add_certificates(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "A certificate authority for development. Its key lies in the folder: not for production."
    )
    parser.add_argument("--folder", type=Path, default=Path("certificates"))
    parser.add_argument(
        "--days", type=float, help="how long it is valid (365 for the authority, else 30)"
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    kinds.add_parser("ca", help="the authority; once")
    server = kinds.add_parser("server", help="a recognizer's, for the names it is dialled by")
    server.add_argument("name", metavar="NAME")
    server.add_argument("hosts", nargs="+", metavar="HOST")
    for role in ("device", "consumer", "operator"):
        kinds.add_parser(role, help=f"a client's of the role {role}").add_argument("name")
    parser.set_defaults(run=_certificates)


def _certificates(options: argparse.Namespace) -> ExitCode:
    from mien.cli.certificates import issue

    name, hosts = getattr(options, "name", ""), getattr(options, "hosts", ())
    print(issue(options.folder, options.kind, name, hosts, options.days))
    return ExitCode.OK


def _add_bundles(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "List the bundles of a repository folder, decide which one devices use, or sign them. A "
        "recognizer that serves the folder follows within seconds. ID: a folder's name or the "
        "first digits."
    )
    parser.add_argument("--repository", type=Path, metavar="FOLDER")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="one line a bundle")
    actions.add_parser("promote", help="every device uses it").add_argument("id", metavar="ID")
    canary = actions.add_parser("canary", help="a share of the devices uses it; ID none: no canary")
    canary.add_argument("id", metavar="ID")
    canary.add_argument("--share", type=float, help="above 0, at most 1")
    shadow = actions.add_parser("shadow", help="it answers too, to be compared; ID none: no shadow")
    shadow.add_argument("id", metavar="ID")
    actions.add_parser("rollback", help="return to the bundle promoted before")
    key = actions.add_parser("new-key", help="make a key to sign with: FILE and FILE.pub")
    key.add_argument("file", type=Path, metavar="FILE")
    sign = actions.add_parser("sign", help="vouch for a bundle; its id stays")
    sign.add_argument("id", metavar="ID")
    sign.add_argument("--key", type=Path, required=True, metavar="FILE", help="the private key")
    verify = actions.add_parser("verify", help="check who has signed it; without ID all")
    verify.add_argument("id", metavar="ID", nargs="?")
    verify.add_argument("--bundle_keys", type=Path, required=True, metavar="FOLDER")
    parser.set_defaults(run=_bundles)


def _bundles(options: argparse.Namespace) -> ExitCode:
    from mien.cli import bundles

    if options.action == "new-key":
        print(bundles.new_key(options.file))
        return ExitCode.OK
    folder = options.repository
    if folder is None:
        raise ConfigError(f"{options.action} needs the bundles' folder: --repository")
    match options.action:
        case "list":
            said = bundles.listing(folder)
        case "promote":
            said = bundles.promote(folder, options.id)
        case "canary":
            said = bundles.canary(folder, options.id, options.share)
        case "shadow":
            said = bundles.shadow(folder, options.id)
        case "sign":
            said = bundles.sign_bundle(folder, options.id, options.key)
        case "verify":
            said = bundles.verify(folder, options.id, options.bundle_keys)
        case _:
            said = bundles.rollback(folder)
    print(said)
    return ExitCode.OK


def _add_rescore(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Run the payloads of an archive (mien-cloud serve --archive) through another bundle's "
        "classifier, and write a Parquet file with a row for each face. The same command goes on "
        "where it was stopped."
    )
    parser.add_argument("archive", type=Path, metavar="ARCHIVE")
    parser.add_argument(
        "--bundle", type=Path, required=True, help="folder of the bundle that classifies"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.parquet")
    parser.add_argument(
        "--bundle_keys", type=Path, metavar="FOLDER", help="public keys, one of which must sign it"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--workers", type=int, default=1, metavar="N", help="processes here (1)")
    where.add_argument(
        "--ray",
        action="store_true",
        help="on the Ray cluster of RAY_ADDRESS, which must see all three paths; else a local one",
    )
    parser.add_argument(
        "--any_analysis",
        action="store_true",
        help="also where the bundle's analysis transform is not the one that made the latents",
    )
    parser.set_defaults(run=_rescore)


def _rescore(options: argparse.Namespace) -> ExitCode:
    from mien.cli.rescore import RescoreOptions, rescore

    print(
        rescore(
            RescoreOptions(
                archive=options.archive,
                bundle=options.bundle,
                output=options.output,
                workers=options.workers,
                ray=options.ray,
                any_analysis=options.any_analysis,
                bundle_keys=options.bundle_keys,
            )
        )
    )
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())

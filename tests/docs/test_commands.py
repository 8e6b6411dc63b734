"""Every command of every page does what its page says; kinds.py has how each is proven."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest

from tests.docs.kinds import BLOCKS, KINDS, Kind, kind_of
from tests.docs.pages import ROOT, Command, commands
from tests.docs.session import Session
from tests.docs.workshop import Workshop

COMMANDS = commands("sh", "python", "yaml")
Follow = Callable[[Command], None]


class Reader:
    """Follows the pages; of each, what stands above a command goes before it."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        self._tried: set[Command] = set()
        self._page = ""
        self._open = ExitStack()

    def close(self) -> None:
        self._open.close()

    def follow(self, command: Command) -> None:
        """Prove one command, and first those above it that were not tried, as with pytest's -k."""
        session = self._session(command.page)
        above = COMMANDS[: COMMANDS.index(command)]
        for earlier in above:
            if earlier.page == command.page and earlier not in self._tried:
                with suppress(pytest.skip.Exception):
                    self._try(earlier, session)
        self._try(command, session)

    def _try(self, command: Command, session: Session) -> None:
        self._tried.add(command)
        kind = kind_of(command)
        assert kind is not None, f"{command}: nothing runs {command.text!r}; see kinds.py"
        kind.proof(command, session)

    def _session(self, page: str) -> Session:
        """A page's; the one of the page before ends, with its recognizer."""
        if page != self._page:
            self._open.close()
            folder = self._workshop.folder / page.replace("/", "-")
            self._page = page
            self._current = self._open.enter_context(Session(folder, self._workshop))
        return self._current


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    with Workshop(tmp_path_factory.mktemp("pages")) as workshop:
        one = Reader(workshop)
        try:
            yield one
        finally:
            one.close()


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_command_does_what_its_page_says(command: Command, reader: Reader) -> None:
    reader.follow(command)


@pytest.mark.parametrize("language", ["sh", "python", "yaml"])
def test_pages_have_commands_in_each_language(language: str) -> None:
    assert any(command.language == language for command in COMMANDS)


def test_a_command_that_nothing_runs_is_noticed(reader: Reader) -> None:
    assert kind_of(Command("README.md", 1, "sh", "mien-cloud bake --bundles bundles")) is None
    assert kind_of(Command("README.md", 1, "python", "print('hello')")) is None


@pytest.mark.parametrize("kind", [*KINDS, *BLOCKS], ids=lambda kind: kind.begins)
def test_a_kind_is_in_use_and_names_tests_that_are_there(kind: Kind) -> None:
    assert any(kind_of(command) is kind for command in COMMANDS)
    assert all((ROOT / test).is_file() for test in kind.elsewhere)

"""Keys that tests sign bundles with, made anew for each."""

from dataclasses import dataclass
from pathlib import Path

from mien.signing import TrustedKeys, make_key


@dataclass(frozen=True)
class Signer:
    """private: the key's file. folder: where its public half lies, alone. name: the key's id."""

    private: Path
    folder: Path
    name: str

    @property
    def trusted(self) -> TrustedKeys:
        return TrustedKeys.load(self.folder)


def make_signer(folder: Path, name: str = "key") -> Signer:
    trusted = folder / f"{name}-trusted"
    trusted.mkdir(parents=True)
    private = folder / name
    public, key = make_key(private)
    public.rename(trusted / public.name)
    return Signer(private, trusted, key)

"""Leaves out what cannot be installed here: some packages have wheels for x86-64 alone."""

from importlib.util import find_spec

NEEDED = {
    "compressai": ["test_hyperprior.py", "test_processes.py", "test_study.py"],
    "webp": ["test_coding.py", "test_image_codecs.py", "test_study.py"],
    "pillow_jxl": ["test_coding.py", "test_image_codecs.py", "test_study.py"],
}
collect_ignore = [
    name for package, names in NEEDED.items() if not find_spec(package) for name in names
]
